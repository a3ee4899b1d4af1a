"""A run as one file: what it holds, what is found to differ beforehand, and where a second run parts."""

import json
import shutil

import pytest

from studio.cli.main import main
from studio.errors import RunError
from studio.services.reruns import new_rerun
from studio.training import config_from, read_run_folder, rerun, train
from studio.training.config import config_from_whole, dotted
from studio.training.rerun import rerun_of
from studio.training.rerun_check import check
from studio.training.rerun_compare import compare, compared
from studio.workspace import ASSETS

RUN = {"name": "run", "data.trigger": "zsk", "validation.every": 2, "validation.scorecard": 0.0, "training.steps": 4}


@pytest.fixture
def made(workspace, quick, tmp_path):
    """(the images, the run's settings, what is exported of it)."""
    data = tmp_path / "elsewhere" / "mine"
    shutil.copytree(ASSETS / "datasets" / "silhouette", data)
    config = config_from(quick | RUN | {"data.folder": str(data)})
    for _ in train(config, workspace):
        pass
    return data, config, rerun_of(workspace.runs / "run")


def sentences(record, config, workspace) -> str:
    return " ".join(one.sentence for one in check(record, config, workspace))


def test_a_second_run_from_the_file_is_the_same_bit_for_bit(made, workspace, tmp_path):
    data, config, record = made
    rerun.write(tmp_path / "run.rerun.json", record)
    assert rerun.read(tmp_path / "run.rerun.json") == record
    text = (tmp_path / "run.rerun.json").read_text()
    assert str(tmp_path) not in text and str(data.parent) not in text and record.settings["data.folder"] == "mine"

    places = {"data.folder": str(data), "base": config.base, "name": "again"}
    again = config_from_whole(record.settings | places)
    assert dotted(again) == dotted(config) | places
    assert check(record, again, workspace) == []
    folder = new_rerun(workspace, record, again, anyway=False)
    assert compare(folder).sentence == "Nothing to compare with run yet."
    events = train(again, workspace, folder=folder)
    for event in events:
        if event.step == 2:
            break
    events.close()
    assert compare(folder).sentence == "The same as run so far, bit for bit: 2 of 4 steps."
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for _ in train(again, workspace, folder=folder):
        pass
    found = compare(folder)
    assert found.is_same and found.is_complete and found.weights
    assert found.sentence == "The same as run, bit for bit: 4 losses, 3 validations and the adapter's weights."

    expected = record.expected
    other = [(step, loss * (1 + 1e-6 * (step > 2))) for step, loss in expected.losses]
    parted = compared(record.model_copy(update={"expected": expected.model_copy(update={"losses": other})}), folder)
    assert not parted.is_same and parted.first.step == 3 and parted.last.step == 4
    assert parted.sentence.startswith("Parts from run at step 3: loss ") and "(−0.0001 %)" in parted.sentence
    weights = expected.model_copy(update={"tensors": "0" * 64})
    parted = compared(record.model_copy(update={"expected": weights}), folder)
    assert parted.sentence == "All 4 losses are those of run, bit for bit. The adapter's weights, of step 4, differ."


def test_what_differs_is_named_before_anything_is_trained(made, workspace, quick, tmp_path):
    data, config, record = made
    kept = tmp_path / "kept"
    shutil.copytree(data, kept)
    trained = sorted(record.made_of.files["trained"])
    (data / trained[0]).unlink()
    assert sentences(record, config, workspace) == f"1 image missing: {trained[0]}."
    shutil.copy(kept / trained[0], data / "other.png")
    assert f"Other names, which change the order: {trained[0]} is called other.png here." in sentences(
        record, config, workspace
    )
    (data / "other.png").unlink()
    shutil.copy(kept / trained[0], data)
    (data / trained[1]).with_suffix(".txt").write_text("other words")
    shutil.copy(kept / trained[3], data / trained[2])
    found = sentences(record, config, workspace)
    assert f"1 image with another caption: {trained[1]}." in found
    assert f"1 image with other content: {trained[2]}." in found
    with pytest.raises(RunError, match=r"It can't be the same run\. 1 image with other content"):
        new_rerun(workspace, record, config.model_copy(update={"name": "again"}), anyway=False)
    assert not (workspace.runs / "again").exists()

    made_of = record.made_of.model_copy(update={"weights": "1" * 64, "device": "Abacus, fp32"})
    made_of = made_of.model_copy(update={"versions": made_of.versions | {"torch": "0.1"}})
    others = check(record.model_copy(update={"made_of": made_of}), config, workspace)
    said = {one.what: one for one in others}
    assert said["base"].decides and not said["versions"].decides and not said["device"].decides
    assert "torch 0.1 there" in said["versions"].sentence and "Abacus, fp32 there" in said["device"].sentence
    older = record.made_of.model_copy(update={"files": {}})
    assert "did not say which" in sentences(record.model_copy(update={"made_of": older}), config, workspace)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "lora-studio rerun"}', "[" * 100_000, '{"format": "other"}', "\x00"],
)
def test_what_is_no_such_file_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RunError, match=r"x\.json is no file of"):
        rerun.read(tmp_path / "x.json")


def test_a_file_of_more_values_than_any_run_writes_is_not_parsed(tmp_path, monkeypatch):
    """100 MB of empty lists once took 3.5 GB."""
    whole = {"format": "lora-studio rerun", "version": 1, "name": "x", "made_of": {}, "expected": {}}
    (tmp_path / "x.json").write_text(json.dumps(whole | {"settings": {"x": [[]] * 2000}}))
    assert rerun.read(tmp_path / "x.json").name == "x"
    monkeypatch.setattr(rerun, "MOST_VALUES", 3000)
    with pytest.raises(RunError, match="holds more than any run writes"):
        rerun.read(tmp_path / "x.json")
    with pytest.raises(RunError, match="at most 1.0 kB here"):
        rerun.read(tmp_path / "x.json", most=1000)


def test_a_file_of_a_newer_version_says_so(tmp_path):
    whole = {"format": "lora-studio rerun", "version": 99, "name": "x", "settings": {}, "made_of": {}, "expected": {}}
    (tmp_path / "x.json").write_text(json.dumps(whole))
    with pytest.raises(RunError, match="newer version"):
        rerun.read(tmp_path / "x.json")


def test_the_command_says_what_differs_and_what_came_of_it(made, workspace, tmp_path, capsys):
    data, config, record = made
    file = tmp_path / "run.rerun.json"
    rerun.write(file, record)
    given = ["reproduce", str(file), "--data", str(data), "--base", config.base, "--workspace", str(workspace.root)]
    assert main([*given, "--dry-run"]) == 0
    assert "are those of the run" in capsys.readouterr().err
    assert main([*given, "--name", "twin"]) == 0
    assert capsys.readouterr().out.startswith("The same as run, bit for bit: 4 losses")
    assert read_run_folder(workspace.runs / "twin").state == "finished"
    next(data.glob("*.txt")).write_text("another")
    assert main([*given, "--dry-run"]) == 2 and "another caption" in capsys.readouterr().err
    assert main(given) == 2 and "train it anyway" in capsys.readouterr().err
    assert main([*given, "--set", "training.steps=3"]) == 2
    assert "is no place of a run" in capsys.readouterr().err
