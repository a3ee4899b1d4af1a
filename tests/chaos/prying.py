"""Prying: every endpoint of a served studio, asked in every text and file for what is none of the asker's business.

python -m tests.chaos.prying [--modes own public mcp] [--texts 2] [--only ENDPOINT ...] [--no-browser]

Beside the workspace lie a secret and a set of images, and on this machine a small server listens. Nothing may open
those files, write outside the workspace, or ask that server; every answer is a result or one line. Then markup in every
name and text, looked at in Chromium, and a token of the hub, looked for on the disk and in the logs. Prints a table.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.chaos.lied import PRIVATE, Watch
from tests.serving import end_jobs, served

CANARY = "canary-5f1c"
MARKUP = "<img src=x data-pried onerror='window.pried=1'><script>window.pried=1</script>"
PATIENCE = 120  # seconds
LOGIN = ("ada", "a secret word")


@dataclass
class Told:
    """What became of one kind of prying in one mode."""

    calls: int = 0
    refused: int = 0
    broke: Counter[str] = field(default_factory=Counter)


@dataclass
class Place:
    """Where a studio is pried into. heard: what the listening server was asked."""

    root: Path
    port: int
    heard: list[str]

    @property
    def guard(self) -> Path:
        return self.root / "guard"

    @property
    def secrets(self) -> list[Path]:
        outside = self.guard / "outside"
        return [self.guard / "secret.txt", outside / "a.png", outside / "a.txt", *PRIVATE]

    @property
    def texts(self) -> dict[str, list[str]]:
        secret, up = str(self.guard / "secret.txt"), "../" * 3
        here = f"127.0.0.1:{self.port}"
        return {
            "`../`": [f"{up}secret.txt", f"{up}outside", "..", "a/../../../outside/a.png", "..\\..\\secret.txt"],
            "absolute paths": [secret, str(self.guard / "outside"), "/etc/passwd", "~/x", "~nobody-here/x", "C:\\x"],
            "UNC": ["\\\\127.0.0.1\\share\\x", "//127.0.0.1/share/x"],
            "a null byte, half a character": ["set\0.png", "set\ud800", "\0", "\udcff"],
            "very long names": ["x" * 5000, "x/" * 3000, "é" * 200],
            "addresses of this machine": [f"http://{here}/x.png", f"http://localhost:{self.port}/x", f"https://{here}/x"],
            "`file://` and the cloud's own": [f"file://{secret}", "http://169.254.169.254/latest/meta-data/",
                                              "http://metadata.google.internal/computeMetadata/v1/"],
            "markup and templates": [MARKUP, "{0.__class__}", "$(id)", "%s%n", "'; drop table x; --"],
        }  # fmt: skip

    @property
    def files(self) -> dict[str, list[Any]]:
        meta = {"_type": "gradio.FileData"}
        places = [str(self.guard / "secret.txt"), str(self.guard / "outside" / "a.png"), "/etc/passwd",
                  str(self.guard / "workspace" / "datasets" / ".." / ".." / ".." / "secret.txt")]  # fmt: skip
        links = [f"http://127.0.0.1:{self.port}/a.png", f"http://localhost:{self.port}/a.png", f"file://{places[0]}",
                 "http://169.254.169.254/x"]  # fmt: skip
        return {
            "files by path": [*({"path": one, "meta": meta} for one in places), {"path": places[0]}, places[0]],
            "files by address": [
                *({"path": one, "meta": meta} for one in links),
                *({"path": "", "url": one, "meta": meta} for one in links), {"url": links[0]}, links[0],
            ],
        }  # fmt: skip


GOOD = {  # so that a call comes as far as the text that is tried
    "dataset": "set", "run": "run", "prompt": "a fish", "steps": 1, "captioner": "starter", "operation": "tidy",
    "layout": "kohya", "adapter": {"file": "ink.safetensors"}, "file": "a.png", "rank": 2, "seeds": 1, "remedy": "x",
    "axes": [{"kind": "seed", "text": "1-2"}], "key": "x", "by": 1, "runs": ["run"], "place": "x", "base": "starter",
    "files": ["a.png"], "captioners": ["starter"], "adapters": [], "image": "none.png", "picture": "none.png",
    "width": 64, "height": 64, "more": {"preview.every": 0, "validation.every": 0, "training.batch_size": 1},
}  # fmt: skip
DRAWS = ("generate", "draw_grid", "export_adapters", "measure_adapter")  # their `more` is a recipe's
LEFT_OUT = ("doctor", "start_queue")  # nothing can be said to them
HUB, TO_THE_HUB = "huggingface.co", ("download_base", "publish_run")  # endpoints that are to ask it, for owners alone


def inside_json(name: str, text: str) -> list[Any]:
    """The text where a value of this parameter would have it."""
    if name in ("adapters", "compare"):
        return [[{"file": text}], [{"run": text}], [{"file": "ink.safetensors", "blocks": text}]]
    if name == "adapter":
        return [{"file": text}, {"run": text}]
    if name == "axes":
        return [[{"kind": "adapter", "picks": [{"file": text}]}], [{"kind": "prompt", "text": text}], [{"kind": text}]]
    if name in ("files", "runs", "captioners"):
        return [[text]]
    if name == "filter":
        return [{"has": text}, {"pattern": text}, {text: 1}]
    if name == "settings":
        return [{"model": text}, {text: 1}]
    keys = ("base", "source", "mask", "scheduler", "data.folder", "data.held_out", "data.trigger", "preview.prompts")
    return [{key: text} for key in keys]


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A server that nobody has a reason to ask: (its port, what it was asked)."""
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def handle_one_request(self):
            heard.append("a connection")
            super().handle_one_request()

        def do_GET(self):
            heard.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port, heard
    server.shutdown()
    server.server_close()


@contextmanager
def prepared() -> Iterator[Place]:
    """A place with secrets beside the workspace; what the studio is sent and makes aside is kept there too."""
    with tempfile.TemporaryDirectory() as folder, listening() as (port, heard):
        place = Place(Path(folder).resolve(), port, heard)
        image = png("red")
        for name in ("outside", "workspace/datasets/set"):
            (place.guard / name).mkdir(parents=True)
            (place.guard / name / "a.png").write_bytes(image)
            (place.guard / name / "a.txt").write_text(f"{CANARY}\n" if name == "outside" else "a fish\n")
        (place.guard / "secret.txt").write_text(CANARY)
        (place.root / "aside").mkdir()
        before, temporary = os.environ.get("GRADIO_TEMP_DIR"), tempfile.tempdir
        os.environ["GRADIO_TEMP_DIR"], tempfile.tempdir = str(place.root / "sent"), str(place.root / "aside")
        try:
            yield place
        finally:
            tempfile.tempdir = temporary
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(stream, "PNG")
    return stream.getvalue()


class Asker:
    """A client that sends what no page would send; in public mode with a cookie of their own."""

    def __init__(self, url: str, login: tuple[str, str] | None = None):
        self.http = httpx.Client(base_url=url, timeout=PATIENCE, auth=login)
        self.http.get("/config")
        self.endpoints = self.http.get("/gradio_api/info").json()["named_endpoints"]

    def ask(self, endpoint: str, values: list[Any]) -> tuple[str, str]:
        """("answered" | "refused" | "hidden" | "broke", what was said)."""
        body = json.dumps({"data": values}).encode()
        kind = {"content-type": "application/json"}
        began = self.http.post(f"/gradio_api/call{endpoint}", content=body, headers=kind)
        if began.status_code in (400, 403, 413, 422):
            return "refused", began.text
        if began.status_code != 200:
            return "broke", f"status {began.status_code}: {began.text[:200]}"
        text = self.http.get(f"/gradio_api/call{endpoint}/{began.json()['event_id']}").text
        kind, _, data = text.rpartition("event: ")[2].partition("\ndata: ")
        if kind.strip() == "complete":
            return "answered", data
        said = json.loads(data.strip() or "null")
        line = said.get("error") if isinstance(said, dict) else said
        if line is None:  # Gradio hides what an error says that is none of ours
            return "hidden", ""
        return ("refused", str(line)) if "\n" not in str(line) else ("broke", str(line)[:200])

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        path = self.http.post("/gradio_api/upload", files={"files": (name, data)}).json()[0]
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


class McpAsker(Asker):
    """The same by MCP, as a program that has the password."""

    def ask(self, endpoint: str, values: list[Any]) -> tuple[str, str]:
        """As Asker's."""
        names = [one["parameter_name"] for one in self.endpoints[endpoint]["parameters"]]
        given = {name: value for name, value in zip(names, values) if value is not None}
        call = {"name": endpoint.strip("/"), "arguments": given}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()
        kinds = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        answer = self.http.post("/gradio_api/mcp/", content=body, headers=kinds)
        if answer.status_code in (400, 403, 413):
            return "refused", answer.text
        if answer.status_code != 200:
            return "broke", f"status {answer.status_code}: {answer.text[:200]}"
        result = json.loads(answer.text.partition("data: ")[2])
        if "error" in result:
            return "refused", result["error"]["message"]
        said = "\n".join(one.get("text", "") for one in result["result"]["content"])
        if not result["result"].get("isError"):
            return "answered", said
        own = said.startswith("Input validation error: ")  # the mcp package's own, which quotes what was given
        return ("refused", said) if own or "\n" not in said else ("broke", said[:200])


def pry(
    place: Place, public: bool, only: Sequence[str] = (), most: int | None = None, mcp: bool = False
) -> dict[str, Told]:
    """Every endpoint in every text and file; {kind of prying: what became of it}. most: texts of each kind. mcp: as an
    MCP client, which signs in with a password.
    """
    from studio.workspace import Workspace
    from tests.adapters.test_hostile_adapter_files import good
    from tests.training.test_publishing import make

    told: dict[str, Told] = {}
    allowed = [place.guard / "workspace", place.root / "sent", place.root / "aside"]
    options = {"mcp": True, "auth": LOGIN} if mcp else {"public": public}
    with served(place.guard / "workspace", **options) as url, Watch(allowed, place.secrets) as watch:
        asker, home = Asker(url, LOGIN if mcp else None), httpx.URL(url).netloc.decode()
        asker.ask("/add_adapter", [asker.upload("ink.safetensors", good())])
        asker = McpAsker(url, LOGIN) if mcp else asker
        if public:
            asker.ask("/import_images", [[asker.upload("a.png", png("red"))], "set"])
        make(Workspace.open(own_folder(place, public)), "run")
        for endpoint, facts in asker.endpoints.items():
            if (only and endpoint.strip("/") not in only) or endpoint.strip("/") in LEFT_OUT:
                continue
            parameters = facts["parameters"]
            usual = [GOOD.get(_name(one, endpoint), one.get("parameter_default")) for one in parameters]
            for at, one in enumerate(parameters):
                for kind, value in tries(place, one, endpoint, most):
                    row, heard = told.setdefault(kind, Told()), len(place.heard)
                    values = [*usual[:at], value, *usual[at + 1 :]]
                    for file in files_of(parameters):
                        if file != at and not mcp:  # an upload, or Gradio refuses the call before the text is read
                            values[file] = _upload_for(asker, parameters[file], endpoint)
                    state, said = asker.ask(endpoint, values)
                    row.calls += 1
                    files = kind.startswith("files") and state == "hidden"  # Gradio itself refuses what is no upload
                    row.refused += state == "refused" or files
                    wrong = "" if state in ("answered", "refused") or files else f"{state}: {said}"
                    if CANARY in said:
                        wrong = "told a secret"
                    if watch.opened or watch.changed:
                        wrong = f"touched {(watch.opened + watch.changed)[0]}"
                        watch.opened.clear(), watch.changed.clear()
                    fitting = [home, httpx.URL(url).host]
                    if endpoint.strip("/") in TO_THE_HUB and not public:
                        fitting.append(HUB)
                    asked = [one for one in watch.asked if one not in fitting]
                    watch.asked.clear()
                    if asked or len(place.heard) > heard:
                        wrong = f"asked {(asked + place.heard)[0]}"
                    if wrong:
                        row.broke[f"{endpoint} {one['parameter_name']} {str(value)[:80]!r}: {wrong[:200]}"] += 1
                    end_jobs()
    return told


def _upload_for(asker: "Asker", parameter: dict, endpoint: str) -> Any:
    """A file that the endpoint takes."""
    if "rerun" in endpoint or endpoint.strip("/") == "reproduce_run":
        empty: dict[str, Any] = {"made_of": {}, "expected": {}, "settings": {"base": "starter"}}
        whole = {"format": "lora-studio rerun", "version": 1, "name": "x"} | empty
        return asker.upload("a.rerun.json", json.dumps(whole).encode())
    sent = asker.upload("a.png", png("red"))
    return [sent] if "list" in parameter["python_type"]["type"].lower() else sent


def own_folder(place: Place, public: bool) -> Path:
    """The workspace of whoever asks."""
    root = place.guard / "workspace"
    return max((root / "visitors").glob("c*"), key=lambda folder: folder.stat().st_mtime) if public else root


def _name(parameter: dict, endpoint: str) -> str:
    """What GOOD calls it."""
    name = parameter["parameter_name"]
    return "none" if name == "more" and endpoint.strip("/") in DRAWS else name


def files_of(parameters: list[dict]) -> list[int]:
    """Which parameters take uploaded files."""
    return [number for number, one in enumerate(parameters) if one["component"] == "File"]


def tries(place: Place, parameter: dict, endpoint: str, most: int | None) -> Iterator[tuple[str, Any]]:
    """(kind of prying, value) for one parameter."""
    if parameter["component"] == "File":
        for kind, files in place.files.items():
            yield from ((kind, value) for value in files)
            yield from ((kind, [value]) for value in files)
    elif parameter["python_type"]["type"] == "str":
        for kind, texts in place.texts.items():
            yield from ((kind, text) for text in texts[:most])
    elif parameter["python_type"]["type"] not in ("int", "float", "bool"):
        name = _name(parameter, endpoint)
        for kind, texts in place.texts.items():
            for text in texts[: most or 2]:
                yield from ((kind, value) for value in inside_json(name, text)[:most])
        for kind, files in place.files.items():
            yield from ((kind, value) for value in files[:most])


# Links, and addresses of files --------------------------------------------------------------------------------------


def follow_links(place: Place, public: bool) -> Told:
    """Links out of the workspace that somebody laid in it, asked for by every address of a file, and by name."""
    told = Told()
    with served(place.guard / "workspace", public=public) as url, Watch([place.root], place.secrets) as watch:
        asker = Asker(url)
        asker.ask("/list_datasets", [])
        mine = own_folder(place, public)
        outside, links = place.guard / "outside", []
        for link, target in (("outputs/link.png", outside / "a.png"), ("exports/link", outside), ("datasets/set/b.png",
                             outside / "a.png"), ("datasets/set/b.txt", outside / "a.txt")):  # fmt: skip
            (mine / link).parent.mkdir(parents=True, exist_ok=True)
            if not (mine / link).is_symlink():
                (mine / link).symlink_to(target)
            links.append(mine / link)
        paths = [*links, links[1] / "a.png", *place.secrets, f"{links[0].parent}/../../secret.txt"]
        for path in paths:
            text = str(path)
            for shape in (text, f"/{text}", f"file://{text}", text.replace("/", "%2F"), os.path.relpath(text)):
                told.calls += 1
                answer = asker.http.get(f"/gradio_api/file={shape}")
                told.refused += answer.status_code != 200
                if answer.status_code == 200:
                    told.broke[f"served {str(path).removeprefix(str(place.root))}"] += 1
        watch.opened.clear()
        names = (("open_dataset", "set"), ("delete_image", "link.png"), ("list_images", ""),
                 ("image_recipe", "link.png"), ("export_dataset", "set"))  # fmt: skip
        for endpoint, name in names:
            values = [name, *[0] * (endpoint == "list_images"), *[""] * (endpoint == "export_dataset")]
            told.calls += 1
            state, said = asker.ask(f"/{endpoint}", values)
            told.refused += state == "refused"
            if state not in ("answered", "refused") or CANARY in said or watch.opened:
                told.broke[f"{endpoint} {values[0]!r}: {(watch.opened or [said])[0][:200]}"] += 1
                watch.opened.clear()
        for link in links:
            link.unlink(missing_ok=True)
    return told


# The run ------------------------------------------------------------------------------------------------------------


def table(columns: dict[str, dict[str, Told]]) -> str:
    kinds = list(dict.fromkeys(kind for one in columns.values() for kind in one))
    rows = [f"| tried | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for kind in kinds:
        cells = []
        for told in columns.values():
            one = told.get(kind)
            broke = f", **{one.broke.total()} broke**" if one and one.broke else ""
            cells.append(f"{one.calls:,} calls, {one.refused:,} refused in a line{broke}" if one else "")
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", choices=["own", "public", "mcp"], default=["own", "public", "mcp"])
    parser.add_argument("--only", nargs="+", default=[], help="names of endpoints, and nothing else")
    parser.add_argument("--texts", type=int, help="so many of each kind; all of them if not given")
    parser.add_argument("--no-browser", action="store_true")
    given = parser.parse_args()
    sys.dont_write_bytecode = True
    from tests.chaos.prying_events import press_everything
    from tests.chaos.prying_page import keep_a_secret, look_at_markup

    columns: dict[str, dict[str, Told]] = {}
    for mode in given.modes:
        with prepared() as place:
            told = columns[mode] = pry(place, mode == "public", given.only, given.texts, mode == "mcp")
            if not given.only and mode != "mcp":
                told["links out of the workspace, addresses of files"] = follow_links(place, mode == "public")
            if mode == "own" and not given.only:
                told["a token of the hub, looked for on disk, in logs and answers"] = keep_a_secret(place)
                if not given.no_browser and shutil.which("chromium"):
                    told["markup in names and texts, parts of the page looked at"] = look_at_markup(place)
            if mode == "public" and not given.only:
                told |= press_everything(place, given.texts)
            if place.heard:
                told.setdefault("addresses of this machine", Told()).broke[f"asked {place.heard[0]}"] += 1
    print(table(columns))
    broke = [f"{mode}: {what}" for mode, told in columns.items() for one in told.values() for what in one.broke]
    for line in broke:
        print(f"BROKE {line}", file=sys.stderr)
    return int(bool(broke))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
