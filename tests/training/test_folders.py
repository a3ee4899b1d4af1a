"""Several dataset folders in one run: what a line means, what each folder's share becomes, what follows from it."""

import json
from collections import Counter

import pytest
from PIL import Image

from studio.errors import ConfigError, DatasetError, StudioError
from studio.services import run_data, runs
from studio.training import config_from, config_from_toml, config_to_toml
from studio.training.batch_sampler import BatchSampler
from studio.training.config_sections import DataConfig
from studio.training.folder_table import folder_rows
from studio.training.folders import DatasetFolder, parse, triggers_of, written
from studio.training.length import with_steps
from studio.training.publishing import without_paths
from studio.training.selection import split
from studio.training.shares import whole_numbers
from tests.training.test_batch_sampler import example


@pytest.fixture
def folders(tmp_path):
    """Two folders, of 6 and 3 images with the same names."""
    for name, count, start in (("cats", 6, 0), ("dogs", 3, 50)):
        place = tmp_path / name
        place.mkdir()
        for number in range(count):
            Image.new("RGB", (64, 64), (start + number, 0, 0)).save(place / f"{number}.png")
            (place / f"{number}.txt").write_text(f"a {name[:-1]}")
    return tmp_path


def config(folders, *lines, **settings):
    given = {"data.folder": str(folders / "cats"), "data.folders": list(lines), "validation.every": 0}
    return config_from(given | settings)


def test_a_line_is_read_and_written_alike():
    line = "/my images/cats and dogs weight=2 repeats=3 trigger=zsk flip=true prefix=photo of a suffix=, sharp"
    one = parse(line)
    assert one == DatasetFolder("/my images/cats and dogs", 2.0, 3, "zsk", True, "photo of a", ", sharp")
    assert parse(written(one)) == one and parse("x trigger=").trigger == "" and parse("x") == DatasetFolder("x")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("weight=2", "names no folder"),
        ("cats weight=0", "above 0, at most 1000"),
        ("cats weight=nan", "holds no number"),
        ("cats repeats=1.5", "whole number from 1 to 1,000"),
        ("cats repeats=x", "holds no number"),
        ("cats flip=perhaps", "true or false"),
        ("cats wieght=2", "wieght= is not one of weight="),
        ("cats weight=1 weight=2", "stands twice"),
    ],
)
def test_a_bad_line_is_reported_in_one_sentence(line, reason):
    with pytest.raises(ConfigError, match=f"in data.folders, .*{reason}") as raised:
        config_from({"data.folder": "x", "data.folders": [line]})
    assert len(str(raised.value).splitlines()) == 1


def test_a_folder_in_another_or_twice_is_refused(folders):
    (folders / "cats" / "inner").mkdir()
    with pytest.raises(DatasetError, match="inner lies in cats, so its images would count twice"):
        split(config(folders, str(folders / "cats" / "inner")))
    with pytest.raises(DatasetError, match="two lines name the same folder"):
        split(config(folders, str(folders / "dogs"), str(folders / "cats" / ".." / "dogs")))
    with pytest.raises(DatasetError, match="There is no folder 'birds'"):
        split(config(folders, str(folders / "birds")))


@pytest.mark.parametrize(
    ("lines", "shares"),
    [
        (["dogs"], (6 / 9, 3 / 9)),  # by the number of images
        (["dogs repeats=4"], (6 / 18, 12 / 18)),
        (["dogs weight=1"], (1 / 2, 1 / 2)),  # whatever the numbers
        (["dogs weight=3", "cats weight=1"], (1 / 4, 3 / 4)),
        (["dogs weight=3 repeats=7"], (1 / 4, 3 / 4)),
    ],
)
def test_the_batches_hold_each_folder_by_its_share(folders, lines, shares):
    wanted = config(folders, *(f"{folders}/{line}" for line in lines))
    chosen = split(wanted)
    rows = folder_rows(chosen, wanted.data)
    assert [row.share for row in rows] == pytest.approx(shares)
    examples = [
        example(item.file, repeats=chosen.data_of(item, wanted.data).repeats).__class__(
            item.file,
            item,
            example("x").frame,
            ("k",),
            ("a",),
            "a",
            chosen.data_of(item, wanted.data).repeats,
            folder=chosen.source_of(item).label,
            folder_weight=chosen.source_of(item).line.weight,
        )
        for item in chosen.items
    ]
    plan = BatchSampler(examples, 2, 0, DataConfig(folder="x"))
    seen = Counter(row.example.name for number in range(plan.cycle) for row in plan.rows(number))
    dogs = sum(count for name, count in seen.items() if name.startswith("dogs/"))
    assert dogs / seen.total() == pytest.approx(shares[1])
    for start in ("dogs/", ""):
        assert len({count for name, count in seen.items() if name.startswith("dogs/") is bool(start)}) == 1
    assert plan.shares() == pytest.approx({"cats": shares[0], "dogs": shares[1]})
    epoch = sum(e.repeats for e in examples)
    assert rows[1].shown == pytest.approx(shares[1] * epoch / 3)


def test_shares_in_whole_numbers_are_exact_or_within_a_percent():
    from fractions import Fraction

    assert whole_numbers([Fraction(1, 3), Fraction(1, 2)]) == [2, 3]
    odd = [Fraction(1)] * 5000 + [Fraction(10007, 9973)] * 5000
    places = whole_numbers(odd)
    assert abs(places[-1] / places[0] / (10007 / 9973) - 1) < 0.01 and sum(places) <= 64 * 10000


def test_each_folder_has_its_own_trigger_prefix_and_caption(folders):
    (folders / "dogs" / "1.txt").unlink()
    line = f"{folders}/dogs trigger=dgs prefix=photo of caption=some dog"
    wanted = config(folders, line, **{"data.trigger": "cts"})
    chosen = split(wanted)
    from studio.training.caption_variants import caption_of

    said = {item.file: caption_of(item, chosen.data_of(item, wanted.data)) for item in chosen.items}
    assert said["0.png"] == "cts, a cat"
    assert said["dogs/0.png"] == "dgs, photo of a dog" and said["dogs/1.png"] == "dgs, photo of some dog"
    assert triggers_of(wanted.data) == ["cts", "dgs"]


def test_held_out_images_come_from_each_folder_by_its_size(folders):
    wanted = config(folders, f"{folders}/dogs", **{"validation.every": 1, "validation.fraction": 0.34})
    chosen = split(wanted)
    kinds = Counter(chosen.source_of(item).label for item in chosen.held_out)
    assert kinds == {"cats": 2, "dogs": 1} and len(chosen.items) == 6
    assert split(wanted).held_out == chosen.held_out


def test_epochs_count_the_images_of_all_folders(folders):
    wanted = config(folders, f"{folders}/dogs repeats=2", **{"training.epochs": 3, "training.batch_size": 2})
    assert with_steps(wanted).training.steps == 3 * (6 + 2 * 3) / 2


def test_folders_survive_toml_and_lose_their_paths_when_published(folders, tmp_path):
    wanted = config(folders, f"{folders}/dogs weight=2 trigger=dgs")
    (tmp_path / "run.toml").write_text(config_to_toml(wanted))
    assert config_from_toml(tmp_path / "run.toml") == wanted
    assert without_paths(wanted).data.folders == ["dogs weight=2 trigger=dgs"]


def test_the_page_and_endpoints_name_datasets_never_paths(workspace):
    given = {"dataset": "silhouette", "data.folders": ["pixel weight=2 trigger=pxl"], "name": "one"}
    found = runs.config_of(workspace, given)
    assert found.data.folders == [f"{workspace.datasets / 'pixel'} weight=2 trigger=pxl"]
    with pytest.raises(StudioError, match="not the name of a dataset"):
        runs.config_of(workspace, {"dataset": "silhouette", "data.folders": ["/etc weight=2"]})
    from studio.training import new_run

    new_run(found, workspace)
    assert runs.run_settings(workspace, "one")["data.folders"] == ["pixel weight=2 trigger=pxl"]
    assert runs.trigger_words(workspace, "one") == ["pxl"]
    rows = run_data.folder_table(workspace, "silhouette", {"data.folders": ["pixel weight=3"]})
    assert [row.folder for row in rows] == ["silhouette", "pixel"] and rows[1].share == pytest.approx(0.75)


def test_the_file_names_all_triggers_and_folders(folders):
    from studio.training.metadata import adapter_metadata

    wanted = config(folders, f"{folders}/dogs repeats=2 trigger=dgs", **{"data.trigger": "cts"})
    said = adapter_metadata(wanted, split(wanted), 64, 1, None, "")
    assert said["modelspec.trigger_phrase"] == "cts, dgs"
    assert json.loads(said["ss_dataset_dirs"]) == {
        "cats": {"n_repeats": 1, "img_count": 6},
        "dogs": {"n_repeats": 2, "img_count": 3},
    }
    assert json.loads(said["ss_tag_frequency"])["dogs"] == {"dgs": 3, "a dog": 3}


def test_one_folder_without_lines_is_planned_as_before():
    """Runs that began before there were folders go on with the same batches."""
    plan = BatchSampler(
        [example(f"p{n}", repeats=1 + n % 3, latents=("a", "b")) for n in range(7)], 3, 5, DataConfig(folder="x")
    )
    rows = [(row.example.name, row.mirrored, row.caption, row.variant) for n in range(4) for row in plan.rows(n)]
    assert all(row[3] == 0 for row in rows) and len(plan.own[128, 128]) == 13 and plan.in_bucket[128, 128] == 13
