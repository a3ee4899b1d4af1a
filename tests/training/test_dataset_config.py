"""kohya's dataset_config (docs/config_README-en.md of sd-scripts): what means the same is read, the rest is said."""

import pytest

from studio.errors import ConfigError
from studio.services import runs
from studio.training.config import config_from, resolved, values_from_toml

WHOLE = """
[general]
shuffle_caption = true
caption_extension = ".txt"
keep_tokens = 2
flip_aug = true

[[datasets]]
resolution = 512
batch_size = 4

  [[datasets.subsets]]
  image_dir = "/images/zsk"
  class_tokens = "zsk girl"
  num_repeats = 10

  [[datasets.subsets]]
  image_dir = "/images/back grounds"
  flip_aug = false
  caption_prefix = "photo of"

  [[datasets.subsets]]
  is_reg = true
  image_dir = "/images/girls"
  keep_tokens = 1
"""
SIZES = """
[[datasets]]
resolution = 512
  [[datasets.subsets]]
  image_dir = "a"
[[datasets]]
resolution = [768, 768]
  [[datasets.subsets]]
  image_dir = "a"
"""


def read(tmp_path, text: str) -> tuple:
    file, said = tmp_path / "dataset.toml", list[str]()
    file.write_text(text)
    return config_from(values_from_toml(file, said.append)), said


def test_subsets_become_folders_with_what_they_say(tmp_path):
    config, said = read(tmp_path, WHOLE)
    data = config.data
    assert data.folder == "/images/zsk" and data.regularisation == "/images/girls" and data.resolution == 512
    assert (data.shuffle_tags, data.keep_tags) == (True, 2)
    assert data.folders == [
        "/images/zsk repeats=10 flip=true caption=zsk girl",
        "/images/back grounds flip=false prefix=photo of",
    ]
    assert any(line.startswith("batch_size is not taken: it counts for each device") for line in said)
    assert any("regularization images are shown as often" in line for line in said)


def test_the_same_folders_at_several_resolutions_are_one_run(tmp_path):
    config, said = read(tmp_path, SIZES)
    assert (config.data.resolution, config.data.more_resolutions, config.data.folders) == (512, [768], [])
    assert any(line.startswith("2 resolutions: an epoch counts each image once") for line in said)


def test_it_is_named_among_other_settings_too(tmp_path):
    file = tmp_path / "dataset.toml"
    file.write_text(SIZES)
    values = resolved({"dataset_config": str(file), "data.resolution": 640})
    assert values["data.resolution"] == 640 and values["data.more_resolutions"] == [768]
    with pytest.raises(ConfigError, match="on the command line alone"):
        runs.config_of(None, {"dataset": "x", "dataset_config": str(file)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("batch_size = 4", "metadata_file = 'x'"), "metadata_file is not read here"),
        (("flip_aug = false", "keep_tokens = 0"), "keep_tokens differs between its subsets"),
        (("flip_aug = false", "color_aug = true"), "color_aug differs between its subsets"),
        (("num_repeats = 10", "num_repeats = 0"), "num_repeats of 'zsk' must be a whole number"),
        (("/images/zsk", "/images/5_zsk"), "'5_zsk' has repeats in its name"),
        (("resolution = 512", "resolution = [512, 768]"), "the side of a square"),
        (('image_dir = "/images/zsk"', ""), "names no image_dir"),
    ],
)
def test_what_means_something_else_is_refused_in_one_sentence(tmp_path, change, reason):
    with pytest.raises(ConfigError, match=f"dataset.toml: .*{reason}") as raised:
        read(tmp_path, WHOLE.replace(*change))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["datasets = 3", "[[datasets]]", "[general]\nx = 1\n[[datasets]]\nsubsets = [1]"])
def test_strange_files_are_errors_of_a_sentence(tmp_path, text):
    with pytest.raises(ConfigError, match="dataset.toml"):
        read(tmp_path, text)
