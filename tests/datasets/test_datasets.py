"""Bringing images in and captions out: whatever people have, nothing lost, nothing written outside."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.datasets import copy_sample, import_images, list_samples, open_dataset, open_image, set_caption
from studio.errors import DatasetError
from studio.workspace import Workspace
from tests.datasets.made import bomb, encoded, zip_at


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def everything_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_text_renamed_png_is_named_and_the_rest_comes_in(workspace, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded())
    (tmp_path / "notes.png").write_text("shopping list")
    dataset, skipped = import_images(workspace, "mine", [tmp_path / "good.png", tmp_path / "notes.png"])
    assert [item.path.name for item in dataset.items] == ["good.png"]
    assert skipped == ["notes.png: not an image."]


def test_only_bad_files_make_no_dataset_and_one_line(workspace, tmp_path):
    (tmp_path / "notes.png").write_text("shopping list")
    with pytest.raises(DatasetError, match="notes.png: not an image") as caught:
        import_images(workspace, "mine", [tmp_path / "notes.png"])
    assert "\n" not in str(caught.value) and not (workspace.datasets / "mine").exists()


def test_empty_folder_is_said(tmp_path):
    with pytest.raises(DatasetError, match="No images in"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("evil", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_zip_that_points_outside_is_refused_whole(workspace, tmp_path, evil):
    archive = zip_at(tmp_path / "z.zip", {"good.png": encoded(), evil: encoded(colour="blue")})
    before = everything_in(tmp_path)
    with pytest.raises(DatasetError, match="points outside"):
        import_images(workspace, "mine", [archive])
    assert everything_in(tmp_path) == before


def test_link_in_a_zip_is_left_out(workspace, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("good.png", encoded())
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    dataset, skipped = import_images(workspace, "mine", [tmp_path / "z.zip"])
    assert len(dataset.items) == 1 and skipped == ["link.png: a link, not a file."]


def test_zip_bomb_is_left_out_unread(workspace, tmp_path):
    archive = zip_at(tmp_path / "z.zip", {"good.png": encoded(), "bomb.png": bytes(60_000_000)})
    dataset, skipped = import_images(workspace, "mine", [archive])
    assert len(dataset.items) == 1 and skipped == ["bomb.png: unpacks to a suspicious size."]


def test_image_that_claims_sixty_thousand_squared_is_refused_unread(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(DatasetError, match="too large"):
        open_image(tmp_path / "bomb.png")


def test_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "torn.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:5000])
    with pytest.raises(DatasetError, match="torn.png"):
        open_image(tmp_path / "torn.png")


def test_images_come_upright_and_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright
    Image.new("RGB", (40, 20), "red").save(tmp_path / "phone.jpg", exif=exif)
    assert open_image(tmp_path / "phone.jpg").size == (20, 40)

    Image.fromarray(np.full((4, 4), 65535 // 2, np.uint16)).save(tmp_path / "deep.png")
    assert abs(open_image(tmp_path / "deep.png").getpixel((0, 0))[0] - 127) <= 1

    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red, green, _ = open_image(tmp_path / "print.jpg").getpixel((0, 0))
    assert red > 150 and green < 100

    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)

    Image.new("RGB", (4, 4), "blue").quantize(4).save(tmp_path / "palette.gif")
    assert open_image(tmp_path / "palette.gif").getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    "name", ["日本語.png", "ü" * 100 + ".png", "a b'\"<script>.png", "x" * 240 + ".png", "con.png"]
)
def test_any_name_comes_in(workspace, tmp_path, name):
    archive = zip_at(tmp_path / "z.zip", {name: encoded()})
    dataset, skipped = import_images(workspace, "mine", [archive])
    assert len(dataset.items) == 1 and not skipped


def test_captions_come_along_and_are_found_in_all_their_places(workspace, tmp_path):
    lines = '{"file_name": "m.png", "text": "from the table"}\nnot json\n'
    files = {"a.png": encoded(), "a.txt": b"one\nline", "b.png": encoded(colour="blue"), "b.caption": b"two"}
    archive = zip_at(tmp_path / "z.zip", files)
    dataset, _ = import_images(workspace, "mine", [archive])
    assert [item.caption for item in dataset.items] == ["one line", "two"]
    (dataset.folder / "metadata.jsonl").write_text(lines)
    (dataset.folder / "m.png").write_bytes(encoded(colour="green"))
    (dataset.folder / "m-masklabel.png").write_bytes(encoded(colour="white"))
    assert [item.caption for item in open_dataset(dataset.folder).items] == ["one line", "two", "from the table"]


def test_the_same_name_twice_keeps_both_images(workspace, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(colour="red"))
    import_images(workspace, "mine", [tmp_path / "a.png"])
    (tmp_path / "a.png").write_bytes(encoded(colour="blue"))
    dataset, _ = import_images(workspace, "mine", [tmp_path / "a.png"])
    assert {item.load().getpixel((0, 0)) for item in dataset.items} == {(255, 0, 0), (0, 0, 255)}


def test_a_caption_is_one_line_and_an_empty_one_leaves_no_empty_file(workspace):
    dataset = copy_sample(workspace, "silhouette")
    path = dataset.items[0].path
    set_caption(path, " a\n b ")
    assert path.with_suffix(".txt").read_bytes() == b"a b\n"
    set_caption(path, " ")
    assert not path.with_suffix(".txt").exists()


def test_a_sample_is_copied_once_and_edits_stay(workspace):
    first = copy_sample(workspace, list_samples()[0])
    set_caption(first.items[0].path, "mine now")
    assert copy_sample(workspace, first.name).items[0].caption == "mine now"


def test_samples_have_what_the_readme_says():
    from studio.workspace import ASSETS

    counts = {name: len(open_dataset(ASSETS / "datasets" / name).items) for name in list_samples()}
    assert counts["silhouette"] == counts["pixel"] == 24 and 8 <= counts["moody-cat"] <= 12
    for style in ("silhouette", "pixel"):
        held, shown = (
            {i.path.name for i in open_dataset(ASSETS / "datasets" / f).items} for f in (f"held-out/{style}", style)
        )
        assert held and not held & shown
