"""A small share of lied.py, and what it broke once: each by the name of what holds now."""

import json
import math
import os

import pytest
from PIL import Image

from studio.adapters import AdapterSpec
from studio.basemodels import base_folder, family_class
from studio.basemodels.card import describe_base
from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import missing_parts
from studio.basemodels.single_file import kind_of
from studio.captioning import captioner_settings
from studio.datasets import history, import_images, open_dataset, read_caption, set_caption
from studio.errors import AdapterError, BaseModelError, ConfigError, GenerationError, NotAllowedError
from studio.generation import contact_sheet, grids, image_metadata, prompts
from studio.generation.foreign_text import read_parameters
from studio.server.permissions import REACHED
from studio.services import base_models, captioning, datasets, generation
from studio.services.run_order import waiting
from studio.text import duration
from studio.training import config_from, config_from_toml, config_to_toml, summary
from studio.training.events import from_dict, to_dict
from studio.training.reading import Log, read_events
from studio.workspace import Workspace
from tests import tiers
from tests.chaos.lied import at_most, watched
from tests.chaos.readers import RECIPE, png_saying
from tests.chaos.readers_of_notes import EVENTS
from tests.chaos.trips import TRIPS, tried
from tests.datasets.made import bomb

DEEP = "[" * 100_000


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def run(workspace):
    folder = workspace.runs / "run"
    (folder / "previews").mkdir(parents=True)
    (folder / "run.toml").write_text(config_to_toml(config_from({"data.folder": "x"})))
    return folder


@pytest.mark.parametrize("lies", tiers.default([300, 1000]))
def test_lies_are_answered_or_refused_in_a_line_and_nothing_outside_is_written(tmp_path, lies):
    told, outside = watched(tmp_path, lies, 7)
    assert {name: dict(one.breaks) for name, one in told.items() if one.breaks} == {} and not outside
    assert sum(one.refused for one in told.values()) > lies // 5


@pytest.mark.parametrize("name", TRIPS)
def test_what_is_written_is_what_is_read(name):
    tried(TRIPS[name], 8)


# Runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        '{"event": "Step", "step": "1", "loss": 1, "smoothed": 1, "learning_rate": 1, "steps_per_second": 1, '
        '"seconds_left": 1}',
        '{"event": "Step", "step": 1, "loss": null, "smoothed": [], "learning_rate": 1, "steps_per_second": 1, '
        '"seconds_left": 1}',
        '{"event": "Validation", "step": 1, "loss": 1, "base_loss": 1, "bands": {"a": 1}}',
        '{"event": "Finished", "step": 1, "kept": 1, "message": "\\ud800"}',
        f'{{"event": "Warned", "step": {"9" * 4000}, "message": "x"}}',
        '{"event": {}, "step": 1}',
    ],
)
def test_an_event_that_holds_other_things_than_events_do_is_passed_over(run, line):
    (run / "events.jsonl").write_text(f"{EVENTS[1]}\n{line}\n{EVENTS[7]}\n")
    assert [type(event).__name__ for event in read_events(run)] == ["Started", "Warned"]
    assert Log(run).poll().warnings == [(2, "careful")]


@pytest.mark.parametrize("file", ["/etc/a.png", "../../a.png", "previews/../../a.png", "..\\a.png", "a\0.png", ""])
def test_a_preview_outside_its_run_is_not_shown(workspace, run, file):
    event = json.loads(EVENTS[4]) | {"file": file}
    (run / "events.jsonl").write_text(json.dumps(event) + "\n" + EVENTS[9] + "\n")
    assert Log(run).poll().previews == [] and summary.summary(workspace, "run").preview == ""


@pytest.mark.parametrize("line", [DEEP, '{"name": "run"}', "3", ""])
def test_what_is_kept_of_a_run_is_read_again_when_somebody_wrote_in_it(workspace, run, line):
    (run / "events.jsonl").write_text(EVENTS[2] + "\n" + EVENTS[9] + "\n")
    before = summary.summary(workspace, "run"), summary.course(workspace, "run")
    file = summary._file(workspace, "run")
    first, short, course = file.read_text().split("\n")
    for text in (f"{first}\n{line}\n{line}", f"{first}\n{short.replace('0.5', '[]')}\n{line}"):
        summary._seen.clear()
        file.write_text(text)
        assert (summary.summary(workspace, "run"), summary.course(workspace, "run")) == before
    outside = json.loads(short) | {"preview": "../../../secret.png"}
    summary._seen.clear()
    file.write_text(f"{first}\n{json.dumps(outside)}\n{course}")
    assert summary.summary(workspace, "run").preview == before[0].preview


def test_a_queue_nested_without_end_is_an_empty_queue(workspace):
    (workspace.root / "queue.json").write_text(DEEP)
    assert waiting(workspace) == []


def test_time_without_end_is_no_number():
    assert duration(math.inf) == duration(math.nan) == duration(-1.0) == "–" and duration(42.0) == "42 s"


def test_numbers_of_thousands_of_digits_in_run_toml_are_refused_in_a_line(tmp_path):
    for number in ("9" * 5000, "0x" + "f" * 6000):
        (tmp_path / "run.toml").write_text(f'[data]\nfolder = "x"\n[adapter]\nrank = {number}\n')
        with pytest.raises(ConfigError) as caught:
            config_from_toml(tmp_path / "run.toml")
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_a_setting_with_a_strange_name_is_named_in_a_line():
    with pytest.raises(ConfigError) as caught:
        config_from({"data.folder": "x", f"data.a\n{'x' * 4000}": 1})
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


# Images and prompts -----------------------------------------------------------------------------------------------


def test_spaces_without_end_take_no_time():
    with at_most(2):
        prompts.read_prompt("<" + " " * 300_000 + "x")
        read_parameters("a fish\nSteps: 20," + " " * 190_000 + "x")
        with pytest.raises(GenerationError):
            grids.parse_values("words", " " * 19_000 + "x")


def test_a_weight_too_large_for_a_number_leaves_the_words_behind_it_alone():
    found = prompts.parse(f"(red:{'9' * 400}) fish")
    assert [part.weight for part in found] == [prompts.MOST, 1.0]


def test_an_image_that_claims_too_many_pixels_has_no_recipe(tmp_path):
    for side in (60_000, 10_000):  # far too large; and a little, of which Pillow only warns
        (tmp_path / "a.png").write_bytes(bomb(side))
        assert contact_sheet.read_axes(tmp_path / "a.png") == ()
        with pytest.raises(GenerationError, match="can't be read|no recipe"):
            image_metadata.read_recipe(tmp_path / "a.png")
        contact_sheet.draw_contact_sheet([contact_sheet.Side("seed", "Seed", ("1",))], [tmp_path / "a.png"], (32, 32))


@pytest.mark.parametrize("number", ["Infinity", "1e999", "9" * 400, "NaN"])
def test_a_sheet_of_impossible_numbers_is_no_sheet(tmp_path, number):
    recipe = json.dumps(RECIPE).encode()
    for said in (f'"index": {number}, "values": [1]', f'"index": 0, "values": [{number}]'):
        axes = f'{{"axes": [{{"kind": "seed", {said}}}]}}'.encode()
        (tmp_path / "a.png").write_bytes(png_saying({image_metadata.KEY: recipe, contact_sheet.KEY: axes}))
        assert contact_sheet.read_axes(tmp_path / "a.png") == ()
    (tmp_path / "grid.json").write_text(
        '{"sides": [{"kind": "seed", "title": "", "labels": ["1"]}], "problems": {}, "size": [Infinity, 1]}'
    )
    assert contact_sheet.read_grid(tmp_path) is None


def test_a_recipe_that_began_from_an_image_of_an_endless_name_says_that_it_is_not_here(workspace):
    for name in ("x" * 5000, "é" * 200):
        recipe = json.dumps(RECIPE | {"source": f"{name}.png", "mask": f"{name}.png"}).encode()
        (workspace.outputs / "a.png").write_bytes(png_saying({image_metadata.KEY: recipe}))
        values, _, problems = generation.restored(workspace, workspace.outputs / "a.png")
        assert "source" not in values and any("is not here" in line and len(line) < 400 for line in problems)


def test_large_seeds_and_words_with_arrows_come_back_from_a_sheet_as_they_were():
    for kind, values in (("seed", (2**62 + 1, 12345678901)), ("words", ("a → b", "c, d")), ("words", ("x->y", "z"))):
        assert grids.parse_values(kind, grids.values_text(kind, values)) == values
    assert grids.parse_values("words", "red → green, blue") == ("red", "green", "blue")


# Datasets -----------------------------------------------------------------------------------------------------------


def test_a_mark_of_the_byte_order_in_a_caption_is_taken_out_before_it_is_written(tmp_path):
    set_caption(tmp_path / "a.png", "\ufeffred\ufeff fish")
    assert read_caption(tmp_path / "a.png") == "red fish"


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_is_told_in_a_line_that_a_page_can_hold(workspace, tmp_path):
    (tmp_path / "set").mkdir()
    for name in (b"caf\xe9.png", b"good.png"):
        Image.new("RGB", (8, 8)).save(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"set", name)))
    line = "caf?.png: its name is not written in UTF-8, rename it."
    dataset = open_dataset(tmp_path / "set")
    assert [item.path.name for item in dataset.items] == ["good.png"] and dataset.problems == [line]
    assert line in import_images(workspace, "copy", [tmp_path / "set"])[1]


def test_a_history_of_half_characters_or_of_endless_numbers_is_passed_over(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    entry = {"id": 1, "time": "", "label": "x", "author": "", "kind": "change"}
    entry |= {"captions": {}, "moved": {}, "gains": {}, "losses": {}}
    strange = [entry | {"label": "\ud800"}, entry | {"id": 10**4000}, entry | {"captions": {"\udcff.png": ["a", "b"]}}]
    (tmp_path / ".studio").mkdir()
    (tmp_path / ".studio" / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in strange))
    assert history(open_dataset(tmp_path)) == []


def test_a_home_that_nobody_has_is_a_folder_that_is_not_there(workspace):
    with pytest.raises(BaseModelError, match="no base model"):
        base_folder("~nobody-here/model")
    with pytest.raises(BaseModelError):
        base_models.inspect_base(base_models.line_from(workspace, "~nobody-here/model", {}))
    job = datasets.start_import(workspace, "x", [], "~nobody-here/images")
    job.wait()
    assert "can't be read" in job.error


# Base models and adapters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [["StableDiffusionPipeline"], {}, None, "x" * 5000, 3])
def test_a_model_index_that_names_no_pipeline_is_refused_in_a_line(tmp_path, said):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": said}))
    with pytest.raises(BaseModelError) as caught:
        family_class(tmp_path)
    assert len(str(caught.value)) < 300


def test_a_model_index_that_is_a_list_lacks_everything(tmp_path):
    (tmp_path / "model_index.json").write_text("[1]")
    assert missing_parts(tmp_path)


@pytest.mark.parametrize(
    "file, key, value",
    [
        ("vae/config.json", "block_out_channels", 4), ("unet/config.json", "sample_size", "16"),
        ("unet/config.json", "block_out_channels", None), ("scheduler/scheduler_config.json", "prediction_type", "x"),
        ("unet/config.json", "sample_size", 10**30),
    ],
)  # fmt: skip
def test_settings_of_a_base_that_can_not_be_are_refused_in_a_line(tmp_path, file, key, value):
    from studio.workspace import ASSETS

    for name in ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"):
        values = json.loads((ASSETS / "starter" / name).read_text())
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values | {key: value} if name == file else values))
    with pytest.raises(BaseModelError, match="can't be read"):
        describe_base(str(tmp_path))


def test_tensors_of_a_checkpoint_without_a_width_are_no_base():
    with pytest.raises(BaseModelError, match="can't be used as a base model"):
        kind_of({"model.diffusion_model.input_blocks.0.0.weight": (4,)}, "x")
    known = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "a.attn2.to_k.weight": (4,)}
    assert kind_of(known, "x").title == "Stable Diffusion 1"


def test_a_revision_is_one_word():
    with pytest.raises(BaseModelError, match="revision"):
        BaseChoice.of("owner/name@a\nb")


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 3000 + ")" * 3000, 3, "(?P<"])
def test_a_pattern_of_layers_that_is_none_is_refused_in_a_line(pattern):
    with pytest.raises(AdapterError, match="not a regular expression") as caught:
        AdapterSpec(targets=(pattern,))
    assert len(str(caught.value)) < 300


# What is nobody's business ------------------------------------------------------------------------------------------


def test_a_token_that_is_none_is_never_sent(workspace, monkeypatch):
    from tests import hubs

    with hubs.serve({"art/gated": {}}, monkeypatch) as hub:
        for token in ("hf_secret\nx", "hf_secretä", "hf secret"):
            job = base_models.start_download(workspace, "art/gated", token)
            job.wait()
            assert "not a token" in job.error and "secret" not in job.error
        assert not hub.tokens


def test_folders_are_not_named_as_captioners_models_where_the_page_is_open_to_others(workspace):
    reached = Workspace(workspace.root, REACHED)
    settings = {"model": "/etc"}
    for begin in (
        lambda: captioning.caption_dataset(reached, "silhouette", captioner="wd", settings=settings),
        lambda: captioning.start_comparing(reached, "silhouette", [("wd", settings)], []),
        lambda: captioning.score_captions(reached, "silhouette", clip="/etc"),
    ):
        with pytest.raises(NotAllowedError, match="can't be typed here"):
            begin()
    assert captioner_settings("wd", {"model": "owner/name"})


def test_an_event_comes_back_as_it_was():
    for line in EVENTS:
        told = to_dict(from_dict(json.loads(line)))
        assert told == told | json.loads(line)
