"""Publishing: the folder reads back as what it says, nothing private travels, and a hub gets just that folder."""

import base64
import json
import logging
import os
import threading
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import ModelCard, constants
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from studio.errors import RunError
from studio.services import publishing
from studio.services.jobs import jobs
from studio.training import config_from, config_to_toml
from studio.training.events import Finished, Preview, Started, Step, Validation
from studio.training.publishing import Publication, PublishingStopped, prepare, upload
from studio.training.runs import append
from studio.workspace import Workspace
from tests import hubs, tiers

TOKEN = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
MINE = "anna/moody-cat"


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def run(workspace):
    return make(workspace, "cat")


def make(workspace, name: str, **settings):
    """A run that is finished, with two previews and an adapter of three tensors."""
    folder = workspace.runs / name
    (folder / "previews").mkdir(parents=True)
    values = {
        "name": name,
        "data.folder": str(workspace.datasets / "my cats"),
        "data.trigger": "zsk",
        "adapter.rank": 4,
        "base": "/secret/place/models/old-anime",
        "training.steps": 40,
        "data.held_out": "/secret/place/held",
        "preview.prompts": ["zsk | a <b>cat</b>", "zsk at half @0.5"],
    } | settings
    (folder / "run.toml").write_text(config_to_toml(config_from(values)), encoding="utf-8")
    append(folder, Started(0, 40, 1, 0.0, "1"))
    for step in (0, 40):
        append(folder, Validation(step, 0.5 - step / 400, 0.5))
        for number, prompt in enumerate(values["preview.prompts"]):
            file = f"previews/{step:06d}-{number}.png"
            Image.new("RGB", (16, 16), (step, number, 0)).save(folder / file)
            append(folder, Preview(step, prompt, file))
    append(folder, Step(40, 0.4, 0.4, 1e-3, 1.0, 0.0))
    append(folder, Finished(40, 40, "done"))
    torch.manual_seed(0)
    tensors = {f"layer.{n}": torch.randn(4, 8) for n in range(3)}
    said = {"studio.base": values["base"], "ss_sd_model_name": values["base"], "ss_output_name": name}
    save_file(tensors, folder / "adapter.safetensors", metadata=said)
    return folder


def texts_below(folder) -> bytes:
    """Everything that was written there, names and contents."""
    return b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


# The folder ---------------------------------------------------------------------------------------------------------


def test_the_card_is_read_back_by_huggingface_hub(workspace, run):
    wanted = Publication(MINE, "cc-by-4.0", ("zsk", "moody cat"), "Cats that look *moody*.")
    folder = prepare(workspace, "cat", wanted)
    card = ModelCard.load(folder / "README.md")
    facts = card.data.to_dict()
    assert facts["license"] == "cc-by-4.0" and facts["library_name"] == "diffusers"
    assert facts["pipeline_tag"] == "text-to-image" and facts["instance_prompt"] == "zsk, moody cat"
    assert {"lora", "diffusers", "text-to-image"} <= set(facts["tags"]) and "base_model" not in facts
    (shown,) = facts["widget"]  # the one at half strength is not what the widget would draw
    assert shown["text"] == "zsk | a <b>cat</b>" and (folder / shown["output"]["url"]).is_file()
    assert "Cats that look *moody*." in card.text and "−20 %" in card.text
    assert "`zsk`, `moody cat`" in card.text and "| adapter.rank | 4 |" in card.text
    assert "zsk \\| a &lt;b&gt;cat&lt;/b&gt;" in card.text, "a prompt is neither HTML nor a cell of the table"


def test_a_base_of_the_hub_is_named_and_the_lines_of_code_load_the_file(workspace):
    make(workspace, "xl", base="stabilityai/stable-diffusion-xl-base-1.0@main?quantise=8bit")
    folder = prepare(workspace, "xl", Publication("anna/xl-cat"))
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == "stabilityai/stable-diffusion-xl-base-1.0"
    assert card.data.to_dict()["base_model_relation"] == "adapter" and "license" not in card.data.to_dict()
    code = card.text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "load_lora_weights('anna/xl-cat', weight_name='xl.safetensors')" in code


def test_the_tensors_are_the_runs_and_the_settings_can_be_read(workspace, run):
    from studio.training import config_from_toml

    folder = prepare(workspace, "cat", Publication())
    one, two = load_file(run / "adapter.safetensors"), load_file(folder / "cat.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    with safe_open(folder / "cat.safetensors", "pt") as file:
        assert file.metadata() == {"studio.base": "old-anime", "ss_sd_model_name": "old-anime", "ss_output_name": "cat"}
    config = config_from_toml(folder / "run.toml")
    assert (config.base, config.data.folder, config.data.held_out) == ("old-anime", "my cats", "held")
    images = sorted(path.name for path in (folder / "images").iterdir())
    assert images == ["00-000000.png", "00-000040.png", "01-000000.png", "01-000040.png"]


def test_no_path_of_this_machine_travels(workspace, run):
    folder = prepare(workspace, "cat", Publication())
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"/secret" not in written and str(workspace.root).encode() not in written


def test_preparing_again_replaces_the_folder_whole(workspace, run):
    folder = prepare(workspace, "cat", Publication())
    (folder / "old.txt").write_text("x")
    assert prepare(workspace, "cat", Publication(licence="mit")) == folder
    assert not (folder / "old.txt").exists() and "license: mit" in (folder / "README.md").read_text()
    assert [path.name for path in workspace.exports.iterdir()] == ["cat-hub"]


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        (Publication(licence="mit\ntags: [x]"), "no licence"),
        (Publication(repo="cat"), "owner/name"),
        (Publication(repo="a/b/../../c"), "owner/name"),
    ],
)
def test_what_cannot_be_used_is_said(workspace, run, wanted, part):
    with pytest.raises(RunError, match=part):
        prepare(workspace, "cat", wanted)
    assert not list(workspace.exports.iterdir())


def test_a_run_without_an_adapter_is_refused(workspace, run):
    (run / "adapter.safetensors").unlink()
    with pytest.raises(RunError, match="no adapter yet"):
        prepare(workspace, "cat", Publication())


def test_words_of_a_person_cannot_leave_their_place_in_the_card(workspace, run):
    evil = 'zsk"\n---\nlicense: mit\n<script>alert(1)</script>'
    card = ModelCard.load(prepare(workspace, "cat", Publication(triggers=(evil,))) / "README.md")
    assert card.data.license is None and card.data.to_dict()["instance_prompt"] == evil


# The hub ------------------------------------------------------------------------------------------------------------


@contextmanager
def hub(monkeypatch, public: set[str] = frozenset(), status: int = 200):
    """A hub that takes one commit. `files`: what it holds then; `asked`: (path, authorization); `created`."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append((self.path, self.headers.get("Authorization")))
            model = self.path.removeprefix("/api/models/")
            self.answer({"id": model, "sha": hubs.SHA, "private": model not in public, "siblings": []})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.asked.append((self.path, self.headers.get("Authorization")))
            if status != 200:
                return self.answer({"error": "no"}, status)
            if self.path == "/api/repos/create":
                server.created = json.loads(body)
                return self.answer({"url": f"{address}/{MINE}", "id": MINE})
            if self.path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if "/preupload/" in self.path:
                files = [
                    {
                        "path": one["path"],
                        "shouldIgnore": False,
                        "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".png")) else "regular",
                    }
                    for one in json.loads(body)["files"]
                ]
                return self.answer({"files": files})
            if self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    one | {"actions": {"upload": {"href": f"{address}/lfs/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                return self.answer({"transfer": "basic", "objects": objects})
            assert "/commit/" in self.path
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    server.files[value["path"]] = server.blobs[value["oid"]]
            return self.answer({"commitUrl": f"{address}/{MINE}/commit/{hubs.SHA}", "commitOid": hubs.SHA})

        def do_PUT(self):
            server.asked.append((self.path, self.headers.get("Authorization")))
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                data = self.rfile.read(int(self.headers["Content-Length"]))
            server.blobs[sha256(data).hexdigest()] = data
            self.answer({})

        def answer(self, value, code=200):
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.blobs, server.asked, server.created = {}, {}, [], None
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hubs._to(monkeypatch, address)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_token_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def finished(job):
    job.wait()
    return job


def publish(workspace, **values):
    given = {"run": "cat", "repo": MINE, "licence": "mit", "triggers": "zsk", "about": "", "private": True}
    return finished(publishing.publish_run(workspace, **given | {"send": True, "token": TOKEN} | values))


def test_the_hub_holds_the_prepared_folder_byte_for_byte_and_privately(workspace, run, monkeypatch):
    with hub(monkeypatch) as server:
        job = publish(workspace)
    assert job.state == "done" and job.message == "Published." and job.result.address.endswith(MINE)
    folder = job.result.folder
    here = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert server.files == here
    assert server.created["name"] == "moody-cat" and server.created["organization"] == "anna"
    assert server.created["visibility"] == "private"
    assert job.done == job.total == sum(map(len, here.values()))


def test_the_token_reaches_the_hub_and_no_disk_and_no_log(workspace, run, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    with hub(monkeypatch) as server:
        publish(workspace)
    asked = dict(server.asked)
    assert asked["/api/repos/create"] == f"Bearer {TOKEN}" and asked[f"/api/models/{MINE}/commit/main"]
    assert all(said is None for path, said in server.asked if path.startswith("/lfs/")), "storage is somebody else's"
    with hub(monkeypatch, status=401):
        assert "does not know this token" in publish(workspace).error
    assert TOKEN.encode() not in texts_below(tmp_path) and TOKEN not in caplog.text
    assert TOKEN not in os.environ.values() and TOKEN not in repr(vars(jobs.beside["publish"]))


def test_a_token_from_the_environment_is_the_owners_and_not_a_visitors(workspace, run, monkeypatch):
    from dataclasses import replace

    from studio.errors import NotAllowedError
    from studio.server.permissions import REACHED, VISITED

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub(monkeypatch) as server:
        assert publish(workspace, token="").state == "done"
        assert dict(server.asked)["/api/repos/create"] == f"Bearer {TOKEN}"
        with pytest.raises(RunError, match="Give a token"):
            publish(replace(workspace, allows=REACHED), token="")
        with pytest.raises(NotAllowedError):
            publish(replace(workspace, allows=VISITED))


def test_a_model_that_is_public_already_is_not_filled_with_what_should_be_private(workspace, run, monkeypatch):
    with hub(monkeypatch, public={MINE}) as server:
        assert "public: choose another name" in publish(workspace).error
        assert not server.files
        assert publish(workspace, private=False).state == "done"
        assert server.created["visibility"] == "public"


def test_without_a_network_one_sentence_says_so_and_the_folder_stays(workspace, run, monkeypatch):
    hubs.unplug(monkeypatch)
    job = publish(workspace)
    assert job.state == "failed" and "can't be reached" in job.error and "\n" not in job.error
    assert (job.result.folder / "README.md").is_file()


@pytest.mark.parametrize(
    ("status", "part"), tiers.default([(401, "does not know"), (403, "may not write"), (500, "answer 500")])
)
def test_what_the_hub_refuses_is_said_in_one_sentence(workspace, run, monkeypatch, status, part):
    folder = prepare(workspace, "cat", Publication())
    with hub(monkeypatch, status=status), pytest.raises(RunError, match=part) as error:
        upload(folder, Publication(MINE), TOKEN)
    assert "\n" not in str(error.value) and TOKEN not in str(error.value)


@pytest.mark.parametrize("token", tiers.default(["two\nlines", "with space", "ä", "x" * 2000]))
def test_what_is_no_token_is_never_sent(workspace, run, monkeypatch, token):
    folder = prepare(workspace, "cat", Publication())
    with hub(monkeypatch) as server, pytest.raises(RunError, match="not a token"):
        upload(folder, Publication(MINE), token)
    assert not server.asked


def test_stop_ends_an_upload_before_its_commit(workspace, run, monkeypatch):
    folder = prepare(workspace, "cat", Publication())
    save_file({"layer": torch.zeros(2_000_000)}, folder / "cat.safetensors")  # 8 MB
    stop, told = threading.Event(), []

    def progress(done, total):
        told.append(done)
        if done > 3_000_000:
            stop.set()

    with hub(monkeypatch) as server, pytest.raises(PublishingStopped):
        upload(folder, Publication(MINE), TOKEN, progress, stop)
    assert not server.files and told == sorted(told) and max(told) < 6_000_000


def test_preparing_needs_neither_a_token_nor_a_network(workspace, run, monkeypatch):
    hubs.unplug(monkeypatch)
    job = publish(workspace, send=False, token="", repo="")
    assert job.state == "done" and "cat.safetensors" in dict(job.result.files) and job.result.card.startswith("---")
