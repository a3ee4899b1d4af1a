"""The studio is asked to end while much waits."""

import sys
import time

import httpx
import pytest

from tests.serving import launched


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="a polite kill is another thing there")
def test_a_polite_kill_ends_sixty_waiting_drawings_cleanly(tmp_path):
    """torch's threads once aborted the interpreter on its way out (exit code -6)."""
    drawing = {"prompt": "x", "steps": 50, "width": 512, "height": 512}
    with (
        open(tmp_path / "log.txt", "wb") as log,
        launched(tmp_path / "workspace", stdout=log, stderr=log) as (process, url),
        httpx.Client(base_url=url, timeout=120) as http,
    ):
        taken = [http.post("/gradio_api/call/v2/generate", json=drawing).status_code for _ in range(60)]
        time.sleep(5)  # the first of them is being drawn
        process.terminate()
        assert process.wait(60) == 0
    assert taken == [200] * 60
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in text and "terminate called" not in text, text[-2000:]
