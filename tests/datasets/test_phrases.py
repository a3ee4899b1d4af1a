"""Who wrote what: captioning again spares a person's words."""

import pytest
from PIL import Image

from studio.datasets import authors, merge, open_dataset, redo, undo, write_captions
from studio.datasets.phrases import is_prose, join, split, tags_of


@pytest.fixture
def dataset(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    (tmp_path / "a.txt").write_text("typed, red hat")
    return open_dataset(tmp_path)


@pytest.mark.parametrize(
    "caption, phrases, prose",
    [
        ("1girl, solo,red hat , ,", ("1girl", "solo", "red hat"), False),
        ("zsk, a red apple, on a gray background", ("zsk", "a red apple", "on a gray background"), False),
        ("A cat sits on a mat. It is red!", ("A cat sits on a mat.", "It is red!"), True),
        ("zsk, A cat sits on a mat, asleep. It is red.", ("zsk", "A cat sits on a mat, asleep.", "It is red."), True),
        ("a photo of a cat that sleeps on a mat", ("a photo of a cat that sleeps on a mat",), True),
        ("", (), False),
    ],
)
def test_a_caption_is_split_and_joined_again(caption, phrases, prose):
    assert split(caption) == phrases and is_prose(caption) == prose
    assert split(join(phrases)) == phrases
    assert join(phrases) == caption or not prose


def test_prose_has_no_tags_but_the_word_in_front():
    assert tags_of("zsk, A cat sits on a mat.") == ("zsk",) and tags_of("A cat sits on a mat.") == ()
    assert tags_of("a, b") == ("a", "b")


def test_what_is_not_known_is_a_persons(dataset):
    assert authors(dataset, "a.png") == [("typed", "person"), ("red hat", "person")]
    write_captions(dataset, {"a.png": "zsk, typed, red hat"}, "Trigger", "rule:trigger")
    write_captions(dataset, {"a.png": "zsk, typed, red hat, on grass"}, "Captioned", "model:starter")
    assert authors(dataset, "a.png") == [
        ("zsk", "rule:trigger"),
        ("typed", "person"),
        ("red hat", "person"),
        ("on grass", "model:starter"),
    ]


def test_captioning_again_replaces_what_models_and_rules_wrote_and_nothing_else():
    written = [("zsk", "rule:trigger"), ("typed", "person"), ("grass", "model:x"), ("mine", "person")]
    caption = "zsk, typed, grass, mine, unknown"
    assert merge("sky, Mine, sea", caption, written) == "sky, sea, typed, mine, unknown"
    assert merge("sky, sea", caption, written, replace=["model"]) == "zsk, typed, sky, sea, mine, unknown"
    assert merge("sky", caption, written, replace=["model", "rule", "person"]) == "sky"
    assert merge("sky", "typed") == "typed, sky"
    assert merge("A dog runs.", "I typed this here.") == "I typed this here. A dog runs."


def test_undo_and_redo_bring_the_authors_back_too(dataset):
    write_captions(dataset, {"b.png": "grass, sky"}, "Captioned", "model:x")
    write_captions(dataset, {"b.png": "sky"}, "Edit")
    write_captions(dataset, {"b.png": "sky, grass"}, "Typed again")
    assert authors(dataset, "b.png") == [("sky", "model:x"), ("grass", "person")]
    undo(dataset), undo(dataset)
    assert authors(dataset, "b.png") == [("grass", "model:x"), ("sky", "model:x")]
    undo(dataset), redo(dataset)
    assert authors(dataset, "b.png") == [("grass", "model:x"), ("sky", "model:x")]


def test_a_rule_that_rewords_a_person_leaves_it_a_persons(dataset):
    write_captions(dataset, {"a.png": "typed, blue hat, new"}, "Find and replace", "rule:bulk edit")
    assert dict(authors(dataset, "a.png"))["blue hat"] == "person"
    write_captions(dataset, {"b.png": "grass"}, "Captioned", "model:x")
    write_captions(dataset, {"b.png": "lawn"}, "Find and replace", "rule:bulk edit")
    assert authors(dataset, "b.png") == [("lawn", "rule:bulk edit")]


@pytest.mark.parametrize("notes", ["", "[]", "[" * 100_000, '{"version": 1, "files": {"a.png": {"typed": 3}}}', "nul"])
def test_damaged_notes_make_everything_a_persons(dataset, notes):
    (dataset.folder / ".studio").mkdir()
    (dataset.folder / ".studio" / "phrases.json").write_text(notes)
    assert authors(dataset, "a.png") == [("typed", "person"), ("red hat", "person")]
    write_captions(dataset, {"b.png": "grass"}, "Captioned", "model:x")
    assert authors(dataset, "b.png") == [("grass", "model:x")]
