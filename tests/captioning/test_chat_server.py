"""Captions from an OpenAI-compatible server, asked over real HTTP as its reference of chat completions says."""

import base64
import io
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from studio.captioning import caption_dataset, captioner_settings, load_captioner
from studio.captioning.chat_server import NO_SERVER, caption_of
from studio.captioning.generators import Stopped
from studio.datasets import open_dataset
from studio.errors import BaseModelError, ConfigError, NotAllowedError
from studio.server.caption_server import caption_server
from studio.server.permissions import REACHED, VISITED
from studio.server.settings import Settings
from studio.services import captioning
from studio.workspace import Workspace
from tests.captioning import tiny


class Server:
    """A small one of that protocol. answer: (status, body) to a request's body; slow: seconds before each answer."""

    def __init__(self):
        self.models, self.asked, self.headers, self.slow = ["llava:13b"], [], [], 0.0
        self.answer = lambda body: (200, said("A red bird on a branch."))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def reply(self, status, body):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"{outer.address}/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                outer.asked.append((self.path, None))
                self.reply(200, {"data": [{"id": name} for name in outer.models]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                outer.headers.append(dict(self.headers))
                time.sleep(outer.slow)
                self.reply(*outer.answer(body))

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def chats(self):
        return [body for path, body in self.asked if path == "/v1/chat/completions"]


def said(text, reason="stop"):
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


@pytest.fixture
def server():
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


def settings(server, **changes):
    return captioner_settings("server", changes).at(server.address)


def folder_of(path, count=2):
    path.mkdir()
    for number, image in enumerate(tiny.images(count)):
        image.save(path / f"{number}.png")
    return open_dataset(path)


def test_a_dataset_is_captioned_by_a_server(server, tmp_path):
    dataset = folder_of(tmp_path / "set")
    chosen = captioner_settings("server", {"prompt": "What is it?", "system": "Be brief.", "max_side": 64})
    report = caption_dataset(dataset, "server", "zsk", settings=chosen.at(server.address, "secret"))
    assert report.written == 2 and not report.unreadable
    assert (tmp_path / "set" / "0.txt").read_text() == "zsk, A red bird on a branch.\n"
    body = server.chats[0]
    assert body["model"] == "llava:13b", "the only one that it lists"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    text, image = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "What is it?"} and image["type"] == "image_url"
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) == 64, "resized"
    assert server.headers[0]["Authorization"] == "Bearer secret" and "secret" not in repr(chosen.at("", "secret"))


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (said("<think>hm</think>\n A cat\x07.\x1b[31m\u202e Red. "), "A cat . [31m Red."),
        (said([{"type": "text", "text": "A cat "}, {"type": "text", "text": "sits."}]), "A cat sits."),
        (said("A cat sits. It is on th", "length"), "A cat sits."),
        (said("word. " * 3000), None),
        (said(""), ""),
    ],
)
def test_an_answer_becomes_one_clean_line(answer, caption):
    found = caption_of(answer)
    assert found == caption if caption is not None else 3900 < len(found) <= 4000 and found.endswith("word.")


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"message": {"content": 3}}]}, {"choices": 7}])
def test_an_answer_without_text_is_the_failure_of_its_image(server, answer):
    server.answer = lambda body: (200, answer)
    (found,) = load_captioner("server", settings(server)).caption(tiny.images(1))
    assert str(found) == "the server's answer holds no text"


def test_an_image_that_fails_is_named_and_the_others_are_captioned(server, tmp_path):
    answers = iter([(500, {"error": {"message": "no\nmemory"}}), *[(200, said("A fish."))] * 2])
    server.answer = lambda body: next(answers)
    dataset = folder_of(tmp_path / "set", 3)
    report = caption_dataset(dataset, "server", settings=settings(server))
    assert report.written == 2
    assert report.unreadable == ["0.png: not captioned, the server answered 500: no memory."]


def test_three_failures_in_a_row_end_it_in_one_sentence(server, tmp_path):
    server.answer = lambda body: (503, b"<html>busy")
    dataset = folder_of(tmp_path / "set", 4)
    with pytest.raises(BaseModelError, match=r"failed 3 times in a row, at last: the server answered 503\.$"):
        caption_dataset(dataset, "server", settings=settings(server))
    assert len(server.chats) == 3


def test_a_server_that_is_slow_is_given_up(server):
    server.slow = 1.2
    (found,) = load_captioner("server", settings(server, timeout=1)).caption(tiny.images(1))
    assert str(found) == "no answer within 1 s"


def test_an_answer_without_end_and_another_place_are_refused(server):
    captioner = load_captioner("server", settings(server))
    server.answer = lambda body: (200, b" " * 1_100_000)
    assert "longer than 1 MB" in str(captioner.caption(tiny.images(1))[0])
    server.answer = lambda body: (302, b"")
    assert str(captioner.caption(tiny.images(1))[0]) == "the server answered 302"
    assert not any("elsewhere" in path for path, _ in server.asked)


@pytest.mark.parametrize("status", [401, 404])
def test_what_every_image_would_meet_ends_it_at_once(server, status):
    server.answer = lambda body: (status, {"error": "bad"})
    with pytest.raises(BaseModelError, match=f"{status}: bad"):
        load_captioner("server", settings(server)).caption(tiny.images(1))


def test_the_model_is_checked_before_the_first_image(server):
    with pytest.raises(BaseModelError, match="has no model 'qwen': it has llava:13b"):
        load_captioner("server", settings(server, model="qwen"))
    server.models = ["a", "b"]
    with pytest.raises(BaseModelError, match="Name the model .*: it has a, b"):
        load_captioner("server", settings(server))
    server.models = ["llava:latest"]
    assert load_captioner("server", settings(server, model="llava")).model == "llava"
    unreachable = captioner_settings("server").at("http://127.0.0.1:9/v1")
    with pytest.raises(BaseModelError, match="No caption server answers at 127.0.0.1:9"):
        load_captioner("server", unreachable)


def test_stop_does_not_wait_for_the_answer(server):
    server.slow = 5
    captioner = load_captioner("server", settings(server, batch_size=2))
    captioner.stop = threading.Event()
    threading.Timer(0.1, captioner.stop.set).start()
    with pytest.raises(Stopped):
        captioner.caption(tiny.images(2))
    captioner.close()


def test_the_address_is_never_typed():
    with pytest.raises(ConfigError, match="address: is not a setting"):
        captioner_settings("server", {"address": "http://169.254.169.254"})
    with pytest.raises(ConfigError) as error:
        load_captioner("server", {"model": "x", "_address": "http://169.254.169.254"})
    assert "is not a setting" in str(error.value)
    with pytest.raises(ConfigError) as error:
        load_captioner("server", {"model": "x"})
    assert str(error.value) == NO_SERVER


@pytest.mark.parametrize(
    "text", ["ftp://host", "localhost:11434", "http://user:pass@host", "http://host?x=1", "http://ho st", "http://h:x"]
)
def test_an_address_that_can_t_be_is_refused(text):
    with pytest.raises(ConfigError, match="caption server must be an address"):
        caption_server({"STUDIO_CAPTION_SERVER": text})


def test_the_owner_opens_it_by_a_flag_or_a_variable():
    opened = Settings.from_arguments(["--caption-server", "http://localhost:11434"], {"STUDIO_CAPTION_KEY": "k"})
    assert (opened.allows.caption_server, opened.allows.caption_key) == ("http://localhost:11434/v1", "k")
    assert "'k'" not in repr(opened) and "'k'" not in repr(opened.allows)
    assert not Settings.from_arguments([], {}).allows.caption_server
    with pytest.raises(ConfigError, match="leave it out with --public"):
        Settings.from_arguments(["--public"], {"STUDIO_CAPTION_SERVER": "http://localhost:1/v1"})


def test_only_a_studio_that_opens_it_has_the_captioner(server, tmp_path):
    plain = Workspace.open(tmp_path)
    folder_of(plain.datasets / "set")
    opened = replace(plain, allows=replace(REACHED, caption_server=server.address))
    assert "server" in captioning.list_captioners(opened) and "server" not in captioning.list_captioners(plain)
    job = captioning.caption_dataset(opened, "set", captioner="server", settings={"model": "llava:13b"})
    job.thread.join()
    assert job.message == "set: 2 captions written." and len(server.chats) == 2
    closed = captioning.caption_dataset(plain, "set", captioner="server", mode="overwrite")
    closed.thread.join()
    assert closed.error == NO_SERVER and len(server.chats) == 2
    visited = replace(plain, allows=replace(VISITED, caption_server=server.address))
    with pytest.raises(NotAllowedError):
        captioning.caption_dataset(visited, "set", captioner="server")
