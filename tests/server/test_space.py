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
        until = time.monotonic() + 120
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


SCRIPT = """
import sys, types
calls = []
def GPU(duration):
    def decorate(function):
        def called(*args):
            calls.append((duration, args))
            return function(*args)
        return called
    return decorate
sys.modules["spaces"] = types.SimpleNamespace(GPU=GPU, __spec__=object())
import torch
# as the package pretends, also where no GPU is
torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
from studio.server import zero_gpu
from studio.devices import best_device, default_precision
assert zero_gpu.is_cpu_process() and str(best_device()) == "cpu" and default_precision() == "fp32"
inside = []
import studio.generation.drawing as drawing
real = drawing.load_base
def load_base(*args):
    inside.append(str(best_device()))
    torch.accelerator.current_accelerator = lambda check_available=False: None  # there is none where this test runs
    return real(*args)
drawing.load_base = load_base
from studio.generation import Recipe, generate_all
recipe = Recipe(prompt="red apple", steps=1, count=2)
images = list(generate_all(recipe))
assert [image.size for image in images] == [(128, 128)] * 2
assert calls == [(60, (recipe,))], calls  # once for both
assert inside == ["cuda"]
import pickle
pickle.loads(pickle.dumps(recipe)); pickle.loads(pickle.dumps(images))  # they travel between processes
print("drawn where the GPU is")
"""


def test_drawing_goes_through_the_decorator_on_zero_gpu():
    environ = {**os.environ, "SPACES_ZERO_GPU": "true"}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180
    )
    assert "drawn where the GPU is" in ended.stdout, ended.stderr[-2000:]
