"""A Hugging Face Space: closed to visitors unless its owner opens it, and drawing where ZeroGPU gives a GPU."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from studio.errors import ConfigError
from studio.server.permissions import OWN, REACHED, VISITED
from studio.server.settings import Settings
from tests.forking import Forked

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"SPACE_ID": "someone/studio", "SYSTEM": "spaces", "SPACE_HOST": "someone-studio.hf.space"}


def test_a_space_is_public_and_knows_its_name():
    settings = Settings.from_arguments([], SPACE)
    assert settings.public and settings.allows == VISITED and settings.host == "0.0.0.0"
    assert settings.hosts == ("someone-studio.hf.space",) and settings.warning == ""
    assert Settings.from_arguments([], {"SYSTEM": "spaces"}).public
    assert Settings.from_arguments([], SPACE | {"GRADIO_SERVER_PORT": "7861"}).port == 7861


def test_the_owner_of_a_space_opens_it_by_a_variable_and_is_warned():
    settings = Settings.from_arguments([], SPACE | {"STUDIO_OPEN": "1"})
    assert not settings.public and settings.allows == OWN and "--auth" in settings.warning
    assert Settings.from_arguments([], SPACE | {"STUDIO_OPEN": "1", "STUDIO_AUTH": "a:b"}).warning == ""


@pytest.mark.parametrize(
    "arguments, allows, warned",
    [
        ([], OWN, False),
        (["--public"], VISITED, False),
        (["--host", "0.0.0.0"], REACHED, True),
        (["--share"], REACHED, True),
        (["--share", "--auth", "ada:secret"], REACHED, False),
        (["--host", "0.0.0.0", "--open", "--auth", "ada:secret"], OWN, False),
        (["--host", "0.0.0.0", "--public"], VISITED, False),
    ],
)
def test_what_is_allowed_follows_who_can_reach_the_page(arguments, allows, warned):
    settings = Settings.from_arguments(arguments, {})
    assert settings.allows == allows and bool(settings.warning) is warned


def test_flags_that_contradict_each_other_are_refused():
    for arguments in (["--public", "--open"], ["--public", "--mcp"]):
        with pytest.raises(ConfigError):
            Settings.from_arguments(arguments, {})


def test_mcp_without_its_package_is_one_line(monkeypatch, tmp_path):
    from studio.web import app

    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mcp<2'"):
        app.serve(Settings(workspace=tmp_path, browser=False, mcp=True))


@pytest.mark.full
def test_launch_py_serves_a_space_on_every_interface(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, **SPACE, "GRADIO_SERVER_PORT": str(port), "STUDIO_WORKSPACE": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "launch.py"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 600  # a Space imports everything first: seconds, or minutes beside other work
        while True:
            try:
                asked = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": SPACE["SPACE_HOST"]})
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    cookie = answer.headers["set-cookie"]
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.2)
        assert (
            "SameSite=None; Secure; Partitioned" in cookie and "HttpOnly" in cookie
        )  # it stands in another site's frame
        assert (tmp_path / "visitors").is_dir()
        process.terminate()
        assert process.wait(timeout=180) in (0, 130), "a polite kill ends it"
    finally:
        process.kill()
        process.wait()


def test_drawing_goes_through_the_decorator_on_zero_gpu(tmp_path):
    process = Forked(tmp_path / "log", module="tests.server.zero_gpu_space", SPACES_ZERO_GPU="true")
    assert process.wait() == 0, process.log.read_text("utf-8")
    assert "drawn where the GPU is" in process.log.read_text("utf-8")


def test_a_space_has_read_every_module_before_its_page_is_served(monkeypatch, tmp_path):
    """Gradio's hot reload is at work there, and two threads that import would wait for each other."""
    from studio.web import app, warm

    root = Path(app.__file__).parents[1]
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    left = {name for name in names if name.startswith("studio.cli") or name.endswith("__main__")}
    assert set(warm.modules()) == names - left - {"studio"}

    done = []
    monkeypatch.setattr(warm, "read_everything", lambda: done.append("read"))

    class Page:
        def launch(self, **options):
            done.append("served")
            raise OSError("enough")

    monkeypatch.setattr(app, "build", lambda settings: type("Demo", (), {"queue": lambda self, **options: Page()})())
    monkeypatch.setattr(app, "_end_politely", lambda: None)
    monkeypatch.setattr(app.networking, "url_ok", app.networking.url_ok)  # it is put back
    for environ in ({}, SPACE):
        with pytest.raises(ConfigError, match="can't be opened"):
            app.serve(Settings.from_arguments(["--workspace", str(tmp_path)], environ))
    assert done == ["served", "read", "served"]


def test_the_thread_that_draws_knows_the_request_and_the_page():
    """`spaces` counts the quota of the one, and closes the connections of the other in the process that it forks."""
    import contextvars
    from threading import Thread

    from gradio.context import LocalContext

    from studio.server import visitors

    def asked():
        LocalContext.request.set("request")
        LocalContext.blocks.set("page")
        return visitors._carry_request()

    arrive, found = contextvars.copy_context().run(asked), []

    def draw():
        arrive()
        found.extend([LocalContext.request.get(None), LocalContext.blocks.get(None)])

    thread = Thread(target=draw)
    thread.start()
    thread.join()
    assert found == ["request", "page"]
