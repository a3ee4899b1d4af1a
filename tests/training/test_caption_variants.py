"""Captions that vary: kohya's documented rules (config_README, "enable_wildcard", "keep_tokens_separator",
"caption_tag_dropout_rate", "caption_prefix"), drawn by number alone.
"""

import random
from collections import Counter

import pytest
from PIL import Image

from studio.datasets import open_dataset, remove_images
from studio.datasets.listing import list_folder
from studio.training import config_from
from studio.training.caption_variants import captions_of, drawn, fixed_caption_of, tidied
from studio.training.config_sections import DataConfig
from studio.training.selection import split


def data(**settings) -> DataConfig:
    return DataConfig(folder="x", **settings)


def draw(text: str, times: int = 400, **settings) -> Counter:
    return Counter(drawn(text, data(**settings), random.Random(n)) for n in range(times))


@pytest.fixture
def one(tmp_path):
    """item(caption file, **more caption files): an image with them."""

    def item(text: str, **more: str):
        Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
        (tmp_path / "a.txt").write_text(text)
        for number, words in more.items():
            (tmp_path / f"a.{number.removeprefix('n')}.txt").write_text(words)
        return open_dataset(tmp_path).items[0]

    return item


def test_each_word_of_a_wildcard_is_drawn_as_often():
    found = draw("a {red|green|blue} cat", wildcards=True)
    assert set(found) == {"a red cat", "a green cat", "a blue cat"} and min(found.values()) > 90
    assert draw("a {red|green} cat") == {"a {red|green} cat": 400}
    assert draw("{{a|b}} {c}", wildcards=True) == {"{a|b} c": 400}
    assert tidied("a {red|green} cat", data(wildcards=True)) == "a red cat"


def test_tags_around_the_separator_stay_in_place():
    """kohya: "fixed ||| flexible ||| fixed suffix"."""
    found = draw("1girl, zsk ||| hat, red, sunny ||| best", keep_tags_separator="|||", shuffle_tags=True, keep_tags=0)
    assert len(found) == 6
    for caption in found:
        assert caption.startswith("1girl, zsk, ") and caption.endswith(", best")
    with_nothing = draw("a ||| b ||| c", keep_tags_separator="|||")
    assert with_nothing == {"a, b, c": 400}


def test_tag_dropout_leaves_out_as_many_as_it_says_and_never_protected_ones():
    found = draw("zsk, a, b, c", 2000, tag_dropout=0.25, keep_tags=1, protected_tags="B, other")
    tags = Counter(tag for caption, count in found.items() for tag in caption.split(", ") for _ in range(count))
    assert tags["zsk"] == tags["b"] == 2000
    assert tags["a"] == pytest.approx(1500, abs=80) and tags["c"] == pytest.approx(1500, abs=80)
    assert set(draw("zsk, a", tag_dropout=1.0, keep_tags=0, trigger="zsk")) == {"zsk"}


def test_lines_and_further_files_are_drawn_equally_often(one):
    item = one("first\nsecond line\n", n1="third", n2="fourth\nfifth")
    assert item.variants == ("a.1.txt", "a.2.txt")
    assert captions_of(item, data(), 0) == ("first second line",)
    assert captions_of(item, data(caption_variants=True), 0) == ("first second line", "third", "fourth fifth")
    both = Counter(captions_of(item, data(caption_variants=True, wildcards=True, caption_draws=10), 0))
    assert set(both.values()) == {2} and set(both) == {"first", "second line", "third", "fourth", "fifth"}
    assert fixed_caption_of(item, data(caption_variants=True, wildcards=True), 0) == ("first",)


def test_prefix_and_suffix_stand_around_every_caption_but_those_of_regularization(one):
    item = one("a cat")
    settings = data(caption_prefix="photo of", caption_suffix=", sharp", trigger="zsk")
    assert captions_of(item, settings, 0) == ("zsk, photo of a cat , sharp",)
    assert captions_of(item, settings, 0, regularization=True) == ("a cat",)


def test_the_trigger_is_in_every_variant(one):
    item = one("{zsk|}, a, b, c")
    found = captions_of(item, data(trigger="zsk", wildcards=True, tag_dropout=0.9, caption_draws=64), 0)
    assert len(found) == 64 and all("zsk" in caption for caption in found)


def test_variants_depend_on_the_seed_alone(one):
    item, settings = one("zsk, a, {b|c}, d, e"), data(wildcards=True, tag_dropout=0.3, shuffle_tags=True)
    assert captions_of(item, settings, 1) == captions_of(item, settings, 1) != captions_of(item, settings, 2)
    assert len(captions_of(item, settings, 1)) == settings.caption_draws


def test_what_is_not_read_is_said_and_what_is_read_is_not(one):
    item = one("a {b|c} ||| d\nsecond", n1="third")
    usual = {"data.folder": str(item.path.parent), "validation.every": 0}
    said = " ".join(split(config_from(usual)).warnings)
    assert "1 further caption file, a.1.txt among them, not read" in said
    assert "{a|b}" in said and "|||" in said and "several lines" in said and "of no image" not in said
    read = {"data.wildcards": True, "data.caption_variants": True, "data.keep_tags_separator": "|||"}
    assert split(config_from(usual | read)).warnings == []


def test_further_caption_files_leave_and_return_with_their_image(one, tmp_path):
    one("a cat", n1="other", n7="third")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    assert list_folder(tmp_path).variants == {"a": ["a.1.txt", "a.7.txt"]}
    dataset = open_dataset(tmp_path)
    remove_images(dataset, ["a.png"])
    assert not list(tmp_path.glob("a*.txt"))
