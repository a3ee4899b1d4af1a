"""The health report names exactly what is wrong, and each remedy is one undoable click."""

import dataclasses
import itertools
import sys
import threading

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from studio.datasets import analysis, copy_sample, examine, list_samples, open_dataset, remedy, set_caption, undo
from studio.datasets.analysis import NEAR, analyse, analyze_image, near_duplicates, sharpness
from studio.datasets.health import BLURRED
from studio.datasets.image_index import ImageInfo
from studio.datasets.phrases import keep_authors
from studio.errors import DatasetError
from studio.workspace import Workspace
from tests.operations import growth


def image(seed: int, size=(320, 320)) -> Image.Image:
    """Coarse and fine noise: no two seeds look alike."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = np.kron(draw.integers(-40, 40, (size[1] // 4, size[0] // 4, 1)), np.ones((4, 4, 1)))
    return Image.fromarray((np.asarray(coarse).astype(int) + fine).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Four good images with captions."""
    place = tmp_path / "set"
    place.mkdir()
    for number in range(4):
        image(number).save(place / f"good{number}.png")
        set_caption(place / f"good{number}.png", f"zsk, thing {number}")
    return place


def found(folder, **more):
    report = examine(open_dataset(folder), **({"resolution": 256, "trigger": "zsk"} | more))
    return {finding.kind: finding for finding in report}


def now(folder):
    return {item.path.name: item.caption for item in open_dataset(folder).items}


def test_a_good_set_has_no_findings(folder, tmp_path):
    assert found(folder) == {}
    workspace = Workspace.open(tmp_path / "workspace")
    for name in list_samples():
        kinds = {finding.kind for finding in examine(copy_sample(workspace, name), 128)}
        assert not kinds - {"tag everywhere"}, name


def test_each_image_trouble_is_found_and_removed_and_comes_back(folder):
    image(0).resize((160, 160)).save(folder / "near.jpg", quality=80)
    (folder / "torn.png").write_bytes((folder / "good1.png").read_bytes()[:9000])
    (folder / "text.png").write_text("not an image")
    image(5, (100, 80)).save(folder / "small.png")
    image(6).filter(ImageFilter.GaussianBlur(4)).save(folder / "soft.png")
    image(7, (1600, 320)).save(folder / "long.png")
    for name in ("near", "small", "soft", "long", "torn"):
        (folder / f"{name}.txt").write_text(f"zsk, {name}")
    before, report = now(folder), found(folder)
    assert {kind: set(finding.files) for kind, finding in report.items()} == {
        "unreadable": {"torn.png", "text.png"},
        "near-duplicates": {"good0.png", "near.jpg"},
        "too small": {"near.jpg", "small.png"},
        "blurred": {"soft.png"},
        "extreme aspect": {"long.png"},
    }
    assert report["near-duplicates"].groups == (("good0.png", "near.jpg"),), "the larger one first"
    assert report["blurred"].message == "1 image is blurred or nearly empty."
    for finding in report.values():
        remedy(open_dataset(folder), finding, finding.remedies[0])
        left = found(folder)
        assert finding.kind not in left
        undo(open_dataset(folder))
        assert now(folder) == before
    spared = dataclasses.replace(report["too small"], files=("small.png",))
    assert remedy(open_dataset(folder), spared, "remove the images").files == ["small.png"]


def test_each_caption_trouble_is_found_and_mended_and_comes_back(folder):
    for number, caption in enumerate(["", "zsk, same, thing", "zsk, Same, thing", "thing without"]):
        image(10 + number).save(folder / f"x{number}.png")
        set_caption(folder / f"x{number}.png", caption)
    (folder / "nobody.txt").write_text("a caption of nothing")
    before, report = now(folder), found(folder)
    assert {kind: finding.files for kind, finding in report.items()} == {
        "missing captions": ("x0.png",),
        "duplicate captions": ("x1.png", "x2.png"),
        "trigger absent": ("x3.png",),
        "orphan captions": ("nobody.txt",),
    }
    after = {}
    for finding in report.values():
        remedy(open_dataset(folder), finding, finding.remedies[0])
        after[finding.kind] = now(folder)
        assert finding.kind not in found(folder)
        undo(open_dataset(folder))
        assert now(folder) == before and (folder / "nobody.txt").exists()
    assert after["missing captions"]["x0.png"] == "zsk" and after["duplicate captions"]["x1.png"] == ""
    assert after["trigger absent"]["x3.png"] == "zsk, thing without"


def test_a_tag_on_everything_is_removed_everywhere(folder):
    image(9).save(folder / "last.png")
    for item in open_dataset(folder).items:
        set_caption(item.path, f"zsk, {item.path.stem}, simple background")
    finding = found(folder)["tag everywhere"]
    assert finding.subject == "simple background", "and not the trigger"
    remedy(open_dataset(folder), finding, "remove the tag everywhere")
    assert now(folder)["last.png"] == "zsk, last" and "tag everywhere" not in found(folder)


@pytest.mark.parametrize("lower", [False, True])
def test_a_caption_is_cut_where_the_text_encoder_stops_reading(folder, lower):
    set_caption(folder / "good0.png", "zsk, One Two Three, Four")

    def count_tokens(caption):
        words = (caption.lower().replace(",", " ,") if lower else caption).split()
        limit = 4 if lower else 3
        return len(words), " ".join(words[limit:])

    finding = found(folder, count_tokens=count_tokens)["too long"]
    assert finding.files == ("good0.png",) and finding.details["good0.png"] == "Three, Four"
    remedy(open_dataset(folder), finding, "cut the captions at the limit")
    assert now(folder)["good0.png"] == "zsk, One Two"


def test_a_remedy_for_something_else_is_refused(folder):
    (folder / "nobody.txt").write_text("a caption of nothing")
    with pytest.raises(DatasetError, match="move the files to the trash"):
        remedy(open_dataset(folder), found(folder)["orphan captions"], "clear the captions")


def test_twins_are_those_that_imagehash_says_are_near(tmp_path):
    facts, hashes = {}, {}
    for seed in range(12):
        for kind, made in (("", image(seed)), ("small", image(seed).resize((200, 200)))):
            name = f"{seed}{kind}.png"
            made.save(tmp_path / name)
            facts[name] = analyze_image(tmp_path / name, imagehash)
            hashes[name] = imagehash.hex_to_hash(facts[name].likeness)
    near = {pair for pair in itertools.combinations(facts, 2) if hashes[pair[0]] - hashes[pair[1]] <= NEAR}
    assert {tuple(group) for group in near_duplicates(facts)} == near and len(near) == 12


def test_of_equal_images_the_one_with_a_caption_by_hand_is_kept(folder):
    for name in ("a", "b copy", "c"):
        image(9).save(folder / f"{name}.png")
    set_caption(folder / "a.png", "zsk, a")
    keep_authors(folder, {"a.png": ("", "zsk, a")}, {"a.png": {"zsk": "model:starter", "a": "model:starter"}})
    set_caption(folder / "b copy.png", "zsk, by hand")
    (group,) = found(folder)["near-duplicates"].groups
    assert group[0] == "b copy.png" and set(group) == {"a.png", "b copy.png", "c.png"}


def test_the_same_shape_in_another_colour_is_no_twin(folder):
    Image.merge("RGB", image(0).split()[::-1]).save(folder / "other-colour.png")
    set_caption(folder / "other-colour.png", "zsk, other")
    assert "near-duplicates" not in found(folder)


def test_without_imagehash_only_the_same_file_is_found_and_that_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    (folder / "twin.png").write_bytes((folder / "good0.png").read_bytes())
    image(0).resize((310, 310)).save(folder / "near.png")
    for name in ("twin", "near"):
        set_caption(folder / f"{name}.png", f"zsk, {name}")
    report = found(folder)
    assert set(report["near-duplicates"].files) == {"good0.png", "twin.png"}
    assert "pip install ImageHash" in report["hint"].message
    monkeypatch.undo()
    assert set(found(folder)["near-duplicates"].files) == {"good0.png", "near.png", "twin.png"}


def test_an_image_is_compared_with_all_others_in_one_step():
    """`python -m tests.benchmarks.dataset` times 5,000."""
    draw = np.random.default_rng(0)
    facts = {
        f"{n}": ImageInfo(1, 1, 10, 10, draw.bytes(16).hex(), draw.bytes(8).hex(), draw.bytes(48).hex(), 99.0)
        for n in range(1000)
    }
    same = {name: dataclasses.replace(one, content="0" * 32) for name, one in facts.items()}
    alike = {n: dataclasses.replace(f, likeness="0" * 16, colours="0" * 96) for n, f in facts.items()}
    assert near_duplicates(facts) == [] and len(near_duplicates(same)) == len(near_duplicates(alike)) == 1
    for images in (facts, same, alike):
        assert growth(near_duplicates, dict([*images.items()][:500]), images) < 2.5


def test_sharpness_falls_with_blur_and_is_the_variance_of_the_laplacian():
    from scipy import ndimage

    grey = image(1).convert("L")
    values = [sharpness(grey.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[0] > BLURRED > values[-1]
    laplacian = ndimage.laplace(np.asarray(grey, np.float64))[1:-1, 1:-1]
    assert sharpness(grey) == pytest.approx(laplacian.var(), rel=1e-3)
    assert sharpness(Image.new("L", (2, 9))) == 0


def test_images_are_looked_at_once_and_again_when_they_change(folder, monkeypatch):
    looked = []
    monkeypatch.setattr(
        analysis, "analyze_image", lambda path, module: looked.append(path.name) or analyze_image(path, module)
    )
    found(folder), found(folder)
    assert sorted(looked) == [f"good{n}.png" for n in range(4)]
    image(20).save(folder / "good2.png")
    assert found(folder) == {} and looked[4:] == ["good2.png"]


def test_progress_is_told_and_a_stop_keeps_what_was_seen(folder):
    told, stop = [], threading.Event()
    seen = analyse(open_dataset(folder), lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 4), (2, 4), (3, 4), (4, 4)] and not seen.stopped
    for number in range(40):
        image(number + 50, (64, 64)).save(folder / f"more{number}.png")
    seen = analyse(open_dataset(folder), lambda *_: stop.set(), stop)
    assert seen.stopped and 4 < len(seen.facts) < 44
    assert not analyse(open_dataset(folder)).stopped
