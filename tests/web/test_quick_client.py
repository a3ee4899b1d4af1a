"""The script that finds components by an index is sent in place of Gradio's, where that is the one that is known."""

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from studio.web.quick_client import SCRIPTS, QuickClient, _scripts, quickened

(CORE,) = SCRIPTS.glob("core-*.js")


@pytest.fixture
def client():
    yield TestClient(QuickClient(PlainTextResponse("Gradio's own")))
    _scripts.cache_clear()


def test_the_script_of_the_tested_gradio_is_replaced_and_sent_once(client):
    answer = client.get(f"/assets/{CORE.name}")
    assert answer.text == quickened(CORE.read_text("utf-8")) != CORE.read_text("utf-8")
    assert answer.headers["content-type"].startswith("text/javascript")
    again = client.get(f"/assets/{CORE.name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/assets/core-else.js", "/assets/index-1.js", f"/assets/../{CORE.name}"])
def test_everything_else_is_gradios_own(client, path):
    assert client.get(path).text == "Gradio's own"


def test_a_script_that_reads_otherwise_is_sent_as_it_is(client, monkeypatch, tmp_path):
    script = CORE.read_text("utf-8").replace("find_attached_events(", "find_events(")
    (tmp_path / CORE.name).write_text(script, "utf-8")
    monkeypatch.setattr("studio.web.quick_client.SCRIPTS", tmp_path)
    _scripts.cache_clear()
    assert quickened(script) is None and client.get(f"/assets/{CORE.name}").text == "Gradio's own"
