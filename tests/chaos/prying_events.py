"""The part of prying.py that presses everything on the page of a public studio, and sends what no page would.

Another visitor has a dataset, a run, an image and an adapter; their paths and names are among what is sent. Each event
gets each value in all of its fields at once, then each kind of click that the page knows about.
"""

import json
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

import studio.web
from studio.services.jobs import jobs
from tests.chaos.lied import Watch
from tests.chaos.prying import CANARY, MARKUP, Asker, Place, Told, own_folder, png
from tests.serving import end_jobs, served

FIELDS, CLICKS = "page events, hostile in every field", "page events, hostile clicks"
FIXED = ("state", "api")  # components whose value a browser can't choose
WRAPPERS = ("errors.py", "page.py", "turns.py", "sessions.py")  # through which every event passes


def values_of(place: Place, theirs: Path) -> list[Any]:
    """What is sent. theirs: the other visitor's folder."""
    up, name = "../" * 4, theirs.name
    meta = {"_type": "gradio.FileData"}
    return [
        str(theirs / "datasets" / "hers"), -1, 1e308, [], {}, True, [7, [str(theirs), {"file": f"{up}x"}]],
        {"when": 1, "keys": [f"file:{up}x"], "recipe": str(place.guard / "secret.txt")},
        f"{up}visitors/{name}/datasets/hers", f"../../{name}/runs/hers", "hers",
        str(place.guard / "secret.txt"), f"{up}secret.txt", "set\0.png", "x" * 5000, MARKUP, "",
        [str(theirs / "outputs" / "hers.png")], {"path": str(theirs / "datasets/hers/a.png"), "meta": meta},
        {"path": str(place.guard / "secret.txt"), "meta": meta}, f"run:../../{name}/runs/hers",
    ]  # fmt: skip


def acts() -> list[str]:
    """Words by which clicks are told apart, as the page's own modules name them."""
    found: set[str] = set()
    for file in Path(studio.web.__file__).parent.rglob("*.py"):
        text = file.read_text("utf-8")
        for line in re.findall(r"^[A-Z][A-Z_, ]* = ((?:\"[a-z_-]+\"(?:, )?)+)(?:\s*#.*)?$", text, re.MULTILINE):
            found |= set(re.findall(r"\"([a-z_-]+)\"", line))
        found |= set(re.findall(r"(?:data-act=|\bbutton\()\"([a-z_-]+)\"", text))
    return sorted(found)


@contextmanager
def bugs() -> Iterator[list[str]]:
    """Errors without a sentence whose traceback passes through the studio's own code."""
    found: list[str] = []

    def note(*_: Any, **__: Any) -> None:
        error = sys.exc_info()[1]
        own = [
            one
            for one in traceback.extract_tb(error.__traceback__ if error else None)
            if "/studio/" in one.filename and "site-packages" not in one.filename
        ]
        inside = [one for one in own if Path(one.filename).name not in WRAPPERS]
        if inside:
            where = f"{Path(inside[-1].filename).name}:{inside[-1].lineno}"
            found.append(f"{type(error).__name__}: {str(error)[:100]} at {where}")

    with patch("traceback.print_exc", note):
        yield found


class Presser(Asker):
    """A page of one visitor."""

    def __init__(self, url: str):
        super().__init__(url)
        config = self.http.get("/config").json()
        self.kinds = {one["id"]: one["type"] for one in config["components"]}
        self.values = {one["id"]: one["props"].get("value") for one in config["components"]}
        self.events = [
            one for one in config["dependencies"] if one["backend_fn"] and one["api_visibility"] == "private"
        ]
        self.session = "pryingpage"

    def usual(self, event: dict[str, Any]) -> list[Any]:
        return [None if self.kinds[one] in FIXED else self.values[one] for one in event["inputs"]]

    def hostile(self, event: dict[str, Any], value: Any) -> list[Any]:
        return [None if self.kinds[one] in FIXED else value for one in event["inputs"]]

    def press(self, event: dict[str, Any], data: list[Any], click: Any = None) -> tuple[str, str]:
        """("answered" | "refused" | "hidden", what was said)."""
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": click}
        began = self.http.post("/gradio_api/queue/join", content=json.dumps(body).encode(), headers=_JSON)
        if began.status_code != 200:
            return ("refused" if began.status_code < 500 or began.status_code == 503 else "hidden"), began.text
        whole, state = "", ""
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        with suppress(httpx.HTTPError), self.http.stream("GET", address) as stream:  # it may close on us
            for line in stream.iter_lines():
                whole += line
                if '"process_completed"' in line:
                    said = json.loads(line.removeprefix("data: "))
                    error = (said.get("output") or {}).get("error")
                    state = "answered" if said["success"] else "refused" if error else "hidden"
                if '"close_stream"' in line or (state and "process_completed" in line):
                    break
        return state or "hidden", whole


_JSON = {"content-type": "application/json"}


def press_everything(place: Place, most: int | None = None, holding: str = "") -> dict[str, Told]:
    """What became of it. most: so many of the values, and of the clicks. holding: only events with a component of this
    kind among their inputs.
    """
    told = {FIELDS: Told(), CLICKS: Told()}
    allowed = [place.guard / "workspace", place.root / "sent", place.root / "aside"]
    with served(place.guard / "workspace", public=True) as url, bugs() as found:
        theirs = _victim(url, place)
        me, home = Presser(url), (httpx.URL(url).netloc.decode(), httpx.URL(url).host)
        me.ask("/import_images", [[me.upload("a.png", png("red"))], "set"])
        secrets = [*place.secrets, *(one for one in theirs.rglob("*") if one.is_file())]
        with Watch(allowed, secrets) as watch:
            for event in me.events:
                if holding and holding not in [me.kinds[one] for one in event["inputs"]]:
                    continue
                tries = [(FIELDS, me.hostile(event, value), None, value) for value in values_of(place, theirs)[:most]]
                if event["collects_event_data"]:
                    for act in acts()[:most]:
                        arg = f"../../{theirs.name}/datasets/hers/a.png"
                        click = {"act": act, "arg": arg, "selected": [arg], "index": 10**9, "value": arg}
                        tries.append((CLICKS, me.usual(event), click, act))
                for kind, data, click, what in tries if data_matters(event) else tries[-1:]:
                    state, said = me.press(event, data, click)
                    row = told[kind]
                    row.calls, row.refused = row.calls + 1, row.refused + (state != "answered")
                    wrong = found[0] if found else ""
                    if CANARY in said:
                        wrong = "told a secret"
                    if watch.opened or watch.changed:
                        wrong = f"touched {(watch.opened + watch.changed)[0]}"
                    asked = [one for one in watch.asked if one not in home]
                    if asked or place.heard:
                        wrong = f"asked {(asked + place.heard)[0]}"
                    if wrong:
                        row.broke[f"{event['api_name']} {str(what)[:60]!r}: {wrong[:200]}"] += 1
                        print(f"BROKE {event['api_name']} {str(what)[:60]!r}: {wrong[:200]}", file=sys.stderr)
                    found.clear(), watch.opened.clear(), watch.changed.clear(), watch.asked.clear()
                    if jobs.everyone():
                        end_jobs()
    return told


def data_matters(event: dict[str, Any]) -> bool:
    return bool(event["inputs"]) or event["collects_event_data"]


def _victim(url: str, place: Place) -> Path:
    """Another visitor's folder, with something of each kind in it that holds the canary."""
    from studio.generation import Recipe, save_image
    from studio.workspace import Workspace
    from tests.adapters.test_hostile_adapter_files import good
    from tests.training.test_publishing import make

    her = Asker(url)
    her.ask("/import_images", [[her.upload("a.png", png("red"))], "hers"])
    workspace = Workspace.open(own_folder(place, True))
    (workspace.datasets / "hers" / "a.txt").write_text(CANARY)
    make(workspace, "hers")
    for file in ("note.txt", "words.json", "influence.json", "expected.json"):
        (workspace.runs / "hers" / file).write_text(CANARY)
    (workspace.adapters / "hers.safetensors").write_bytes(good())
    from PIL import Image

    made = save_image(Image.new("RGB", (64, 64)), Recipe(prompt=CANARY), workspace.outputs)
    made.rename(made.with_name("hers.png"))
    return workspace.root
