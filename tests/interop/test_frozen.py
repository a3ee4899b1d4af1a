"""What 0.1 made keeps opening, and whoever called 0.1 is answered: see frozen/make.py.

The archive holds a workspace with a paused run, a finished, a stopped and a failed one, one in the bin and two that
wait, datasets with history and masks, images, a grid with votes, adapter files, caches, and a tiny base model.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client.exceptions import AppError

from tests.frozen.fixture import RECORDING, filled, lacking, recording, unpack
from tests.frozen.replay import NAME, answer_of, client_of, commanded, launched, mcp_tools, places_in
from tests.tiers import default, in_full

CODE = Path(__file__).parents[2]
RECORDED = json.loads(RECORDING.read_text("utf-8"))
EVERY = "zsk--every-field-11.png"  # the image whose recipe has every field set


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The archive unpacked, and HOME, in which its base model lies."""
    folder = unpack(tmp_path_factory.mktemp("frozen"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("USERPROFILE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def workspace(root):
    from studio.workspace import Workspace

    return Workspace.open(root / "workspace")


@pytest.fixture(scope="module")
def same_starter():
    """Whether the built-in base is 0.1's."""
    import hashlib

    unet, text = (CODE / "assets" / "starter" / part for part in ("unet", "text_encoder"))
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in unet.glob("*.safetensors")}
    return files == RECORDED["starter"] and hashlib.sha256((text / "model.safetensors").read_bytes()).hexdigest() == (
        "ecdd68133bdb40aad954702700a070e913f91a9d104a1fa5262c3c30e561606e"
    )


# Read -----------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_and_told_as_they_were(workspace):
    from studio.training import list_runs, read_events, read_run

    states = {name: read_run(workspace, name).state for name in list_runs(workspace)}
    assert states == {
        "finished": "finished", "stopped": "stopped", "failed": "failed", "paused": "interrupted",
        "on-starter": "finished", "first-in-line": "interrupted", "second-in-line": "interrupted",
    }  # fmt: skip
    finished, paused = read_run(workspace, "finished"), read_run(workspace, "paused")
    assert (finished.step, finished.steps, len(finished.losses)) == (6, 6, 6)
    assert [step for step, _, _ in finished.validation] == [0, 2, 4, 6] and finished.export_check
    assert [(step, prompt) for step, prompt, _ in finished.previews][:2] == [(0, "zsk, a disc"), (0, "a square@0.5")]
    assert all(file.is_file() for _, _, file in finished.previews) and finished.message.startswith("Finished.")
    assert 2 <= paused.step < 18 and paused.steps == 20 and "picture" in paused.setup
    assert read_run(workspace, "failed").message
    kinds = {type(event).__name__ for event in read_events(workspace.runs / "finished")}
    assert kinds >= {"Preparing", "Started", "Step", "Validation", "Preview", "Checkpoint", "ExportChecked", "Finished"}


def test_summaries_notes_and_settings_of_old_runs(workspace):
    from studio.training import config_from_toml
    from studio.training.summary import course, summary

    made = summary(workspace, "finished")
    assert (made.state, made.step, made.steps) == ("finished", 6, 6) and made.best is not None
    assert len(course(workspace, "finished").trained) == 6
    assert (workspace.runs / "finished" / "note.txt").read_text("utf-8").startswith("The good one.")
    config = config_from_toml(workspace.runs / "paused" / "run.toml")
    assert Path(config.data.folder) == workspace.datasets / "shapes" and config.base == "~/bases/sd1"
    assert (config.adapter.kind, config.training.accumulation, config.training.steps) == ("dora", 2, 20)


def test_states_of_checkpoints_are_read(workspace):
    from studio.training import checkpoints

    steps = {name: checkpoints.newest(workspace.runs / name)["step"] for name in ("finished", "stopped", "paused")}
    assert steps["finished"] == 6 and 0 < steps["paused"] < 18 and steps["stopped"] > 2


def test_a_dataset_keeps_its_captions_their_authors_and_its_history(root, tmp_path):
    from studio.datasets import authors, can_undo, history, open_dataset, redo, removed_images, undo

    copy = unpack(tmp_path) / "workspace" / "datasets" / "shapes"
    shapes = open_dataset(copy)
    assert sorted(shapes.by_file()) == [f"shape-{number}.png" for number in range(6)] and not shapes.problems
    assert shapes.by_file()["shape-3.png"].caption == "zsk, a square, flat, of orange paper"
    kinds = {who.partition(":")[0] for _, who in authors(shapes, "shape-0.png")}
    assert kinds == {"person", "model", "rule"}
    assert shapes.by_file()["shape-0.png"].load_mask() is not None
    assert shapes.by_file()["shape-1.png"].load_mask() is None
    steps = history(shapes)
    assert [step.kind for step in steps] == ["undo", *["change"] * 5] and steps[1].undone
    assert "shape-6.png" in str(removed_images(shapes))
    assert all(can_undo(shapes))
    redo(shapes)
    assert all("mistaken" in item.caption for item in open_dataset(copy).items)
    for _ in range(2):  # the tag, then the image that was taken out
        undo(open_dataset(copy))
    assert "shape-6.png" in open_dataset(copy).by_file()


def test_an_image_tells_its_recipe_and_is_drawn_anew(root, workspace):
    from PIL import Image

    from studio.generation import Recipe, generate, read_recipe

    found = read_recipe(workspace.outputs / EVERY)
    assert not found.problems and [one["file"] for one in found.adapters] == ["finished", "baked"]
    first = found.adapters[0]
    assert (first["strength"], first["text_strength"], first["start"], first["end"]) == (0.9, 0.5, 0.1, 0.9)
    assert first["blocks"] == {"unet.down_blocks.1": 0.25}
    wanted = {
        "prompt": "zsk, every field", "negative_prompt": "none", "seed": 11, "steps": 3, "guidance": 5.5, "width": 64,
        "height": 72, "scheduler": "Euler", "clip_skip": 2, "count": 2, "denoising": 0.7, "source": "shape-0.png",
        "mask": "shape-0-masklabel.png",
    }  # fmt: skip
    assert {key: found.values[key] for key in wanted} == wanted
    shapes = workspace.datasets / "shapes"
    files = {"finished": workspace.runs / "finished" / "adapter.safetensors",
             "baked": workspace.adapters / "baked.safetensors"}  # fmt: skip
    again = Recipe(
        **found.values | {"source": shapes / "shape-0.png", "mask": shapes / "shape-0-masklabel.png",
                          "base": "~/bases/sd1"},
        adapters=[one | {"file": files[one["file"]]} for one in found.adapters],
    )  # fmt: skip
    assert generate(again).size == (64, 72)
    with Image.open(workspace.outputs / EVERY) as image:
        assert "<lora:finished:0.9:0.5>" in image.info["parameters"]


def test_grids_their_axes_and_votes(workspace):
    from studio.generation import contact_sheet, votes

    grid = contact_sheet.newest_grid(workspace.outputs)
    assert [(side.kind, len(side.labels)) for side in grid.sides] == [("strength", 3), ("seed", 2)]
    assert all(grid.images) and grid.sheet.is_file()
    assert [axis.values for axis in contact_sheet.read_axes(grid.sheet)] == [(0, 0.5, 1), (1, 2)]
    assert sorted(said for _, _, said in votes.votes(grid)) == ["left", "right", "same"] and votes.tally(grid)


@pytest.mark.parametrize("place", ["runs/finished/adapter.safetensors", "adapters/baked.safetensors"])
def test_adapter_files_say_what_they_are_and_fit_their_base(root, workspace, place):
    from studio.adapters import attach_file, read_adapter
    from studio.basemodels import load_base

    file = read_adapter(workspace.root / place)
    file.refuse_if_damaged()
    if place.startswith("runs"):
        assert file.metadata["studio.run"] == "finished" and file.metadata["ss_output_name"] == "finished"
        assert file.metadata["studio.base"] == "~/bases/sd1" and file.metadata["studio.step"]
    adapter = attach_file(file, load_base("~/bases/sd1", shared=False).modules())
    assert adapter.report.matched == adapter.report.total > 0


def test_what_was_encoded_is_read(workspace):
    from studio.datasets import open_dataset
    from studio.training.cache import Cache

    cache = Cache(workspace.cache / "encoded")
    keys = [file.stem for file in cache.folder.rglob("*.safetensors")]
    assert len(keys) > 10 and all(cache.has(key) for key in keys)
    for item in open_dataset(workspace.datasets / "shapes").items:
        cache.facts(item)
    assert not cache._changed  # as they stand in the cache: no image's bytes were hashed again


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED["presets"])
def test_presets_keep_their_names(name):
    from studio.training import config_from
    from studio.training.presets import preset

    values = RECORDED["presets"][name]
    assert config_from({"data.folder": "x"} | preset(name)) and config_from({"data.folder": "x"} | values)


def test_settings_of_a_run_are_read_under_their_names(tmp_path):
    from studio.training import config_from, config_from_toml

    plain = config_from({"data.folder": "x"})
    for key, (usual, other) in RECORDED["run"].items():
        assert config_from({"data.folder": "x", key: other}) != plain, key
        assert config_from({"data.folder": "x", key: usual}), key
        section, _, leaf = key.rpartition(".")
        line = f"{leaf} = {json.dumps(other)}\n"
        lines = [*([line] if not section else []), "[data]\n", *(['folder = "x"\n'] if key != "data.folder" else [])]
        lines += [line] if section == "data" else [f"[{section}]\n", line] if section else []
        (tmp_path / "run.toml").write_text("".join(lines), "utf-8")
        assert config_from_toml(tmp_path / "run.toml") == config_from({"data.folder": "x", key: other}), key


def test_fields_of_a_recipe_are_read_under_their_names():
    from studio.generation import Recipe

    for key, (_, other) in RECORDED["recipe"].items():
        assert Recipe(**{"prompt": "x", key: other}) != Recipe(prompt="x"), key


# The command line -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory, root):
    """Of a copy of its own for the commands, which change it."""
    return places_in(unpack(tmp_path_factory.mktemp("commands")))


def commands():
    """Each recorded line; the full tests have those that train or load a captioner."""
    for command in RECORDED["commands"]:
        line = command["line"]
        full = "by-command" in line or "by-toml" in line or line[0] == "caption" and "--captioners" not in line
        yield in_full(command) if full else command


@pytest.mark.parametrize("command", commands(), ids=lambda command: " ".join(command["line"])[:40])
def test_commands_take_every_flag(command, places):
    line = filled(command["line"], places)
    code, out, said = commanded("--workspace", str(places["ROOT"] / "workspace"), *line)
    assert code == 0, said
    assert "Traceback" not in said and out.strip()
    if "--json" in line:
        assert not lacking(command["printed"], json.loads(out))
    if "--resume" in line:
        steps = [json.loads(one) for one in (Path(line[2]) / "events.jsonl").read_text("utf-8").splitlines()]
        assert steps[-1]["event"] == "Finished" and steps[-1]["step"] == int(places["more"])


def test_a_run_on_another_starter_does_not_go_on_in_silence(places, same_starter):
    run = places["ROOT"] / "workspace" / "runs" / "on-starter"
    code, _, said = commanded("train", "--resume", str(run), "--set", "training.steps=3")
    if same_starter:
        assert code == 0, said
    else:
        assert code == 2 and "starter" in said.lower() and "Traceback" not in said


def test_a_run_of_0_1_goes_on_under_its_meaning(places, monkeypatch):
    from studio.training import changes, config_from_toml, train
    from studio.training.events import Started, Step, Warned
    from studio.workspace import Workspace

    def constant(config):
        return config.model_copy(update={"training": config.training.model_copy(update={"schedule": "constant"})})

    said = "Since 9.0 the schedule is another; this run goes on as it began."
    monkeypatch.setattr(changes, "CHANGES", (changes.Change("9.0", said, constant),))
    folder = places["ROOT"] / "workspace" / "runs" / "paused"
    begun, seen = 0, set()
    for event in train(config_from_toml(folder / "run.toml"), Workspace.open(folder.parent.parent), folder=folder):
        begun = event.step if isinstance(event, Started) else begun
        seen |= {event.message} if isinstance(event, Warned) else set()
        rate = event.learning_rate if isinstance(event, Step) else None
        assert rate in (None, 1e-3)
    assert begun >= 2 and said in seen and (type(event).__name__, event.step) == ("Finished", 20)
    assert not [line for line in seen if "base model's files" in line or "captions are not those" in line]


def launch(*flags: str, **variables: str) -> subprocess.CompletedProcess:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("STUDIO_")} | variables
    return subprocess.run([sys.executable, "launch.py", *flags], cwd=CODE, env=environ, capture_output=True, text=True)


def test_launch_takes_every_flag_and_variable():
    """Those that open a studio are used by the one that is served; the others are seen to be read by what is said."""
    told = launch("--help").stdout
    hidden = [flag for flag in RECORDED["launch"] if flag not in told]
    values = {"--host": "127.0.0.1", "--port": "1", "--auth": "a:b", "--workspace": "x"}
    given = [part for flag in RECORDED["launch"] if flag not in ("-h", "--help") for part in (flag, values.get(flag))]
    refused = launch(*filter(None, given))
    assert refused.returncode == 2 and "--public" in refused.stderr and "--open" in refused.stderr, refused.stderr
    assert not hidden or "unrecognized" not in refused.stderr
    for name in ("STUDIO_PUBLIC", "STUDIO_OPEN", "STUDIO_SHARE", "STUDIO_NO_BROWSER", "STUDIO_MCP"):
        refused = launch(**{name: "perhaps"})
        assert refused.returncode == 2 and name in refused.stderr, refused.stderr


# The endpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory, root):
    """(address, client, places) of a studio that variables alone have opened, on a copy of its own."""
    copy = unpack(tmp_path_factory.mktemp("served"))
    with launched(CODE, copy) as url, client_of(url, copy / "downloads") as client:
        yield url, client, places_in(copy)


def test_a_served_studio_hears_its_variables(served):
    import httpx

    url = served[0]
    assert "unknown" not in httpx.get(url, headers={"Host": NAME}).text
    assert httpx.get(url, headers={"Host": NAME}).status_code < 400
    assert httpx.get(url, headers={"Host": "stranger.example"}).status_code == 421
    assert httpx.get(f"{url}/gradio_api/info").status_code == 401  # it asks for the name and password
    assert set(RECORDED["mcp"]) <= set(mcp_tools(url))


def test_endpoints_are_described_with_their_arguments_in_order(served):
    described = served[1].view_api(return_format="dict", print_info=False)["named_endpoints"]
    for name, arguments in RECORDED["endpoints"].items():
        if name in described:  # else its old name is answered, as the next test sees, and described no more
            found = [one["parameter_name"] for one in described[name]["parameters"]]
            assert found[: len(arguments)] == arguments, name


@pytest.mark.parametrize("calls", default(["quick", "all"]))
def test_every_endpoint_answers_as_it_did(served, same_starter, calls):
    """In 0.1's order, on what 0.1 left. All: the paused run goes on, the finished one is extended, the queue begins."""
    _, client, places = served
    (thrown,) = (places["ROOT"] / "workspace" / ".bin").iterdir()
    assert client.predict(thrown.name, api_name="/restore_run") == "thrown"
    assert client.predict(api_name="/list_queue")["waiting"] == ["first-in-line", "second-in-line"]
    assert client.predict(api_name="/list_bases") == ["starter", "sd1"]
    assert client.predict(api_name="/measured")["adapter"] == "on-starter"
    wrong = []
    for call in RECORDED["calls"]:
        if call.get("full") and calls == "quick":
            continue
        try:
            answer = answer_of(client, call, places)
        except AppError as error:
            if not (call.get("starter") and not same_starter and "\n" not in str(error)):
                wrong.append(f"{call['endpoint']}: {error}")
            continue
        wrong += [f"{call['endpoint']}: {line}" for line in lacking(call["answer"], answer)]
    assert not wrong, "\n".join(wrong)
    if calls == "quick":
        return
    status = {name: client.predict(name, api_name="/run_status") for name in ("paused", "finished", "thrown")}
    ends = [(one["state"], one["step"]) for one in status.values()]
    assert ends == [("finished", 20), ("finished", 7), ("finished", 1)]
    steps = [row[0] for row in status["paused"]["losses"]]
    assert steps == sorted(set(steps))
    assert not [one for one in status["paused"]["warnings"] if "base model" in one["message"]]


def test_the_recording_is_whole():
    found = recording()
    assert {f"/{call['endpoint']}" for call in found["calls"]} == set(found["endpoints"])
    assert len(found["run"]) == 60 and len(found["recipe"]) == 15 and len(found["mcp"]) == 56
