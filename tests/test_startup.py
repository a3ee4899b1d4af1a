"""The studio answers at once: help without heavy imports, a page before torch."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.errors import ConfigError
from studio.server.settings import Settings
from tests.serving import launched

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "diffusers", "transformers", "gradio")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "command", [["launch.py", "--help"], ["-m", "studio", "--help"], ["-m", "studio", "train", "-h"]]
)
def test_help_imports_nothing_heavy(command):
    """Which is what makes it answer at once."""
    result = run("-X", "importtime", *command)
    assert result.returncode == 0 and result.stdout.lower().lstrip().startswith("usage:")
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "studio" in imported and not imported.intersection(HEAVY)


def test_the_page_is_built_before_torch_is_imported(tmp_path):
    script = f"""
import json, sys
from studio.server.settings import Settings
from studio.web.app import build
build(Settings.from_arguments(["--workspace", {str(tmp_path)!r}, "--no-browser"], {{}}))
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    result = run("-c", script)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == ["gradio"]


def test_the_command_line_imports_nothing_heavy_before_a_command_needs_it():
    script = f"import sys, studio.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run("-c", script).stdout.strip() == "[]"


@pytest.mark.slow
def test_the_first_page_costs_little_more_than_importing_gradio(tmp_path):
    """Prints both times and their ratio: `python -m pytest -m slow -s tests/test_startup.py`."""
    bare = min(timed_import() for _ in range(3))
    page = min(timed_first_page(tmp_path) for _ in range(3))
    print(f"\nimport gradio {bare:.2f} s, first page {page:.2f} s, ratio {page / bare:.2f}")
    assert page / bare <= 1.5


def timed_import() -> float:
    start = time.perf_counter()
    assert run("-c", "import gradio").returncode == 0
    return time.perf_counter() - start


def timed_first_page(workspace: Path) -> float:
    """Seconds from starting the process to the first page that is served."""
    start = time.perf_counter()
    with launched(workspace, stderr=subprocess.DEVNULL):
        return time.perf_counter() - start


@pytest.mark.full
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no terminals that hang up")
def test_a_closed_terminal_ends_the_studio_politely(tmp_path):
    with launched(tmp_path, stderr=subprocess.DEVNULL) as (process, _):
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) in (0, 130)


@pytest.mark.full
def test_a_polite_kill_ends_a_studio_that_a_script_started_in_the_background(tmp_path):
    """As with `python launch.py &` in a shell script, where Ctrl-C is ignored."""

    def ignore_ctrl_c():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with launched(tmp_path, preexec_fn=ignore_ctrl_c) as (process, _):
        process.terminate()
        assert process.wait(30) in (0, 130)


@pytest.mark.parametrize(
    "arguments", [["--port", "abc"], ["--port", "70000"], ["--auth", "nobody"], ["--nonsense"], ["--workspace"]]
)
def test_a_wrong_flag_is_one_line_and_exit_2(arguments):
    result = run("launch.py", *arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.full
def test_a_workspace_that_cannot_be_made_is_one_line_and_exit_2(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("launch.py", "--no-browser", "--workspace", str(tmp_path / "file" / "inside"))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "workspace" in result.stderr


def test_defaults_listen_on_this_machine_only():
    settings = Settings.from_arguments([], {})
    assert (settings.host, settings.port, settings.share, settings.auth) == ("127.0.0.1", None, False, None)
    assert settings.browser and settings.workspace is None and not settings.on_space


def test_a_flag_wins_over_its_variable(tmp_path):
    environ = {"STUDIO_HOST": "10.0.0.1", "STUDIO_PORT": "8000", "STUDIO_AUTH": "ada:a:b", "STUDIO_NO_BROWSER": "1"}
    settings = Settings.from_arguments(["--port", "9000", "--workspace", str(tmp_path)], environ)
    assert (settings.host, settings.port) == ("10.0.0.1", 9000)
    assert settings.auth == ("ada", "a:b") and settings.workspace == tmp_path and not settings.browser


def test_a_space_listens_everywhere_and_opens_no_browser():
    settings = Settings.from_arguments([], {"SPACE_ID": "someone/studio"})
    assert settings.host == "0.0.0.0" and settings.on_space and not settings.browser


def test_a_variable_that_is_neither_yes_nor_no_is_refused():
    with pytest.raises(ConfigError, match="STUDIO_SHARE"):
        Settings.from_arguments([], {"STUDIO_SHARE": "maybe"})


@pytest.mark.full
def test_a_port_that_is_taken_is_one_line_and_exit_2(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run("launch.py", "--no-browser", "--workspace", str(tmp_path), "--port", port)
    assert ended.returncode == 2 and "--port" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.full
def test_ctrl_c_on_the_studio_lets_a_run_write_its_checkpoint():
    """A run started from the page goes on in the studio's own process: ending that must not lose its steps."""
    code = """
import sys, threading, time
from types import SimpleNamespace
from studio.services.jobs import jobs
from studio.web import app
def work(job):
    print("begun", flush=True)
    job.stop_event.wait(60)
    print("checkpoint written", flush=True)
jobs.start("train", "Training x", work)
app._finish()
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "stopping after this step" in ended.stdout and "checkpoint written" in ended.stdout, ended.stderr
