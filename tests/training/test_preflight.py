"""The pre-flight: what will hurt is said before the run, with figures from real steps."""

import shutil

import pytest
import torch

from studio.basemodels import StableDiffusion
from studio.cli.main import main
from studio.errors import DatasetError, RunError
from studio.training import config_from
from studio.training import preflight as module
from studio.training.preflight import as_text, preflight
from studio.training.presets import PRESETS, preset
from studio.training.selection import split
from studio.workspace import ASSETS


@pytest.fixture
def messy(tmp_path):
    """Six images: one twice, one without caption, one with a caption far too long, one broken."""
    folder = tmp_path / "messy"
    folder.mkdir()
    for file in sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))[:5]:
        shutil.copy(file, folder / file.name)
        (folder / file.name).with_suffix(".txt").write_text(f"{file.stem}, on a red background")
    names = sorted(path.name for path in folder.glob("*.png"))
    shutil.copy(folder / names[0], folder / "zz-twin.png")
    (folder / names[1]).with_suffix(".txt").unlink()
    (folder / names[2]).with_suffix(".txt").write_text("cat " * 100 + "and a hidden ending")
    (folder / "broken.png").write_bytes(b"no image")
    return folder, names


def test_a_messy_folder_is_told_all_at_once(workspace, quick, messy):
    folder, names = messy
    changes = {"data.folder": str(folder), "training.batch_size": 4, "data.max_token_length": 75}
    report = preflight(config_from(quick | changes), workspace)
    said = "\n".join(finding.message for finding in report.findings)
    assert "broken.png" in said and "1 image is there twice, byte for byte" in said
    assert f"No caption: {names[1]}" in said
    assert f"of {names[2]}" in said and "hidden ending" in said
    assert "held out" in said and report.ready
    assert report.step_seconds > 0 and 0.1 < report.memory < report.available


def test_it_measures_real_steps_and_a_preview_and_leaves_no_run(workspace, quick):
    config = config_from(quick | {"preview.every": 3, "preview.steps": 2, "validation.every": 3})
    report = preflight(config, workspace)
    assert report.preview_seconds > 0 and report.total_seconds > 6 * report.step_seconds * 0.99
    assert list(workspace.runs.iterdir()) == []


def test_what_makes_a_run_fail_is_said_first_and_nothing_is_measured(workspace, quick):
    report = preflight(config_from(quick | {"training.optimizer": "adamw-8bit"}), workspace)
    assert not report.ready and report.step_seconds == 0
    assert any(f.level == "stop" and "adamw-8bit" in f.message for f in report.findings)


def test_settings_that_hurt_are_named(workspace, quick):
    changes = {"data.masks": True, "training.learning_rate": 0.5, "data.trigger": "zsk", "validation.every": 0}
    report = preflight(config_from(quick | changes), workspace)
    said = "\n".join(finding.message for finding in report.findings)
    for words in ("no image has an alpha channel", "very high", "'zsk' is missing in 24 captions", "held out"):
        assert words in said


def test_when_memory_runs_out_a_smaller_batch_with_the_same_images_is_proposed(workspace, quick, monkeypatch):
    predict = StableDiffusion.predict

    def small(self, noisy, t, conditions):
        if len(noisy) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return predict(self, noisy, t, conditions)

    monkeypatch.setattr(StableDiffusion, "predict", small)
    report = preflight(config_from(quick | {"training.batch_size": 8}), workspace)
    assert report.ready and report.proposal["training.gradient_checkpointing"] is True
    assert (report.proposal["training.batch_size"], report.proposal["training.accumulation"]) == (2, 4)
    assert "→ training.batch_size = 2" in as_text(report)


@pytest.mark.full
def test_a_device_that_is_too_small_for_anything_is_said(workspace, quick, monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda device: 0.001)
    report = preflight(config_from(quick), workspace)
    assert not report.ready and "does not fit" in report.findings[-1].message


def test_a_full_disk_is_said_before_the_run(workspace, quick, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    report = preflight(config_from(quick), workspace)
    assert not report.ready and "GB will be written" in report.findings[-1].message


def test_an_empty_folder_is_an_error(workspace, quick, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetError):
        preflight(config_from(quick | {"data.folder": str(tmp_path / "nothing")}), workspace)


def test_images_that_go_away_meanwhile_are_told_in_one_line(workspace, quick, tmp_path, monkeypatch):
    shutil.copytree(ASSETS / "datasets" / "silhouette", tmp_path / "going")

    def gone(*given):
        chosen = split(*given)
        shutil.rmtree(tmp_path / "going")
        return chosen

    monkeypatch.setattr(module, "split", gone)
    with pytest.raises(RunError, match=r"No image can be learned from. Left out: .* is gone."):
        preflight(config_from(quick | {"data.folder": str(tmp_path / "going")}), workspace)


def test_captions_that_are_all_the_same_and_lack_the_trigger_are_told_in_sentences(workspace, quick, tmp_path):
    folder = tmp_path / "same"
    shutil.copytree(ASSETS / "datasets" / "silhouette", folder)
    images = sorted(folder.glob("*.png"))
    for image in images:
        image.with_suffix(".txt").write_text("a thing")
    report = preflight(config_from(quick | {"data.folder": str(folder), "data.trigger": "zsk"}), workspace)
    said = [finding.message for finding in report.findings]
    assert f"{len(images)} images share the caption 'a thing'." in said
    assert f"'zsk' is missing in {len(images)} captions: it is put in front." in said


def test_a_broken_image_does_not_keep_masks_from_being_looked_for(workspace, quick, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(ASSETS / "datasets" / "silhouette", folder)
    whole = sorted(folder.glob("*.png"))[0]
    whole.write_bytes(whole.read_bytes()[:-200])
    report = preflight(config_from(quick | {"data.folder": str(folder), "data.masks": True}), workspace)
    assert any("no image has an alpha channel" in finding.message for finding in report.findings)


def test_check_prints_the_report_and_trains_nothing(workspace, capsys):
    folder = str(ASSETS / "datasets" / "silhouette")
    few = ["--set", "preview.every=0", "--set", "adapter.targets=attention"]
    assert main(["--workspace", str(workspace.root), "train", "--check", "--data", folder, *few]) == 0
    out = capsys.readouterr().out
    assert "s a step" in out and "Ready" in out and list(workspace.runs.iterdir()) == []


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_a_valid_run(name):
    config = config_from(preset(name) | {"data.folder": "x"})
    assert config.training.steps >= 100


@pytest.mark.full
def test_gradient_checkpointing_and_half_precision_train_on_a_cpu(workspace, quick):
    from studio.training import read_run, train

    losses = {}
    for name, changes in {
        "plain": {},
        "checkpointing": {"training.gradient_checkpointing": True},
        "bf16": {"training.precision": "bf16"},
    }.items():
        for _ in train(config_from(quick | changes | {"name": name, "training.steps": 4}), workspace):
            pass
        losses[name] = [loss for _, loss, _ in read_run(workspace, name).losses]
    assert losses["checkpointing"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.05) and losses["bf16"] != losses["plain"]
