"""Captions in the encodings of people's editors: read right, or refused; never read wrong without a word."""

import pytest
from PIL import Image

from studio.datasets import import_images, open_dataset, write_captions
from studio.datasets.encodings import decode
from studio.workspace import Workspace

WESTERN = (
    "un café crème sur une table",
    "ein Mädchen mit weißen Blüten",
    "el niño y la montaña",
    "uma maçã e um pão",
    "perché la città è più bella",
    "en blå båt på sjøen",
    "“quotes” – and a dash…",
    "où est le château",
    "größe",
)
OTHERS = {
    "cp1251": ("красное яблоко", "a photo of кот"),
    "koi8-r": ("красное яблоко",),
    "cp866": ("красное яблоко",),
    "gbk": ("一只红苹果", "zsk, 蓝天, tree", "a狐b"),
    "big5": ("一隻紅蘋果",),
    "shift-jis": ("赤いりんご",),
    "euc-jp": ("赤いりんご",),
    "euc-kr": ("빨간 사과",),
    "cp1253": ("κόκκινο μήλο",),
    "cp1255": ("תפוח אדום",),
    "cp1250": ("žlutý kůň", "modrá řeka", "źrebię na łące"),
    "cp1254": ("kırmızı ağaç",),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [*WESTERN, *(one for texts in OTHERS.values() for one in texts)])
def test_unicode_is_read_as_it_was_written(text, encoding):
    assert decode(text.encode(encoding)) == (text, False)


@pytest.mark.parametrize("text", WESTERN)
def test_windows_1252_is_read_and_called_a_guess(text):
    assert decode(text.encode("cp1252")) == (text, True)


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in OTHERS.items() for text in texts])
def test_another_code_page_is_refused_and_never_read_as_something_else(encoding, text):
    assert decode(text.encode(encoding))[0] in (None, text)


def test_a_cut_within_a_character_costs_that_character_alone():
    assert decode("aé".encode()[:-1], complete=False) == ("a", False)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    Image.new("RGB", (64, 64), "red").save(place / "a.png")
    (place / "a.txt").write_bytes("красное яблоко".encode("cp1251"))
    return place


def test_an_unknown_encoding_is_named_left_out_and_left_as_it_is(folder):
    dataset = open_dataset(folder)
    assert dataset.items[0].caption == "" and dataset.items[0].caption_now() == ""
    assert dataset.warnings == ["a.txt: a caption in an encoding that is not known, save it as UTF-8."]
    before = (folder / "a.txt").read_bytes()
    assert write_captions(dataset, {"a.png": "a red apple"}, "x").left == [
        "a.txt: a caption in an encoding that is not known, save it as UTF-8; it is left as it is."
    ]
    assert (folder / "a.txt").read_bytes() == before


def test_an_import_names_a_caption_and_a_table_in_an_unknown_encoding(folder, workspace):
    (folder / "metadata.csv").write_bytes("file_name,text\na.png,красное яблоко\n".encode("cp1251"))
    dataset, skipped = import_images(workspace, "mine", [folder])
    assert dataset.items[0].caption == ""
    assert sorted(line.split(":")[0] for line in skipped) == ["a.txt", "metadata.csv"]
    assert [line.split(":")[0] for line in open_dataset(folder).problems] == ["metadata.csv"]


def test_a_table_without_captions_says_so(folder):
    (folder / "a.txt").unlink()
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "label": "cat"}\n')
    assert "no row has both file_name and one of text, caption or prompt" in open_dataset(folder).problems[0]
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "A"}\n{"file_name": "b.png", "text": "B"}\n')
    dataset = open_dataset(folder)
    assert dataset.items[0].caption == "A" and dataset.warnings == ["metadata: no image for b.png."]
