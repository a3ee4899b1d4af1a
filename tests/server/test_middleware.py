"""Which names the studio answers to, and what other sites' pages can't do to it, in every mode."""

import base64
import io
import json
import random
from functools import partial

import httpx
import pytest
from PIL import Image, ImageDraw

from studio.server.middleware import Guard
from studio.server.permissions import OWN
from studio.server.settings import Settings
from studio.web.components.mask_painter import MAX_SIZE
from tests.serving import served

PATIENCE = 120  # seconds: torch is read meanwhile, in the same process
get, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("workspace")) as url:
        yield url


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "10.0.0.7", ""]
)
def test_another_name_is_refused(url, host):
    for path in ("", "config", "gradio_api/info"):
        assert get(url + path, headers={"host": host}).status_code in (400, 421)


def test_its_own_names_are_answered(url):
    port = httpx.URL(url).port
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert get(url, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_another_sites_page_can_neither_upload_nor_press_anything(url, origin):
    file = {"files": ("a.png", b"x", "image/png")}
    assert post(url + "gradio_api/upload", files=file, headers={"origin": origin}).status_code == 403
    event = {"data": ["silhouette"], "session_hash": "abc"}
    for path in ("gradio_api/queue/join", "gradio_api/run/open_dataset", "gradio_api/call/open_dataset"):
        assert post(url + path, json=event, headers={"origin": origin}).status_code == 403


def test_a_cross_site_form_without_an_origin_is_refused(url):
    answer = post(url + "gradio_api/upload", files={"files": b"x"}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403


def test_the_page_itself_may_upload(url):
    origin = url.rstrip("/")
    answer = post(url + "gradio_api/upload", files={"files": ("a.txt", b"x")}, headers={"origin": origin})
    assert answer.status_code == 200 and len(answer.json()) == 1


@pytest.mark.parametrize("word", ["upload", "login", "open_dataset"])
@pytest.mark.parametrize("way", ["run", "api"])
def test_the_last_word_of_a_path_opens_nothing(url, way, word):
    """Gradio takes the function from the body's fn_index there, so that a path that ends in /upload is an event too."""
    file = {"path": "https://evil.example/a.png", "meta": {"_type": "gradio.FileData"}}
    answer = post(f"{url}gradio_api/{way}/{word}", json={"data": [file], "fn_index": 0, "session_hash": "abc"})
    assert answer.status_code == 403 and "not yours" in answer.text


def test_what_belongs_into_the_queue_can_not_skip_it(url):
    event = {"data": ["silhouette"], "session_hash": "abc"}
    assert post(f"{url}gradio_api/run/open_dataset", json=event).status_code >= 400


def test_a_body_of_countless_values_is_refused_before_it_is_parsed(url):
    headers = {"content-type": "application/json"}
    body = b"[" + b"[]," * 500_000 + b"[]]"
    assert post(f"{url}gradio_api/queue/join", content=body, headers=headers).status_code == 413


def test_a_login_is_a_short_form(url):
    assert post(f"{url}login", content=b"x" * 20_000).status_code == 413


def test_it_fetches_nothing_for_whoever_asks(url):
    assert get(url + "gradio_api/file=https://example.com/a.png").status_code == 403
    assert get(url + "gradio_api/proxy=https://a.hf.space/config").status_code == 403
    assert get(url + "gradio_api/deep_link?session_hash=abc").status_code == 403
    assert get(url + "monitoring/summary").status_code == 403


def test_only_what_is_meant_for_the_browser_is_served(url):
    from studio.workspace import ASSETS

    for path in (
        "/etc/hostname",
        str(ASSETS / "starter" / "model_index.json"),
        str(ASSETS / "datasets" / ".." / "NOTICE"),
    ):
        assert get(f"{url}gradio_api/file={path}").status_code == 403


def test_the_page_may_load_nothing_from_elsewhere(url):
    policy = get(url).headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_too_much_at_once_is_refused_before_it_is_read(url):
    answer = post(url + "gradio_api/queue/join", content=b"[" + b" " * 33_000_000)
    assert answer.status_code == 413
    assert post(url + "gradio_api/queue/join", content=iter([b"x"])).status_code == 411


def test_a_full_upload_folder_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(Settings, "allows", property(lambda self: OWN.__class__(uploads=1000)))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "sent"))
    with served(tmp_path / "workspace") as url:
        assert post(url + "gradio_api/upload", files={"files": ("a.txt", b"x" * 300)}).status_code == 200
        full = post(url + "gradio_api/upload", files={"files": ("b.txt", b"x" * 900)})
        assert full.status_code == 413 and "upload folder is full" in full.text


def guard(**options) -> Guard:
    known = {"local": {"127.0.0.1", "localhost"}, "names": set(), "addresses": False, "uploads": "/tmp", "allows": OWN}
    return Guard(None, **known | options)


def test_names_behind_a_proxy_on_every_address_and_on_a_space():
    assert guard(names={"studio.example"})._knows("studio.example") and not guard()._knows("studio.example")
    assert guard(addresses=True)._knows("192.168.1.4") and not guard()._knows("192.168.1.4")
    assert guard(embedded=True)._knows("someone-studio.hf.space") and not guard()._knows("someone-studio.hf.space")


def test_what_the_page_sends_at_most_fits(url):
    """The names of 10,000 images, and a mask of dense strokes, as large as masks are."""
    names = [f"holiday of last summer {number:05}.png" for number in range(10_000)]
    event = {"data": ["silhouette", ["starter"], names, False]}
    assert post(f"{url}gradio_api/call/compare_captioners", json=event).status_code == 200
    mask, chance = Image.new("RGBA", (MAX_SIZE, MAX_SIZE)), random.Random(0)
    for _ in range(3000):
        ends = [chance.randrange(MAX_SIZE) for _ in range(4)]
        ImageDraw.Draw(mask).line(ends, (255, 0, 80, chance.randrange(120, 130)), chance.randrange(1, 4))
    stream = io.BytesIO()
    mask.save(stream, "PNG")
    painted = {
        "data": ["x"],
        "event_data": {"arg": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"},
    }
    assert len(json.dumps(painted)) > 400_000
    assert post(f"{url}gradio_api/call/open_dataset", json=painted).status_code == 200
