"""What is dropped on the page is recognized by what it is."""

import zipfile
from dataclasses import replace

import pytest
from PIL import Image

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.errors import ConfigError
from studio.generation import Recipe, save_image
from studio.server.permissions import Capabilities
from studio.services import datasets, drops
from studio.training.config import config_from, config_to_toml
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def image(path):
    Image.new("RGB", (64, 64), "red").save(path)
    return path


def test_each_file_of_a_drop_is_recognized(workspace, tmp_path, small_starter):
    attach(load_base(shared=False).model, AdapterSpec(rank=2)).save(tmp_path / "ink.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"\0" * 50)
    (tmp_path / "what.exe").write_bytes(b"MZ")
    (tmp_path / "run.toml").write_text("")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    drawn = [image(tmp_path / "a.png"), image(tmp_path / "b.jpg")]
    (tmp_path / "a.txt").write_text("a red square")
    found = drops.sort_files(workspace, sorted(path for path in tmp_path.iterdir() if path.is_file()))
    assert found.adapters == ["file:ink.safetensors"] and found.settings.name == "run.toml" and found.recipe is None
    assert found.for_dataset == [*drawn, tmp_path / "set.zip", tmp_path / "a.txt"]
    assert [text.split()[0] for text in found.problems] == ["noise.safetensors", "what.exe:"]


def test_an_image_alone_gives_its_recipe_and_one_without_is_asked_about(workspace, tmp_path):
    made = save_image(Image.new("RGB", (64, 64)), Recipe(prompt="x", seed=4), tmp_path)
    assert drops.sort_files(workspace, [made]).recipe == made
    plain = image(tmp_path / "plain.png")
    found = drops.sort_files(workspace, [plain])
    assert found.recipe is None and found.for_dataset == [plain]
    assert drops.sort_files(workspace, [made, plain]).for_dataset == [made, plain]  # several are a dataset


def test_captions_without_images_are_left_out_aloud(workspace, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    found = drops.sort_files(workspace, [tmp_path / "a.txt"])
    assert not found.for_dataset and "without images" in found.problems[0]


def test_settings_of_elsewhere_name_no_folder_of_this_machine(workspace, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(config_to_toml(config_from({"data.folder": str(tmp_path), "adapter.rank": 5, "base": "/secret"})))
    values, notes = drops.dropped_settings(workspace, file)
    assert values["adapter.rank"] == 5 and values["dataset"] == "" and values["base"] == "" and notes == []
    file.write_text("network_dim = 6")  # as another program writes it: it names no folder
    values, notes = drops.dropped_settings(workspace, file)
    assert values["adapter.rank"] == 6 and values["dataset"] == "" and "network_dim" in notes[0]


def test_a_visitors_settings_read_no_other_file(tmp_path):
    workspace = replace(Workspace.open(tmp_path / "workspace"), allows=Capabilities(folders=False))
    file = tmp_path / "run.toml"
    for key in ("dataset_config", r'"dataset\u005fconfig"'):
        file.write_text(f'{key} = "/etc/passwd"')
        with pytest.raises(ConfigError, match="names a dataset_config"):
            drops.dropped_settings(workspace, file)
    file.write_text(f"{'.'.join(['a'] * 90_000)} = 1")  # Python's reader would take a minute
    with pytest.raises(ConfigError, match="more than 1,000 dots"):
        drops.dropped_settings(workspace, file)
    file.write_text("x" * 200_001)
    with pytest.raises(ConfigError, match="too long"):
        drops.dropped_settings(workspace, file)


def test_a_new_dataset_is_called_like_its_zip(workspace, tmp_path):
    assert datasets.new_name(workspace, paths=[tmp_path / "cats.zip"]) == "cats"
    (workspace.datasets / "cats").mkdir()
    assert datasets.new_name(workspace, paths=[tmp_path / "cats.zip"]) == "cats-2"
    assert datasets.new_name(workspace, paths=[tmp_path / "a.png"]) == "my-images"


def test_a_restored_recipe_says_what_it_restored():
    values = {"prompt": "x", "seed": 7, "steps": 20, "guidance": 4.5, "width": 128, "height": 64, "base": "starter"}
    text = drops.restored_text("x.png", values, [{"key": "file:ink.safetensors", "strength": 0.8}])
    assert text == (
        "Restored from x.png: prompt, seed 7, 20 steps, guidance 4.5, 128 × 64, base model starter, ink at 0.8."
    )
