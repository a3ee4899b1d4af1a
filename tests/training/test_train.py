"""A run from config to adapter, on the starter model and real images."""

import itertools
import json
import shutil
import threading

import pytest
import torch

from studio.adapters import read_adapter
from studio.errors import BaseModelError, ConfigError, DatasetError, RunError
from studio.training import config_from, config_from_toml, config_to_toml, list_runs, read_run, train
from studio.training.config import RunConfig
from studio.training.selection import split
from studio.training.validation import Validator
from studio.workspace import ASSETS
from tests import tiers

QUICK = {
    "data.folder": str(ASSETS / "datasets" / "silhouette"),
    "adapter.rank": 4,
    "training.steps": 6,
    "training.batch_size": 2,
    "training.checkpoint_every": 2,
    "preview.every": 0,
    "validation.every": 0,
}
LOOKING = {"preview.every": 3, "preview.steps": 2, "preview.prompts": ["rocket"], "validation.every": 3}


def weights(path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_a_run_leaves_everything_it_said_in_its_folder(workspace):
    kinds = [type(event).__name__ for event in train(config_from(QUICK | LOOKING | {"name": "first"}), workspace)]
    assert kinds[-1] == "Finished" and kinds.count("Step") == 6
    assert kinds.index("Started") < kinds.index("Step")
    view = read_run(workspace, "first")
    assert view.state == "finished" and view.step == view.steps == 6 and len(view.losses) == 6
    assert [step for step, _, _ in view.previews] == [0, 3, 6] and all(file.is_file() for _, _, file in view.previews)
    assert [step for step, _, _ in view.validation] == [0, 3, 6] and len({base for _, _, base in view.validation}) == 1
    assert view.adapter and any(
        value.abs().sum() > 0 for key, value in weights(view.adapter).items() if "lora_B" in key
    )
    assert list_runs(workspace) == ["first"]
    said = read_adapter(view.adapter).metadata
    assert said["studio.run"] == said["ss_output_name"] == "first" and int(said["ss_num_train_images"]) > 0
    assert float(said["studio.base_loss"]) == pytest.approx(view.validation[0][2], abs=1e-5)
    assert "background" in said["ss_tag_frequency"]


@pytest.mark.parametrize("kind", tiers.default(["dora", "tucker", "loha", "lokr"]))
def test_every_kind_of_adapter_trains_and_its_file_is_read_back_whole(workspace, quick, kind):
    config = quick | {"name": kind, "adapter.kind": kind, "training.steps": 2}
    for _ in train(config_from(config), workspace):
        pass
    view = read_run(workspace, kind)
    assert view.state == "finished" and view.adapter
    file = read_adapter(view.adapter)
    assert len(file.kinds) <= 2 and not file.unknown  # Tucker is plain LoRA on layers without a window


@pytest.mark.full
def test_base_model_on_disk_and_in_memory_stays_as_it_was(workspace):
    from studio.basemodels import load_base

    shared = load_base().modules()["unet"]
    before = {key: value.clone() for key, value in shared.state_dict().items()}
    for _ in train(config_from(QUICK | {"name": "kept", "training.steps": 2}), workspace):
        pass
    for after in (shared.state_dict(), load_base("starter", shared=False).modules()["unet"].state_dict()):
        assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def test_a_name_taken_is_refused_and_the_run_there_is_kept(workspace, quick):
    for _ in train(config_from(quick | {"name": "mine", "training.steps": 1}), workspace):
        pass
    before = (workspace.runs / "mine" / "events.jsonl").read_text()
    with pytest.raises(RunError, match="already"):
        list(train(config_from(quick | {"name": "mine"}), workspace))
    assert (workspace.runs / "mine" / "events.jsonl").read_text() == before


def test_an_empty_folder_is_said_before_anything_is_made(workspace, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="No images"):
        list(train(config_from(QUICK | {"data.folder": str(tmp_path / "empty")}), workspace))
    assert list_runs(workspace) == []


def test_images_left_out_of_any_folder_of_the_run_are_named(workspace, tmp_path):
    folders = {"data.folder": "mine", "data.held_out": "held", "data.regularisation": "plain"}
    for key, name in folders.items():
        shutil.copytree(ASSETS / "datasets" / "silhouette", tmp_path / name)
        (tmp_path / name / f"{name}-broken.png").write_bytes(b"no image")
        folders[key] = str(tmp_path / name)
    warned = " ".join(split(config_from(QUICK | folders)).warnings)
    assert all(f"Left out: {name}-broken.png" in warned for name in ("mine", "held", "plain"))


def test_a_torn_last_line_of_the_events_is_passed_over(workspace, quick):
    for _ in train(config_from(quick | {"name": "torn", "training.steps": 2}), workspace):
        pass
    with (workspace.runs / "torn" / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({"event": "Step", "step": 3})[:-4])
    assert read_run(workspace, "torn").state == "finished"


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("adapter.rank", 0, "adapter.rank: must be at least 1 (you gave 0)"),
        ("training.learning_rate", "abc", "training.learning_rate: must be a number (you gave 'abc')"),
        ("training.steps", "2.5", "training.steps: must be a whole number"),
        ("training.stepz", "2", "training.stepz: is not a setting"),
        ("training.learning_rate", "nan", "training.learning_rate: must be"),
    ],
)
def test_a_wrong_setting_is_said_in_one_line(key, value, words):
    with pytest.raises(ConfigError) as caught:
        config_from(QUICK | {key: value})
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_settings_survive_the_file(tmp_path):
    config = config_from(QUICK | {"name": "ünder / way", "data.trigger": 'in"k'})
    (tmp_path / "run.toml").write_text(config_to_toml(config), encoding="utf-8")
    assert config_from_toml(tmp_path / "run.toml") == config


def test_every_setting_explains_itself():
    def walk(model):
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                yield from walk(field.annotation)
            else:
                yield name, field

    assert all(field.description for _, field in walk(RunConfig))


def test_a_base_that_is_not_there_is_said_before_anything_is_made(workspace):
    with pytest.raises(BaseModelError, match="no base model"):
        list(train(config_from(QUICK | {"name": "x", "base": "nosuch"}), workspace))
    assert list_runs(workspace) == []


def test_an_optimiser_that_is_not_there_is_said_before_anything_is_made(workspace):
    with pytest.raises(ConfigError, match="adamw-8bit needs"):
        list(train(config_from(QUICK | {"name": "x", "training.optimizer": "adamw-8bit"}), workspace))
    assert list_runs(workspace) == []


@pytest.mark.full
def test_a_resumed_run_remembers_its_best_from_before_the_stop(workspace, quick, monkeypatch):
    rising, measure = itertools.count(1), Validator.measure
    monkeypatch.setattr(Validator, "measure", lambda self: next(rising) * measure(self))  # each worse than the last
    settings = {"name": "best", "training.steps": 8, "validation.every": 3, "validation.fraction": 0.05}
    config = config_from(quick | settings)
    stop = threading.Event()
    for event in train(config, workspace, stop=stop):
        if type(event).__name__ == "Step" and event.step == 4:
            stop.set()
    folder = workspace.runs / "best"
    *_, last = train(config, workspace, folder=folder)
    measured = {step: loss for step, loss, _ in read_run(workspace, "best").validation if step}
    assert last.kept == min(measured, key=measured.get) == 3, "the best is from before the stop"
    assert read_adapter(folder / "adapter.safetensors").metadata["studio.step"] == str(last.kept)


def test_each_of_kohyas_folders_is_told_with_its_own_repeats_count_and_tags(workspace, quick):
    data = workspace.datasets / "set"
    files = sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))
    tags = {"10_ink cat/a.png": "cat", "10_ink cat/b.png": "cat", "3_dog/a.png": "dog", "c.png": "hat"}
    for name, tag in tags.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files.pop(), data / name)
        (data / name).with_suffix(".txt").write_text(f"{tag}, ink")
    settings = {"name": "told", "data.folder": str(data), "data.repeats": 2, "training.steps": 1}
    list(train(config_from(quick | settings), workspace))
    said = read_adapter(workspace.runs / "told" / "adapter.safetensors").metadata
    assert json.loads(said["ss_dataset_dirs"]) == {
        "10_ink cat": {"n_repeats": 20, "img_count": 2}, "3_dog": {"n_repeats": 6, "img_count": 1},
        "set": {"n_repeats": 2, "img_count": 1},
    }  # fmt: skip
    assert json.loads(said["ss_tag_frequency"]) == {
        "10_ink cat": {"cat": 2, "ink": 2}, "3_dog": {"dog": 1, "ink": 1}, "set": {"hat": 1, "ink": 1},
    }  # fmt: skip
