"""A studio with a password, and its MCP clients: what they are told and can send, and who may guess how often."""

import base64
import io

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image

from studio.server.login import GUESSES
from tests.serving import run_apart, served

LOGIN = ("ada", "a secret word")
WORD = {"Authorization": "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def url(place):
    with served(place / "workspace", mcp=True, auth=LOGIN) as url:
        yield url


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    return stream.getvalue()


def asked(url, *calls, headers=WORD):
    """(tools, the answers) of a client of the packaged mcp: each answer is (whether it is an error, its text)."""

    async def talk():
        async with (
            streamablehttp_client(f"{url}gradio_api/mcp/", headers=headers) as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            answers = []
            for name, arguments in calls:
                result = await session.call_tool(name, arguments)
                answers.append((result.isError, "\n".join(getattr(part, "text", "") for part in result.content)))
            return tools, answers

    return run_apart(talk())


def test_nothing_is_told_before_a_login(url):
    kinds = {"accept": "application/json, text/event-stream"}
    for path in (
        "mcp/schema", "mcp/sse", "mcp/", "info", "call/x/1", "openapi.json", "heartbeat/x", "queue/data?session_hash=x",
    ):  # fmt: skip
        assert httpx.get(f"{url}gradio_api/{path}", timeout=60).status_code == 401, path
    for method in ("tools/list", "tools/call"):
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "list_datasets", "arguments": {}}}
        assert httpx.post(f"{url}gradio_api/mcp/", json=call, headers=kinds, timeout=60).status_code == 401
    page = httpx.get(url, timeout=60)
    assert page.status_code == 200 and "auth_required" in page.text and "import_images" not in page.text


def test_a_client_with_the_password_sends_images(url):
    sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("b.png", png())}, headers=WORD, timeout=60).json()[0]
    data = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    tools, answers = asked(
        url,
        ("import_images", {"files": [data], "name": "one"}),
        ("import_pictures", {"files": [f"{url}gradio_api/file={sent}"], "name": "two"}),
        ("list_datasets", {}),
        ("open_dataset", {"dataset": "../one"}),
    )
    assert [error for error, _ in answers] == [False, False, False, True]
    assert "'file': 'file.png'" in answers[0][1] and "'file': 'b.png'" in answers[1][1]
    assert "'one'" in answers[2][1] and "'two'" in answers[2][1]
    assert "not the name of a dataset" in answers[3][1] and len(answers[3][1].splitlines()) == 1
    assert tools["import_images"].inputSchema["properties"]["files"]["items"]["type"] == "string"


def test_every_tools_schema_can_be_checked(url):
    from jsonschema import Draft202012Validator

    tools, _ = asked(url)
    assert {"generate", "import_images", "add_adapter"} <= set(tools)
    for tool in tools.values():
        Draft202012Validator.check_schema(tool.inputSchema)
        list(Draft202012Validator(tool.inputSchema).iter_errors({"files": ["x"], "file": "x", "more": {}}))


def test_a_file_of_this_machine_is_not_read_for_a_client(url, place):
    secret = place / "secret.png"
    secret.write_bytes(png())
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    _, answers = asked(
        url,
        ("import_images", {"files": [str(secret)], "name": "stolen"}),
        ("import_images", {"files": [file], "name": "stolen"}),
        ("import_images", {"files": ["http://127.0.0.1:1/a.png"], "name": "stolen"}),
        ("import_images", {"files": [f"{url}gradio_api/file={secret}"], "name": "stolen"}),
        ("import_images", {"files": ["data:image/png;base64,!"], "name": "stolen"}),
        ("add_adapter", {"file": f"file://{secret}"}),
        ("inspect_adapter", {"adapter": file}),
        ("check_settings", {"dataset": "silhouette", "more": {"x": file}}),
        ("generate", {"prompt": "x", "adapters": [file]}),
    )
    assert all(error for error, _ in answers), answers
    assert not (place / "workspace" / "datasets" / "stolen").exists()
    copies = [path for path in place.rglob("*") if path.is_file() and path.read_bytes() == png() and path != secret]
    assert all("datasets" in path.parts for path in copies)


def test_another_sites_page_signs_nobody_out(url):
    with httpx.Client(base_url=url, timeout=60) as browser:
        assert browser.post("login", data={"username": LOGIN[0], "password": LOGIN[1]}).status_code == 200
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {},
                        {"referer": "https://evil.example/"}):  # fmt: skip
            assert browser.get("logout", headers=headers).status_code == 403
        answer = browser.get("gradio_api/info")
        assert answer.status_code == 200 and answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert browser.get("logout", headers={"referer": url}).status_code == 302
        assert browser.get("gradio_api/info").status_code == 401


def test_a_password_is_not_guessed_without_end(url):
    """Last: this address may not guess afterwards."""
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ada:wrong").decode()}
    assert httpx.get(f"{url}gradio_api/info", headers=wrong, timeout=60).status_code == 401
    given = [{"username": "ada", "password": f"wrong {n}"} for n in range(GUESSES)] + [
        dict(zip(("username", "password"), LOGIN))
    ]
    said = [httpx.post(f"{url}login", data=one, timeout=60).status_code for one in given]
    assert said == [400] * (GUESSES - 1) + [429] * 2
    closed = httpx.get(f"{url}gradio_api/info", headers=WORD, timeout=60)
    assert closed.status_code == 429 and "15 minutes" in closed.text and int(closed.headers["retry-after"]) > 800
