"""Masks painted, set from a file, cleared and made by a model: each can be undone, and hostile ones do no harm."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from studio.datasets import can_undo, history, mask_models, open_dataset, redo, remove_images, undo
from studio.datasets.mask_models import MaskMaker, make_masks
from studio.datasets.masks import as_trained, open_mask, painted_over, write_masks
from studio.errors import DatasetError
from tests.datasets.made import bomb

SIZE = (60, 40)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", SIZE, "red").save(place / f"{name}.png")
    return place


def half(size=SIZE, side="left"):
    """White on one half."""
    mask = Image.new("L", size)
    left = 0 if side == "left" else size[0] // 2
    ImageDraw.Draw(mask).rectangle((left, 0, left + size[0] // 2 - 1, size[1]), fill=255)
    return mask


def now(folder, file="a.png"):
    """The mask that training would read, None for none."""
    return open_dataset(folder).by_file()[file].load_mask()


def test_a_mask_is_undone_and_redone_to_the_very_bytes(folder):
    file = folder / "a-masklabel.png"
    half(side="right").save(file, compress_level=0)  # another program's
    before = file.read_bytes()
    change = write_masks(open_dataset(folder), {"a.png": half()}, "Paint mask of a.png")
    after = file.read_bytes()
    assert change.files == ["a.png"] and now(folder).size == SIZE and np.array_equal(now(folder), half())
    assert can_undo(open_dataset(folder))[0] == "Paint mask of a.png"
    undo(open_dataset(folder))
    assert file.read_bytes() == before
    redo(open_dataset(folder))
    assert file.read_bytes() == after
    write_masks(open_dataset(folder), {"a.png": None}, "Clear")
    assert not file.exists() and now(folder) is None
    undo(open_dataset(folder))
    assert file.read_bytes() == after
    assert [step.files for step in history(open_dataset(folder))] == [["a.png"]] * 5


def test_masks_of_one_batch_are_undone_together(folder):
    for file in ("a.png", "b.png"):
        write_masks(open_dataset(folder), {file: half()}, "Make masks", "model:x", "one")
    assert undo(open_dataset(folder)).files == ["a.png", "b.png"]
    assert now(folder) is None and now(folder, "b.png") is None


def test_a_mask_that_was_changed_outside_is_left_alone_and_named(folder):
    write_masks(open_dataset(folder), {"a.png": half()}, "Paint")
    half(side="right").save(folder / "a-masklabel.png")
    assert undo(open_dataset(folder)).left == ["a.png: its mask was edited outside the studio, it is left as it is."]
    assert np.array_equal(now(folder), half(side="right"))


def test_a_change_of_masks_that_was_cut_short_is_completed(folder, monkeypatch):
    from studio.datasets import mask_files

    with monkeypatch.context() as patch:
        patch.setattr(mask_files, "bring", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_masks(open_dataset(folder), {"a.png": half(), "b.png": half()}, "Paint")
    assert np.array_equal(now(folder), half()) and np.array_equal(now(folder, "b.png"), half())


def test_an_image_taken_out_takes_its_painted_mask_along(folder):
    write_masks(open_dataset(folder), {"a.png": half()}, "Paint")
    remove_images(open_dataset(folder), ["a.png"])
    assert not (folder / "a-masklabel.png").exists()
    undo(open_dataset(folder))
    assert np.array_equal(now(folder), half())


def test_a_journal_of_lies_puts_no_file_anywhere(folder, tmp_path):
    write_masks(open_dataset(folder), {"a.png": half()}, "Paint")
    journal = folder / ".studio" / "history.jsonl"
    row = json.loads(journal.read_text().splitlines()[0])
    (tmp_path / "secret.png").write_bytes(b"secret")
    for lie in ({"../x.png": ["", "0" * 64]}, {"a.png": ["", "../../secret"]}, {"b.png": ["", "0" * 64]}, {"a.png": 3}):
        journal.write_text(json.dumps(row | {"masks": lie}) + "\n")  # not done: the next opening would complete it
        open_dataset(folder)
    assert sorted(path.name for path in folder.glob("*.png")) == ["a-masklabel.png", "a.png", "b.png", "c.png"]
    assert np.array_equal(now(folder), half())


def test_hostile_masks_are_refused_in_a_sentence(folder):
    wide = io.BytesIO()
    Image.new("L", (400, 10), 255).save(wide, "PNG")
    for data, why in ((bomb(), "too large"), (b"nothing", "not an image"), (wide.getvalue(), "another shape")):
        with pytest.raises(DatasetError, match=f"a.png: .*{why}"):
            open_mask(data, "a.png", SIZE)
    (folder / "b-masklabel.png").symlink_to("/etc/hostname")
    left = write_masks(open_dataset(folder), {"b.png": half()}, "Paint").left
    assert left == ["b-masklabel.png: a link to another folder, copy the mask here instead."]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_mask_of_any_mode_becomes_grey(mode):
    stream = io.BytesIO()
    white = np.full(SIZE[::-1], 65535, np.uint16) if mode == "I;16" else np.full(SIZE[::-1], 255, np.uint8)
    image = Image.fromarray(white)
    (image if mode == "I;16" else image.convert(mode)).save(stream, "PNG")
    assert open_mask(stream.getvalue(), "a.png", SIZE).getextrema() == (255, 255)


def test_what_is_transparent_in_a_mask_is_not_learned():
    stream = io.BytesIO()
    Image.new("RGBA", SIZE, (255, 255, 255, 0)).save(stream, "PNG")
    assert open_mask(stream.getvalue(), "a.png", SIZE).getextrema() == (0, 0)


def test_paint_on_a_small_copy_leaves_the_rest_as_fine_as_it_was(folder):
    big = (600, 400)
    Image.new("RGB", big, "red").save(folder / "a.png")
    fine = Image.fromarray(np.random.default_rng(0).integers(0, 2, big[::-1], np.uint8) * 255)
    item = open_dataset(folder).by_file()["a.png"]
    write_masks(open_dataset(folder), {"a.png": fine}, "Fine")
    small = fine.resize((300, 200), Image.Resampling.BILINEAR)
    small.paste(255, (0, 0, 50, 200))
    found = np.asarray(painted_over(item, small))
    assert (found[:, :99] == 255).all() and np.array_equal(found[:, 102:], np.asarray(fine)[:, 102:])


def test_the_preview_darkens_what_counts_less_in_step_with_the_loss():
    image = Image.new("RGB", SIZE, (200, 200, 200))
    seen = np.asarray(as_trained(image, half(), outside=0.5))
    assert (seen[:, :28] == 200).all() and (seen[:, 32:] == 120).all()  # 1 - 0.8 × (1 - 0.5)
    assert as_trained(image, None) is image


# By a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def rembg(monkeypatch):
    """rembg at its documented boundary: the right half is the main thing, unless the image says otherwise."""
    calls = []

    def remove(image, session, only_mask):
        calls.append((image.size, session, only_mask))
        if image.getpixel((0, 0)) == (0, 0, 0):
            return Image.new("L", image.size)
        return half(image.size, "right")

    known = SimpleNamespace(name=lambda: "u2net", resolve_existing=lambda name: f"/models/{name}")
    stub = SimpleNamespace(new_session=lambda model: f"session of {model}", remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", stub)
    monkeypatch.setitem(sys.modules, "rembg.sessions", SimpleNamespace(sessions_class=[known]))
    return calls


def test_a_model_makes_masks_of_the_chosen_images_undoably(folder, rembg):
    Image.new("RGB", SIZE, "black").save(folder / "b.png")
    maker = MaskMaker("u2net")
    made = list(make_masks(open_dataset(folder), ["a.png", "b.png"], maker, batch="x"))
    assert [one.problem for one in made] == ["", "b.png: the model found nothing, its mask stays as it was."]
    assert np.array_equal(now(folder), half(side="right")) and now(folder, "c.png") is None
    assert rembg[0] == (SIZE, "session of u2net", True)
    assert history(open_dataset(folder))[0].author == "model:u2net"
    list(make_masks(open_dataset(folder), ["c.png"], maker, invert=True, batch="x"))
    assert np.array_equal(now(folder, "c.png"), half())
    undo(open_dataset(folder))
    assert now(folder) is None and now(folder, "c.png") is None


def test_a_missing_package_and_a_missing_model_are_said_in_a_sentence(folder, rembg, monkeypatch):
    monkeypatch.setenv("U2NET_HOME", str(folder))
    with pytest.raises(DatasetError, match="silueta is not on this machine: allow the download"):
        MaskMaker("silueta")
    assert MaskMaker("silueta", download=True).session == "session of silueta"
    (folder / "silueta.onnx").touch()  # where older releases keep them
    assert MaskMaker("silueta").session == "session of silueta"
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(DatasetError, match="need the package rembg.*pip install"):
        MaskMaker("u2net")


def test_a_model_that_fails_on_an_image_leaves_the_others(folder, rembg, monkeypatch):
    maker = MaskMaker("u2net")
    maker._remove = lambda image, **_: 1 / 0
    assert [one.problem for one in make_masks(open_dataset(folder), ["a.png"], maker)] == [
        "a.png: the mask model u2net failed: division by zero."
    ]


@pytest.mark.full
def test_the_real_rembg_makes_a_mask_with_a_tiny_model(folder, tmp_path, monkeypatch):
    pytest.importorskip("rembg")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    shape = [1, 3, 1024, 1024]
    entry, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None)))
    graph = helper.make_graph([node], "mean", [entry], [out], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    onnx.save(model, tmp_path / "models" / "isnet-general-use.onnx")
    Image.merge("RGB", [half(side="right")] * 3).save(folder / "a.png")
    made = list(make_masks(open_dataset(folder), ["a.png"], MaskMaker("isnet-general-use")))
    mask = np.asarray(now(folder))
    assert not made[0].problem and (mask[:, :28] < 10).all() and (mask[:, 32:] > 245).all()
    assert mask_models.is_installed()
