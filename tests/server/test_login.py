"""How often a password may be guessed, and where it comes from."""

import pytest

from studio.errors import ConfigError
from studio.server.login import ALL_GUESSES, GUESSES, MOST_ADDRESSES, WHILE, Guesses
from studio.server.sessions import Sessions, named_in_address, named_in_body
from studio.server.settings import Settings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_may_guess_again_after_a_while():
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(GUESSES):
        assert guesses.closed_for("10.0.0.1") == 0
        guesses.count("10.0.0.1")
    assert guesses.closed_for("10.0.0.1") == WHILE and guesses.closed_for("10.0.0.2") == 0
    clock.now += WHILE - 1
    assert guesses.closed_for("10.0.0.1") == 1
    clock.now += 1
    assert guesses.closed_for("10.0.0.1") == 0


def test_a_right_password_begins_the_count_anew():
    guesses = Guesses(Clock())
    for _ in range(5):
        for _ in range(GUESSES - 1):
            guesses.count("10.0.0.1")
        guesses.right("10.0.0.1")
    assert guesses.closed_for("10.0.0.1") == 0


def test_many_addresses_guess_no_more_than_all_may():
    guesses = Guesses(Clock())
    for number in range(ALL_GUESSES):
        assert guesses.closed_for(f"10.0.{number // 250}.{number % 250}") == 0
        guesses.count(f"10.0.{number // 250}.{number % 250}")
    assert guesses.closed_for("10.9.9.9") == WHILE
    for number in range(2 * MOST_ADDRESSES):
        guesses.count(f"{number}")
    assert len(guesses._by) == MOST_ADDRESSES and len(guesses._all) == ALL_GUESSES


def test_one_households_ipv6_addresses_are_one():
    guesses = Guesses(Clock())
    for number in range(GUESSES):
        guesses.count(f"2001:db8::{number}")
    assert guesses.closed_for("2001:db8::ffff") and not guesses.closed_for("2001:db8:0:1::1")


def test_a_password_from_a_file_stands_in_no_list_of_processes(tmp_path):
    file = tmp_path / "password"
    file.write_text("ada:a:b\n")
    assert Settings.from_arguments(["--auth-file", str(file)], {}).auth == ("ada", "a:b")
    assert Settings.from_arguments([], {"STUDIO_AUTH_FILE": str(file)}).auth == ("ada", "a:b")
    assert Settings.from_arguments(["--auth", "x:y"], {"STUDIO_AUTH_FILE": str(file)}).auth == ("x", "y")
    assert Settings.from_arguments(["--auth-file", str(file)], {"STUDIO_AUTH": "x:y"}).auth == ("ada", "a:b")


@pytest.mark.parametrize("content", [b"", b"\n", b"nobody", b"a:b\nc:d", b"\xff\xfe", None])
def test_a_file_without_a_password_opens_no_studio_without_one(tmp_path, content):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Settings.from_arguments(["--auth-file", str(file)], {})
    assert len(str(caught.value).splitlines()) == 1


def test_two_passwords_at_once_are_refused():
    with pytest.raises(ConfigError, match="twice"):
        Settings.from_arguments(["--auth", "a:b", "--auth-file", "x"], {})


def test_a_session_stays_with_whoever_named_it_first():
    sessions = Sessions(most=3)
    assert sessions.belongs("s", "ada") and sessions.belongs("s", "ada") and not sessions.belongs("s", "bob")
    for name in ("1", "2", "3"):
        assert sessions.belongs(name, "bob")
    assert sessions.belongs("s", "bob"), "the least recently named one is forgotten"


@pytest.mark.parametrize(
    "path, query, named",
    [
        ("/gradio_api/queue/data", b"session_hash=abc", ["abc"]),
        ("/gradio_api/queue/data", b"x=1&session_hash=a%62c", ["abc"]),
        ("/gradio_api/heartbeat/abc", b"", ["abc"]),
        ("/gradio_api/call/generate/abc", b"", ["abc"]),
        ("/gradio_api/call/v2/generate/abc", b"", ["abc"]),
        ("/gradio_api/stream/abc/1/2/playlist.m3u8", b"", ["abc"]),
        ("/gradio_api/call/generate", b"", []),
        ("/", b"", []),
    ],
)
def test_every_address_of_a_session_is_known(path, query, named):
    assert named_in_address(path, query) == named


def test_an_event_names_its_session_and_itself():
    assert named_in_body({"session_hash": "a", "event_id": "b", "data": []}) == ["a", "b"]
    assert named_in_body([]) == named_in_body({"session_hash": 3, "event_id": None}) == []
