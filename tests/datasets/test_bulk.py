"""Many captions at once: filters, operations, the difference that is shown, and one undo for all."""

import re

import pytest
from PIL import Image

from studio.datasets import Dataset, Item, bulk, open_dataset, set_caption, undo
from studio.datasets.bulk import Filter, Proposal, propose, select
from studio.errors import DatasetError
from tests.operations import growth

CAPTIONS = {"a.png": "zsk, red hat, sky", "b.png": "zsk, Red Hat", "c.png": "", "d.png": "zsk, A dog runs over a hill."}


@pytest.fixture
def dataset(tmp_path):
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        Image.new("RGB", (10 + 10 * number, 100)).save(tmp_path / name)
        set_caption(tmp_path / name, caption)
    return open_dataset(tmp_path)


@pytest.mark.parametrize(
    "wanted, names",
    [
        (Filter(), "abcd"),
        (Filter(has="red hat"), "ab"),
        (Filter(lacks="RED HAT"), "cd"),
        (Filter(has="hat"), ""),
        (Filter(pattern=r"d\w+ r"), "d"),
        (Filter(words=(3, 4)), "ab"),
        (Filter(smaller_than=30), "ab"),
        (Filter(at_least=30), "cd"),
        (Filter(captioned=False), "c"),
        (Filter(captioned=True, name="D.P"), "d"),
    ],
)
def test_filters(dataset, wanted, names):
    assert "".join(item.path.stem for item in select(dataset, wanted)) == names


@pytest.mark.parametrize(
    "operation, before, after",
    [
        (bulk.add_tag("new"), "a, b", "a, b, new"),
        (bulk.add_tag("new", front=True), "A dog runs over a hill.", "new, A dog runs over a hill."),
        (bulk.add_tag("B"), "a, b", "a, b"),
        (bulk.add_tag("x"), "", "x"),
        (bulk.remove_tag("B"), "a, b, c b", "a, c b"),
        (bulk.rename_tag("b", "c"), "a, b, C", "a, c"),
        (bulk.rename_tag("x", "c"), "a,c,c", "a,c,c"),
        (bulk.prepend("photo of "), "a cat", "photo of a cat"),
        (bulk.append(", 4k"), "a cat", "a cat, 4k"),
        (bulk.replace("a.", "x"), "a.b ab", "xb ab"),
        (bulk.replace("(a)(b)", r"\2\1", pattern=True), "ab AB", "ba AB"),
        (bulk.replace("A", "\\1", any_case=True), "cab", "c\\1b"),
        (bulk.deduplicate(), "a, b, A, b, c", "a, b, c"),
        (bulk.sort_by_frequency({"b": 3, "a": 1, "c": 2}, keep_first=1), "t, a, c, b", "t, b, c, a"),
        (bulk.tidy(), " a ,, b  c,", "a, b c"),
        (bulk.underscores_to_spaces(), "red_hat, o_o, ^_^, x_(y)", "red hat, o_o, ^_^, x (y)"),
    ],
)
def test_operations(operation, before, after):
    assert operation(before) == after


def test_what_is_accepted_is_applied_as_one_and_undone_as_one(dataset):
    proposals = propose(dataset, Filter(captioned=True), bulk.rename_tag("red hat", "blue hat"))
    assert proposals == [
        Proposal("a.png", "zsk, red hat, sky", "zsk, blue hat, sky"),
        Proposal("b.png", "zsk, Red Hat", "zsk, blue hat"),
    ]
    change = bulk.apply(dataset, proposals[:1], "Rename red hat")
    assert change.files == ["a.png"] and open_dataset(dataset.folder).items[1].caption == "zsk, Red Hat"
    undo(dataset)
    assert open_dataset(dataset.folder).items == dataset.items


def test_a_caption_edited_since_the_proposal_is_left_alone(dataset):
    proposals = propose(dataset, Filter(), bulk.add_tag("x"))
    set_caption(dataset.items[0].path, "typed meanwhile")
    change = bulk.apply(dataset, proposals, "Add x")
    assert change.files == ["b.png", "c.png", "d.png"] and change.left[0].startswith("a.png: its caption was changed")


def test_tags_are_counted_the_most_frequent_first(dataset):
    assert list(bulk.tag_counts(dataset).items()) == [("zsk", 3), ("Red Hat", 1), ("red hat", 1), ("sky", 1)]


@pytest.mark.parametrize(
    "before, after", [("a red hat, sky", "a blue hat, old sky"), ("", "a, b"), ("a b", ""), ("x,y", "x, z")]
)
def test_the_difference_makes_both_sides(before, after):
    parts = bulk.word_diff(before, after)
    for text, left_out in ((before, "added"), (after, "removed")):
        made = " ".join(words for kind, words in parts if kind != left_out)
        assert re.sub(r"[\s,]+", " ", made) == re.sub(r"[\s,]+", " ", text)


def test_a_pattern_that_would_take_for_ever_ends_in_one_line(tmp_path):
    dataset = Dataset(tmp_path, [Item(tmp_path / "a.png", "a" * 60 + "!")] * 100)
    with pytest.raises(DatasetError, match="takes too long"):
        select(dataset, Filter(pattern="(a|aa)+$"))


@pytest.mark.parametrize("pattern", ["(", "*", "(" * 900, "x" * 2000, "(?:(?:a{999}){999}){999}", r"(?P<x"])
def test_a_pattern_that_is_wrong_is_said(pattern):
    with pytest.raises(DatasetError, match="not a regular expression"):
        bulk.replace(pattern, "", pattern=True)


def test_a_replacement_that_is_wrong_or_bursts_is_said():
    with pytest.raises(DatasetError, match="can't be replaced"):
        bulk.replace("a", r"\g<nobody>", pattern=True)("a")
    with pytest.raises(DatasetError, match="longer than"):
        bulk.replace("a", "b" * 5000)("a" * 100)


def test_the_work_of_filters_and_sorts_grows_with_the_number_of_images(tmp_path):
    def dataset(count: int) -> Dataset:
        captions = [f"zsk, tag {n % 7}, red hat {n % 50}, number {n}" for n in range(count)]
        return Dataset(tmp_path, [Item(tmp_path / f"{n}.png", said, (n, 100)) for n, said in enumerate(captions)])

    for work in (
        lambda found: select(found, Filter(has="tag 3", lacks="red hat 3")),
        lambda found: select(found, Filter(pattern=r"hat \d7,", name="1")),
        lambda found: select(found, Filter(words=(2, 9), at_least=50)),
        lambda found: bulk.sort_items(found.items, "caption"),
        lambda found: bulk.tag_counts(found),
        lambda found: propose(found, Filter(), bulk.rename_tag("tag 3", "x")),
    ):
        assert growth(work, dataset(500), dataset(1000)) < 2.5
