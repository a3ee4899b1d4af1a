"""The form of a run: nothing of RunConfig is out of reach, and what is shown is what will happen."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from studio.errors import StudioError
from studio.services import run_data, runs
from studio.services.datasets import open_named
from studio.services.preview_lines import preview_line, suggested_for
from studio.training.config import config_from, dotted
from studio.training.presets import PRESETS
from studio.training.setting_groups import FIRST, GROUPS, LABELS, search_text
from studio.web.train.run_html import preview_grid
from studio.web.train.settings_panel import search_html
from studio.web.train.values import as_shown, defaults, standard_of, typed
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def test_every_setting_has_a_field():
    outside = {"name", "data.folder"}  # asked for by other fields
    assert set(LABELS) | outside == set(dotted(config_from({"data.folder": "x"})))


def test_each_setting_is_above_the_panel_or_in_one_group():
    grouped = [key for group in GROUPS for key in group.settings]
    assert Counter([*grouped, *FIRST, "base"]) == Counter(LABELS.keys())


@pytest.mark.parametrize(
    "text, key",
    [
        ("min-snr", "training.min_snr_gamma"),  # the label
        ("learning_rate", "training.learning_rate"),  # the key
        ("horizontal flip", "data.flip"),  # the description
        ("prodigy", "training.optimizer"),  # a choice
        ("network_dim", "adapter.rank"),  # kohya's name
        ("train_batch_size", "training.batch_size"),  # a name that is refused, since it means something else
    ],
)
def test_a_setting_is_found_by_what_people_call_it(text, key):
    assert text in search_text(key)
    assert sum(text in search_text(other) for other in LABELS) < 4


def test_the_search_knows_every_field_and_escapes_its_index():
    html = search_html()
    assert all(f"&quot;{key}&quot;" in html for key in LABELS) and '["' not in html


def test_an_untouched_form_differs_in_nothing_from_its_preset(workspace):
    first = next(iter(runs.list_presets(workspace).values()))
    standard = standard_of(first)
    assert standard == {key: as_shown(key, (defaults() | first)[key]) for key in standard}
    assert set(LABELS) - set(standard) == {"base", "data.trigger", "preview.prompts"}


@pytest.mark.parametrize("name", list(PRESETS))
def test_what_stands_in_the_fields_is_read_back_as_it_was(name):
    wanted = dotted(config_from({"data.folder": "x"} | PRESETS[name]))
    fields = [as_shown(key, wanted[key]) for key in LABELS]
    values = typed("x", "", *fields)
    assert dotted(config_from({"data.folder": values.pop("dataset"), **values})) == wanted


def test_untouched_form_is_the_first_preset(workspace):
    first = next(iter(runs.list_presets(workspace).values()))
    assert config_from({"data.folder": "x"} | defaults() | first) == config_from({"data.folder": "x"})


def test_folders_are_named_never_given_as_paths(workspace):
    for key in runs.FOLDERS:
        with pytest.raises(StudioError, match="not the name of a dataset"):
            runs.config_of(workspace, {"dataset": "silhouette", key: "/etc"})
        config = runs.config_of(workspace, {"dataset": "silhouette", key: "pixel"})
        assert dotted(config)[key] == str(workspace.datasets / "pixel")


def test_copied_settings_name_datasets_and_pass_over_other_folders(workspace):
    from studio.training import new_run

    values = {"dataset": "silhouette", "data.held_out": "pixel", "adapter.rank": 3, "name": "one"}
    config = runs.config_of(workspace, values)
    new_run(config, workspace)
    copied = runs.run_settings(workspace, "one")
    assert (copied["dataset"], copied["data.held_out"], copied["adapter.rank"]) == ("silhouette", "pixel", 3)
    other = config.model_copy(update={"name": "two", "data": config.data.model_copy(update={"held_out": "/tmp"})})
    (workspace.runs / "two").mkdir()
    from studio.training import config_to_toml

    (workspace.runs / "two" / "run.toml").write_text(config_to_toml(other), encoding="utf-8")
    assert runs.run_settings(workspace, "two")["data.held_out"] == ""


@pytest.mark.parametrize("values", [{}, {"data.resolution": 512}, {"data.buckets": False}, {"data.upscale": True}])
def test_the_crops_that_are_drawn_are_those_that_the_trainer_makes(workspace, values):
    from studio.basemodels import load_base
    from studio.datasets import open_dataset
    from studio.training.cache import Cache
    from studio.training.examples import list_examples

    folder = workspace.datasets / "mine"
    folder.mkdir()
    for number, size in enumerate([(128, 128), (300, 150), (90, 400), (1000, 800), (60, 60)]):
        Image.new("RGB", size, "red").save(folder / f"{number}.png")
    crops, counts = run_data.crops_of(workspace, "mine", values)
    base = load_base("starter")
    config = runs.config_of(workspace, {"dataset": "mine"} | values)
    examples, problems = list_examples(open_dataset(folder).items, base, Cache(workspace.cache), config.data, 0)
    assert all(line.startswith("Left out: 4.png") for line in problems)  # as small as no bucket, and not drawn either
    assert [crop.frame for crop in crops] == [example.frame for example in examples]
    assert counts == Counter(example.frame.size for example in examples)


def test_previews_grow_from_the_base_at_the_left_to_the_right():
    small = [("apple", [(0, Path("a.webp")), (200, Path("b.webp"))]), ("fish & chips", [(200, Path("c.webp"))])]
    html = preview_grid(small, {(0, "apple"): "000000-0", (200, "apple"): "000200-0"}, str)
    head = [one.partition("<")[0] for one in html.split('scope="col">')[1:]]
    assert head == ["Base", "200"] and html.index("a.webp") < html.index("b.webp")
    assert 'data-arg="000200-0"' in html and "fish &amp; chips" in html and html.count("no-image") == 1
    assert preview_grid([], {}) == ""


def test_untouched_prompts_become_the_datasets_with_its_trigger(workspace):
    untouched = "\n".join(config_from({"data.folder": "x"}).preview.prompts)
    found = suggested_for(workspace, "silhouette", "zsk", "starter", untouched).splitlines()
    captions = {item.caption for item in open_named(workspace, "silhouette").items}
    assert len(found) == 4 and all("zsk" in line for line in found)
    assert sum(line.removeprefix("zsk, ") in captions or line in captions for line in found) == 2
    assert suggested_for(workspace, "silhouette", "zsk", "starter", "my own prompt") is None


def test_a_preview_line_is_written_by_the_form_or_refused_in_a_sentence():
    numbers = {"width": "768", "height": "", "seed": "7", "guidance": "", "steps": "", "strength": "-1"}
    assert preview_line(" a  cat", "dog", numbers) == "a cat --n dog --w 768 --d 7 --am -1"
    with pytest.raises(StudioError, match="width: must be at least 64"):
        preview_line("a", "", {"width": "1"})
    with pytest.raises(StudioError, match="prompt is empty"):
        preview_line(" ", "", {})


def test_variants_of_images_and_captions_are_shown(workspace):
    from studio.web.train.crops import crops

    given = {"data.rotation": 5, "data.augmentations": 2, "data.tag_dropout": 0.5, "data.more_resolutions": [96]}
    said, cells = crops(workspace, "silhouette", given)
    assert "96 × 96" in said and "is drawn with" in said
    variants = [(file, label) for file, label in cells if label.startswith("variant")]
    assert len(variants) * 3 == len(cells) * 2 and all("turned" in label for _, label in variants)
    with Image.open(variants[0][0]) as one, Image.open(variants[1][0]) as other:
        assert one.size == other.size and one.tobytes() != other.tobytes()


def test_the_folder_table_escapes_what_a_person_typed():
    from studio.training.folder_table import FolderRow
    from studio.web.train.views import folder_table

    table = folder_table([FolderRow("cats", 20, 2, 0.75, 1.5, "<b>")])
    assert "75.0%" in table and "1.5 ×" in table and "2 more held out" in table and "&lt;b&gt;" in table
