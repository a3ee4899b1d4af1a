"""A run that goes on with other images: what is affected is measured anew and said, and nothing is compared across."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from studio.errors import RunError
from studio.training import config_from, read_run, train
from studio.training.checkpoints import newest
from studio.training.events import Finished, Validation, Warned
from studio.training.made_of import image_record, short
from studio.training.selection import split
from studio.workspace import Workspace, sha256_of
from tests.basemodels import tiny


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return tiny.save("sd1", tmp_path_factory.mktemp("base"))


def add(folder, *numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"number {number}")


@pytest.fixture
def begin(base_folder, tmp_path):
    """begin(steps, **settings): train the run "run" on tmp_path/images, from the start or on; returns its events."""
    workspace = Workspace.open(tmp_path / "workspace")

    def go(steps, **settings):
        folder = workspace.runs / "run"
        usual = {
            "name": "run",
            "base": str(base_folder),
            "data.folder": str(tmp_path / "images"),
            "training.steps": steps,
            "training.batch_size": 2,
            "training.warmup": 0,
            "training.checkpoint_every": 1,
            "adapter.rank": 2,
            "adapter.targets": "attention",
            "preview.every": 0,
            "validation.every": 1,
            "validation.fraction": 0.25,
        }
        config = config_from(usual | settings)
        return list(train(config, workspace, folder=folder if folder.exists() else None))

    go.workspace, go.images = workspace, tmp_path / "images"
    return go


def warned(events) -> str:
    return " ".join(event.message for event in events if isinstance(event, Warned))


def on_disk(folder) -> dict[str, str]:
    return {short(sha256_of(file)): file.name for file in folder.glob("*.png")}


def test_images_added_taken_away_and_put_back_never_mix_trained_and_held_out(begin, tmp_path):
    add(begin.images, *range(12))
    begin(2)
    run = begin.workspace.runs / "run"
    first = image_record(run)
    assert len(first.held_out) == 3 and len(first.trained) == 9 and not first.trained & first.held_out
    add(begin.images, 12, 13, 14, 15)
    events = begin(3)
    second = image_record(run)
    assert first.held_out < second.held_out and len(second.held_out) == 4 and first.trained <= second.trained
    assert "measured anew" in warned(events) and isinstance(events[-1], Finished)
    for number in (1, 5, 15):
        shutil.move(begin.images / f"{number:02}.png", tmp_path / f"{number:02}.png")
    third_events = begin(4)
    third = image_record(run)
    assert third.held_out <= second.held_out and not third.trained & third.held_out
    for number in (1, 5, 15):
        shutil.move(tmp_path / f"{number:02}.png", begin.images / f"{number:02}.png")
    events = begin(5)
    last = image_record(run)
    assert not last.trained & last.held_out and set(on_disk(begin.images)) == (last.trained | last.held_out)
    assert isinstance(third_events[-1], Finished) and isinstance(events[-1], Finished)
    assert "not those that this run began with" in warned(events)


@pytest.mark.full
def test_exchanged_held_out_images_are_measured_anew_and_the_best_is_compared_on_them_alone(begin):
    add(begin.images, *range(8))
    begin(3)
    held = [on_disk(begin.images)[one] for one in sorted(image_record(begin.workspace.runs / "run").held_out)]
    one, other = (begin.images / name for name in held)
    first, second = one.read_bytes(), other.read_bytes()
    before = newest(begin.workspace.runs / "run")["best"]
    one.write_bytes(second)
    other.write_bytes(first)
    events = begin(5)
    again = [event for event in events if isinstance(event, Validation)]
    assert "measured anew" in warned(events) and len({event.held_out for event in again}) == 1
    view = read_run(begin.workspace, "run")
    assert {look.held_out for look in view.validations} == {again[0].held_out}, "no older losses"
    assert [event.step for event in again] == sorted({before["step"], 3, 4, 5})
    best = newest(begin.workspace.runs / "run")["best"]
    assert best["loss"] == min(event.loss for event in again)


@pytest.mark.full
def test_nothing_changed_nothing_said(begin):
    add(begin.images, *range(8))
    events = begin(2)
    key = next(event.held_out for event in events if isinstance(event, Validation))
    assert key and "held out" not in warned(events)
    events = begin(3)
    assert "anew" not in warned(events) and "began with" not in warned(events)
    assert {event.held_out for event in events if isinstance(event, Validation)} == {key}
    assert [look.step for look in read_run(begin.workspace, "run").validations] == [0, 1, 2, 3]


@pytest.mark.full
def test_without_held_out_images_any_more_the_last_step_is_kept(begin):
    add(begin.images, *range(8))
    begin(2)
    events = begin(3, **{"validation.every": 0})
    assert "keeps its last step" in warned(events) and events[-1].kept == 3


@pytest.mark.full
def test_another_base_is_refused(begin, base_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    add(begin.images, *range(8))
    begin(2)
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    file = other / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"] += 0.5
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(RunError, match="began on other weights"):
        begin(3, base=str(other))


@pytest.mark.full
def test_another_vae_is_another_measure(begin, base_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    add(begin.images, *range(8))
    begin(2)
    shutil.copytree(base_folder / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["encoder.conv_in.bias"] += 0.5
    save_file(weights, file, {"format": "pt"})
    events = begin(3, base=f"{base_folder}?vae={tmp_path / 'vae'}")
    assert "The base model's files are not those" in warned(events) and "measured anew" in warned(events)


@pytest.mark.full
def test_masks_and_regularization_images_belong_to_what_a_run_is_made_of(begin, tmp_path):
    add(begin.images, *range(6))
    add(tmp_path / "kind", 20, 21)
    mask = begin.images / "00-masklabel.png"
    Image.new("L", (64, 64), 255).save(mask)
    more = {"data.masks": True, "data.regularisation": str(tmp_path / "kind"), "validation.every": 0}
    begin(1, **more)
    assert "began with" not in warned(begin(2, **more))
    Image.new("L", (64, 64), 9).save(mask)
    (tmp_path / "kind" / "21.png").unlink()
    said = warned(begin(3, **more))
    assert "The masks are not those" in said and "The regularization images are not those" in said
    assert "The images or their captions" not in said


@pytest.mark.parametrize("where", ["the same folder", "a folder of its own", "the regularization images"])
def test_an_image_that_is_trained_on_is_not_held_out_as_well(begin, tmp_path, where):
    add(begin.images, *range(8))
    settings = {"data.folder": str(begin.images), "validation.fraction": 0.25}
    chosen = split(config_from(settings), lambda item: sha256_of(item.path))
    held = [item.path for item in chosen.held_out]
    if where == "the same folder":
        trained = chosen.items[0].path
        trained.write_bytes(held[0].read_bytes())
    else:
        add(tmp_path / "more", 30)
        copy = held[0] if where == "the regularization images" else chosen.items[0].path
        shutil.copy(copy, tmp_path / "more" / "31.png")
        key = "data.regularisation" if where == "the regularization images" else "data.held_out"
        settings[key] = str(tmp_path / "more")
    again = split(config_from(settings), lambda item: sha256_of(item.path))
    contents = [
        {sha256_of(item.path) for item in part} for part in (again.items + again.regularization, again.held_out)
    ]
    assert not contents[0] & contents[1] and len(again.held_out) == 1
    assert any(line.startswith("Not held out: 1 image") for line in again.warnings)


@pytest.mark.full
def test_what_an_image_did_before_it_was_exchanged_is_not_counted_as_its_own(begin):
    add(begin.images, *range(4))
    off = {"validation.every": 0}
    begin(4, **off)
    run = begin.workspace.runs / "run"
    seen = {name: row[0] for name, row in json.loads((run / "images.json").read_text()).items()}
    shutil.copy(begin.images / "01.png", begin.images / "00.png")
    begin(5, **off)
    after = {name: row[0] for name, row in json.loads((run / "images.json").read_text()).items()}
    assert after.get("00.png", 0) <= 2 < seen["01.png"] + 1 and after["01.png"] >= seen["01.png"]
