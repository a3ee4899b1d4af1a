"""Calling a studio as programs called 0.1: used by make.py with 0.1, and by the tests with today's version."""

import io
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client, handle_file

from tests.frozen.fixture import filled

AUTH, NAME = ("ada", "secret"), "studio.example"
MINUTES = 4 * 60  # seconds that one thing may take


def variables(root: Path, port: int) -> dict[str, str]:
    """Every STUDIO_ variable that opens a studio of one's own. The others close it, or ask the network."""
    return {
        "STUDIO_HOST": "127.0.0.1", "STUDIO_PORT": str(port), "STUDIO_NO_BROWSER": "1", "STUDIO_MCP": "1",
        "STUDIO_AUTH": ":".join(AUTH), "STUDIO_WORKSPACE": str(root / "workspace"), "STUDIO_HOSTS": f"x.example,{NAME}",
    }  # fmt: skip


@contextmanager
def launched(code: Path, root: Path) -> Iterator[str]:
    """The address of `code`/launch.py, opened by variables alone on the unpacked fixture; ended politely."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, **variables(root, port), "HOME": str(root), "GRADIO_ANALYTICS_ENABLED": "False"}
    with (root / "studio.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "launch.py"], cwd=code, env=environ, stdout=log, stderr=log)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + MINUTES
    try:
        while True:
            try:
                if httpx.get(f"{url}/", timeout=30).status_code < 500:
                    break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < until, (root / "studio.log").read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


@contextmanager
def client_of(url: str, downloads: Path) -> Iterator[Client]:
    client = Client(url, verbose=False, auth=AUTH, download_files=str(downloads))
    try:
        yield client
    finally:
        client.close()


def mcp_tools(url: str) -> list[str]:
    """Names of the tools that MCP clients are offered."""
    with httpx.Client(base_url=url, timeout=60, follow_redirects=True) as visitor:
        visitor.post("/login", data=dict(zip(("username", "password"), AUTH))).raise_for_status()
        found = visitor.get("/gradio_api/mcp/schema")
        found.raise_for_status()
        return sorted(tool["name"] for tool in found.json())


def places_in(root: Path) -> dict[str, Any]:
    """What stands for "@NAME@" in the recorded arguments; answers that are kept are added."""
    log = (root / "workspace" / "runs" / "stopped" / "events.jsonl").read_text("utf-8").splitlines()
    return {
        "ROOT": root,
        "new.png": handle_file(str(root / "files" / "new.png")),
        "adapter": handle_file(str(root / "workspace" / "adapters" / "baked.safetensors")),
        "more": str(json.loads(log[-1])["step"] + 2),  # steps of the stopped run, and two more
    }


def answer_of(client: Client, call: dict[str, Any], places: dict[str, Any]) -> Any:
    """The answer to a recorded call, once it is in one of the states that are waited for."""
    arguments, until = filled(call["arguments"], places), time.monotonic() + MINUTES
    while True:
        answer = client.predict(api_name=f"/{call['endpoint']}", **arguments)
        if "until" not in call or answer["state"] in call["until"]:
            break
        assert answer["state"] not in ("failed", "none") and time.monotonic() < until, answer
        time.sleep(0.05)
    if "keep" in call:
        places[call["keep"]] = answer
    for name, (key, value, wanted) in call.get("pick", {}).items():
        places[name] = next(one[wanted] for one in answer if one[key] == value)
    return answer


def commanded(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `python -m studio`, in this process, which has loaded torch already."""
    out, said, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["studio", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(said):
            runpy.run_module("studio", run_name="__main__", alter_sys=True)
        code: Any = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
    return code if isinstance(code, int) else int(bool(code)), out.getvalue(), said.getvalue()
