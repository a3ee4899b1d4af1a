"""A studio that serves on this machine for as long as a test needs it."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from studio.server.settings import Settings
from studio.services.jobs import latest
from studio.workspace import Workspace

ROOT = Path(__file__).parent.parent


@contextmanager
def served(root: Path, **options) -> Iterator[str]:
    """The address of a studio whose workspace is `root`. Ends its jobs and itself. options: of Settings."""
    from studio.web.app import QUEUE, build, launch_options

    begin_anew(root)
    settings = Settings(workspace=root, browser=False, **options)
    demo = build(settings)
    try:
        with patch("gradio.networking.url_ok", return_value=True):  # it gives a busy machine 3 s to answer
            _, url, _ = demo.queue(**QUEUE).launch(**launch_options(settings), prevent_thread_lock=True, quiet=True)
        yield url
    finally:
        end_jobs()
        demo.close(verbose=False)


@contextmanager
def launched(workspace: Path, *flags: str, **options) -> Iterator[tuple[subprocess.Popen, str]]:
    """`python launch.py` as a person starts it, and its address once the page answers. It is ended politely.

    options: of subprocess.Popen.
    """
    port = free_port()
    command = [sys.executable, "launch.py", "--no-browser", "--port", str(port), "--workspace", str(workspace), *flags]
    process = subprocess.Popen(command, **{"cwd": ROOT, "stdout": subprocess.DEVNULL, **options})
    url = f"http://127.0.0.1:{port}"
    with ended(process):
        assert answers(url, process, 600), "the studio ended before it served a page, or none came in ten minutes"
        yield process, url


def answers(url: str, process: subprocess.Popen, seconds: float) -> bool:
    """Wait for the first page: whether it came, before the process ended or the seconds were over."""
    until = time.monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=30).status_code == 200:
                return True
        if process.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.05)


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """The process is ended politely, at last by force."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of this machine on which the handler answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """Writes no log."""

    def say(self, kind: str, body: bytes) -> None:
        """Answer with a body of this content type."""
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_apart(work: Coroutine) -> Any:
    """`asyncio.run` in a thread of its own: in this one a browser's loop may run."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def begin_anew(root: Path) -> None:
    """Forget what a studio in this process has done before, and make the folders of the workspace `root`."""
    from studio.services import run_queue

    latest.clear()
    for wait in run_queue._going.values():
        wait.set()
    run_queue._going.clear()
    Workspace.open(root)


def end_jobs(seconds: float = 600) -> None:
    """Stop what runs and wait for its end: jobs belong to the process, not to a page."""
    from studio.services.jobs import jobs

    until = time.monotonic() + seconds
    while running := jobs.everyone():
        for job in running:
            job.stop()
        assert time.monotonic() < until, f"{running[0].title} did not stop within {seconds} s"
        time.sleep(0.02)
