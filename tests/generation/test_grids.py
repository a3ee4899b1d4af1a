"""Grids: which recipes an axis makes, what people may type, the images, the sheet, and votes."""

import json
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from studio.errors import GenerationError, StudioError
from studio.generation import AppliedAdapter, Recipe, generate, read_recipe, save_image
from studio.generation.contact_sheet import (
    KEY,
    SavedGrid,
    Side,
    cell_file,
    draw_contact_sheet,
    new_folder,
    newest_grid,
    position,
    read_grid,
    save_sheet,
    sides_of,
    wrapped,
    write_grid_file,
)
from studio.generation.grids import MAX_CELLS, Axis, batches, cells, count, draw_cells, parse_values
from studio.generation.votes import (
    FILE,
    Score,
    agreeing,
    cast,
    chance_of,
    guide,
    next_pair,
    pairs,
    tally,
    verdict,
    votes,
)
from studio.workspace import remove_folder
from tests import tiers
from tests.generation.plain import apart
from tests.generation.test_adapter_cache import loud

PROMPT = "red apple, on a blue background"
QUICK = {"prompt": PROMPT, "steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return loud(folder / "one.safetensors"), loud(folder / "two.safetensors", 1)


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, text, values",
    [
        ("strength", "0, 0.5, 1", (0, 0.5, 1)),
        ("strength", " 0;.5\n1 ,, 1", (0, 0.5, 1)),
        ("strength", "0-1 in 5", (0, 0.25, 0.5, 0.75, 1)),
        ("strength", "0-1 [3]", (0, 0.5, 1)),
        ("strength", "0 - 1 (+0.25)", (0, 0.25, 0.5, 0.75, 1)),
        ("strength", "-1--0.5 in 2", (-1, -0.5)),
        ("strength", "1-0 in 3, 2", (1, 0.5, 0, 2)),
        ("guidance", "2–4", (2, 3, 4)),
        ("seed", "1-4", (1, 2, 3, 4)),
        ("seed", "4 to 2", (4, 3, 2)),
        ("seed", "9007199254740993", (9007199254740993,)),
        ("steps", "10-30 in 3", (10, 20, 30)),
        ("prompt", "a cat, (big:1.2)\n\n a dog ", ("a cat, (big:1.2)", "a dog")),
        ("words", "red, green, blue", ("red", "green", "blue")),
        ("words", "red → green, blue", ("red", "green", "blue")),
        ("words", 'red, "green, bright", blue', ("red", "green, bright", "blue")),
        ("scheduler", "euler a, DDIM", ("Euler a", "DDIM")),
    ],
)
def test_values_are_read_as_people_type_them(kind, text, values):
    assert parse_values(kind, text) == values


@pytest.mark.parametrize(
    "kind, text, part",
    [
        ("strength", "", "no values for strength"),
        ("strength", "lots", "'lots' is no number"),
        ("strength", "nan", "is no number"),
        ("strength", "1e5", "is no number"),
        ("strength", "9" * 5000, "too long"),
        ("strength", "0-1 in " + "9" * 80, "takes 1 to 150"),
        ("seed", "1-99999999999", "takes 1 to 150"),
        ("seed", "1.5", "whole number"),
        ("strength", "0-1 (0)", "never ends"),
        ("strength", "0-1 in 0", "takes 1 to 150"),
        ("words", "red", "at least one replacement"),
        ("scheduler", "Restart", "no scheduler 'Restart'"),
        ("prompt", "a <lora:x:1> cat", "Adapters are named in the form"),
        ("prompt", "x" * 20_001, "too long"),
        ("guidance", "5" * 30_000, "too long"),
    ],
)
def test_values_that_can_not_be_used_are_one_line(kind, text, part):
    with pytest.raises(GenerationError, match=part) as caught:
        parse_values(kind, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


# Recipes ------------------------------------------------------------------------------------------------------------


def test_the_first_axis_runs_fastest_and_the_third_slowest():
    made = cells(Recipe(**QUICK), [Axis("seed", (1, 2)), Axis("steps", (3, 4)), Axis("guidance", (1.0, 5.0))])
    assert [(one.seed, one.steps, one.guidance) for one in made] == [
        (seed, steps, guidance) for guidance in (1, 5) for steps in (3, 4) for seed in (1, 2)
    ]
    assert position(sides_of([Axis("seed", (1, 2)), Axis("steps", (3, 4)), Axis("guidance", (1.0, 5.0))]), 5) == (
        1,
        0,
        1,
    )


def test_every_kind_changes_its_own_field_and_nothing_else(files, tmp_path):
    step = tmp_path / "apples" / "checkpoints" / "000200" / "adapter.safetensors"
    use = AppliedAdapter(file=files[0], strength=0.5, text_strength=0.25, blocks={"unet.mid_block": 0.5}, start=0.1)
    recipe = Recipe(**QUICK, adapters=(use,), count=3)
    one = recipe.model_copy(update={"count": 1})

    def only(axis):
        return cells(recipe, [axis])[-1]

    assert only(Axis("seed", (1, 9))) == one.model_copy(update={"seed": 9})
    assert only(Axis("prompt", ("x", "a cat"))) == one.model_copy(update={"prompt": "a cat"})
    assert only(Axis("words", ("red", "green"))).prompt == "green apple, on a blue background"
    assert only(Axis("scheduler", ("DDIM",))).scheduler == "DDIM"
    stronger = use.model_copy(update={"strength": 1.0, "text_strength": 0.5})  # in proportion
    assert only(Axis("strength", (1.0,))).adapters == (stronger,)
    other = use.model_copy(update={"file": files[1]})
    assert only(Axis("adapter", files)).adapters == (other,)
    assert only(Axis("checkpoint", (step,))).adapters[0].title == "apples@200"
    bare = cells(Recipe(**QUICK), [Axis("strength", (0.3,)), Axis("adapter", (files[1],))])
    assert bare[0].adapters == (AppliedAdapter(file=files[1], strength=0.3),)


def test_words_are_put_into_the_prompt_that_another_axis_chose():
    words, prompts = Axis("words", ("red", "green")), Axis("prompt", ("a red cat", "a red dog"))
    first = [one.prompt for one in cells(Recipe(**QUICK), [words, prompts])]
    assert first == ["a red cat", "a green cat", "a red dog", "a green dog"]
    assert sorted(one.prompt for one in cells(Recipe(**QUICK), [prompts, words])) == sorted(first)


def test_what_makes_no_grid_is_said(files):
    recipe = Recipe(**QUICK)
    for axes, part in [
        ([], "one, two or three"),
        ([Axis("seed", (1,))] * 2, "Two axes change the seed"),
        ([Axis("adapter", files), Axis("checkpoint", files)], "Two axes change the adapter or checkpoint"),
        ([Axis("seed", tuple(range(16))), Axis("steps", tuple(range(1, 11)))], "160 images, the limit is 150"),
        ([Axis("strength", (1.0,))], "add one first"),
        ([Axis("words", ("pear", "plum"))], "lacks 'pear'"),
        ([Axis("steps", (5, 900))], "steps"),
        ([Axis("seed", (-1,))], "seed"),
    ]:
        with pytest.raises(GenerationError, match=part):
            cells(recipe, axes)
    with pytest.raises(GenerationError, match="from -10 to 10"):
        cells(Recipe(**QUICK, adapters=((files[0], 1.0),)), [Axis("strength", (1e30,))])
    assert count([Axis("seed", tuple(range(MAX_CELLS)))]) == MAX_CELLS


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_batches_hold_every_cell_once_with_the_recipe_of_the_cell(files, order):
    from studio.generation.strength_sweep import at_strength

    axes = [Axis("strength", tuple(n / 10 for n in range(10))), Axis("seed", (1, 2)), Axis("adapter", files)]
    axes = [axes[place] for place in order]
    recipe = Recipe(**QUICK, adapters=((files[0], 0.7),))
    made, lots = cells(recipe, axes), batches(recipe, axes)
    assert sorted(number for lot in lots for number in lot.numbers) == list(range(40))
    assert {len(lot.numbers) for lot in lots} == {8, 2}
    for lot in lots:
        for number, strength in zip(lot.numbers, lot.strengths, strict=True):
            assert at_strength(lot.recipe, strength, lot.index) == made[number]


def test_adapters_that_are_loaded_are_compared_and_not_stacked(files):
    one, other = AppliedAdapter(file=files[0], strength=0.7), AppliedAdapter(file=files[1], strength=0.4)
    recipe = Recipe(**QUICK, adapters=(one, other))
    assert [cell.adapters for cell in cells(recipe, [Axis("adapter", files)])] == [(one,), (other,)]
    axes = [Axis("adapter", files), Axis("strength", (0.5, 1.0), 1)]  # strengths of whichever stands there
    assert [[use.strength for use in cell.adapters] for cell in cells(recipe, axes)] == [[0.5], [0.5], [1.0], [1.0]]
    assert {batch.index for batch in batches(recipe, axes)} == {0}
    beside = [cell.adapters for cell in cells(recipe, [Axis("adapter", (files[0],), 0)])]
    assert beside == [(one, other)]  # what the axis does not go through stays


def test_adapters_change_as_seldom_as_can_be(files):
    recipe = Recipe(**QUICK)
    lots = batches(recipe, [Axis("adapter", files), Axis("seed", (1, 2, 3))])
    assert [lot.recipe.adapters[0].file for lot in lots] == [files[0]] * 3 + [files[1]] * 3


# Images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axes",
    [
        lambda files: [Axis("strength", (0.0, 0.6, 1.0)), Axis("seed", (7, 8))],
        tiers.in_full(
            lambda files: [
                Axis("adapter", files),
                Axis("words", ("red", "green")),
                Axis("scheduler", ("Euler a", "DDIM")),
            ]
        ),
    ],
    ids=["in batches", "one by one"],
)
def test_a_grid_is_its_cells_drawn_one_by_one(files, axes):
    recipe, axes = Recipe(**QUICK, adapters=((files[0], 0.8),)), axes(files)
    made, told = cells(recipe, axes), []
    drawn = {}
    for lot in draw_cells(recipe, axes, progress=told.append):
        drawn |= dict(zip(lot.numbers, lot.images, strict=True))
    assert sorted(drawn) == list(range(len(made)))
    singles = [generate(one) for one in made]
    assert all(apart(drawn[number], single) < 1 for number, single in enumerate(singles))
    assert min(apart(singles[0], other) for other in singles[1:]) > 1  # they are told apart
    assert told == sorted(told) and told[-1] == len(made)


def test_stop_ends_it_within_a_step_and_keeps_what_is_done(files):
    stop, steps = threading.Event(), []

    def progress(done: float) -> None:
        steps.append(done)
        if done > 1:
            stop.set()

    recipe = Recipe(**QUICK)
    drawn = list(draw_cells(recipe, [Axis("seed", (1, 2, 3))], stop, progress))
    assert [lot.numbers for lot in drawn] == [(0,)]
    assert steps[-1] == pytest.approx(1 + 1 / 3)


def test_a_cell_that_can_not_be_drawn_leaves_the_others(files, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 40)
    drawn = list(draw_cells(Recipe(**QUICK), [Axis("adapter", (broken, files[0]))]))
    assert "broken" in drawn[0].problem and "\n" not in drawn[0].problem and not drawn[0].images
    assert len(drawn[1].images) == 1


def test_turns_are_given_back_between_images():
    from contextlib import contextmanager

    held = []

    @contextmanager
    def turn():
        held.append(True)
        yield
        held.append(False)

    for _ in draw_cells(Recipe(**QUICK), [Axis("seed", (1, 2))], turn=turn):
        assert held[-1] is False
    assert held == [True, False] * 3


# The sheet ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn_grid(files, tmp_path):
    """(recipe, axes, a grid of coloured cells as if they had been drawn)."""
    axes = [Axis("strength", (0.0, 1.0)), Axis("adapter", files), Axis("seed", (1, 2))]
    recipe = Recipe(**QUICK, adapters=((files[0], 0.8),))
    folder = new_folder(tmp_path, recipe, axes)
    for number, one in enumerate(cells(recipe, axes)):
        image = Image.new("RGB", (128, 128), colour(number))
        save_image(image, one, folder, cell_file(folder, number).name)
    grid = read_grid(folder)
    assert grid is not None
    return recipe, axes, grid


def colour(number: int) -> tuple[int, int, int]:
    """Of a cell of the drawn grid."""
    return 20 * number, 90, 200 - 20 * number


def test_the_sheet_carries_recipe_and_axes_and_no_path(drawn_grid, tmp_path):
    recipe, axes, grid = drawn_grid
    path = save_sheet(grid, recipe, axes)
    assert path.parent == tmp_path and path.stem == grid.folder.name
    found = read_recipe(path)
    assert found.values["prompt"] == PROMPT and found.adapters[0]["file"] == "one"
    with Image.open(path) as image:
        told = json.loads(image.info[KEY])["axes"]
        texts = " ".join(str(text) for text in image.info.values())
    assert [one["kind"] for one in told] == ["strength", "adapter", "seed"]
    assert [one["values"] for one in told] == [[0.0, 1.0], ["one", "two"], [1, 2]]
    for text in (texts, (grid.folder / "grid.json").read_text()):
        assert str(recipe.adapters[0].file.parent) not in text and "/tmp" not in text
    assert read_recipe(cell_file(grid.folder, 7)).values["seed"] == 2


def test_every_cell_stands_where_its_labels_say(drawn_grid):
    _, _, grid = drawn_grid
    sheet = draw_contact_sheet(grid.sides, grid.images, grid.size)
    places = {}
    pixels = np.asarray(sheet)
    for number in range(8):
        hits = np.argwhere((pixels == colour(number)).all(-1))
        assert len(hits) == 128 * 128
        places[number] = tuple(hits.min(0))
    rows = sorted({y for y, _ in places.values()})
    columns = sorted({x for _, x in places.values()})
    assert len(rows) == 4 and len(columns) == 2
    for number, (y, x) in places.items():
        column, row, block = position(grid.sides, number)
        assert columns.index(x) == column and rows.index(y) == row + 2 * block


@pytest.mark.parametrize("size", [(64, 64), (128, 192), (1024, 1024), (2048, 2048)])
def test_sheets_of_any_cell_stay_readable_and_bounded(size):
    sides = (Side("prompt", "", ("a very long prompt " * 30, "WWWWWWWW" * 40)), Side("seed", "", ("seed 1",) * 75))
    sheet = draw_contact_sheet(sides, [None] * 150, size)
    assert sheet.width <= 16_000 and sheet.height <= 16_000 and sheet.width * sheet.height <= 89_000_000
    assert sheet.width > 2 * 60


def test_labels_are_wrapped_and_shortened():
    font = ImageFont.load_default(14)
    lines = wrapped(font, "a long label with many words " + "unbrokenword" * 20, 120)
    assert len(lines) == 4 and lines[-1].endswith("…")
    assert all(font.getlength(line) <= 120 for line in lines)
    assert wrapped(font, "short", 120) == ["short"] and wrapped(font, "", 120) == [""]


def test_a_cell_that_went_bad_is_an_empty_place(drawn_grid):
    _, _, grid = drawn_grid
    cell_file(grid.folder, 0).write_text("not an image")
    cell_file(grid.folder, 1).unlink()
    pixels = np.asarray(draw_contact_sheet(grid.sides, grid.images, grid.size))
    seen = [(pixels == colour(number)).all(-1).sum() for number in range(8)]
    assert seen == [0, 0] + [128 * 128] * 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"sides": 3}',
        '{"sides": [{"kind": "x", "title": "", "labels": ["a"]}]}',
        json.dumps({"sides": [{"kind": "seed", "title": "", "labels": ["1"] * 151}], "problems": {}, "size": [1, 1]}),
        json.dumps({"sides": [], "problems": {}, "size": [1, 1]}),
        json.dumps({"sides": [{"kind": "seed", "title": "", "labels": ["1"]}], "problems": {"x": 1}, "size": [1, 1]}),
    ],
)
def test_a_damaged_grid_is_passed_over(drawn_grid, tmp_path, text):
    _, _, grid = drawn_grid
    bad = tmp_path / "grids" / "later"
    bad.mkdir()
    (bad / "grid.json").write_text(text)
    found = newest_grid(tmp_path)
    assert read_grid(bad) is None and found is not None and found.folder == grid.folder


def test_a_grid_that_is_deleted_while_the_newest_is_looked_for_is_passed_over(drawn_grid, tmp_path, monkeypatch):
    recipe, axes, grid = drawn_grid
    going = new_folder(tmp_path, recipe, axes)
    stat = Path.stat

    def late(path, **more):
        if path.parent == going:
            remove_folder(going)
        return stat(path, **more)

    found = list((tmp_path / "grids").glob("*/grid.json"))  # as it was listed
    monkeypatch.setattr(Path, "glob", lambda *_: iter(found))
    monkeypatch.setattr(Path, "stat", late)
    assert len(found) == 2
    newest_now = newest_grid(tmp_path)
    assert not going.exists() and newest_now is not None and newest_now.folder == grid.folder


# Votes --------------------------------------------------------------------------------------------------------------


def test_a_vote_is_between_images_of_the_same_prompt_and_seed(drawn_grid):
    _, _, grid = drawn_grid
    assert len(pairs(grid)) == 2 * 6  # four candidates at each of two seeds
    assert all(position(grid.sides, one)[2] == position(grid.sides, other)[2] for one, other in pairs(grid))


def test_all_pairs_are_shown_before_one_comes_again(drawn_grid):
    _, _, grid = drawn_grid
    seen, lefts, chance = [], 0, random.Random(0)
    for _ in range(12):
        left, right = next_pair(grid, chance)
        seen.append(frozenset((left, right)))
        lefts += left < right
        cast(grid, left, right, "same")
    assert len(set(seen)) == 12 and 0 < lefts < 12


def test_votes_are_tallied_by_candidate(drawn_grid):
    _, _, grid = drawn_grid
    cast(grid, 0, 1, "right")  # strength 1 of "one" is better than strength 0
    cast(grid, 5, 4, "left")  # at the other seed too
    cast(grid, 1, 3, "same")
    best, *others = tally(grid)
    assert (best.name, best.won, best.lost, best.same) == ("strength 1 · one", 2, 0, 1)
    assert {(one.name, one.lost) for one in others} == {("strength 0 · one", 2), ("strength 1 · two", 0)}


@pytest.mark.parametrize("vote", [(0, 0, "left"), (0, 4, "left"), (0, 99, "left"), (0, 1, "both"), ("0", 1, "left")])
def test_a_vote_that_is_none_is_refused(drawn_grid, vote):
    _, _, grid = drawn_grid
    with pytest.raises(StudioError):
        cast(grid, *vote)
    assert votes(grid) == []


def test_damaged_votes_are_passed_over(drawn_grid):
    _, _, grid = drawn_grid
    (grid.folder / FILE).write_text('[[0, 1, "left"], [0, 1], 3, [0, 1, "x"], [0, 900, "left"], {}, [true, 0, "same"]]')
    assert votes(grid) == [(0, 1, "left")]
    (grid.folder / FILE).write_text("{")
    assert votes(grid) == [] and tally(grid) == []


def test_a_grid_without_candidates_has_no_vote(tmp_path):
    axes = [Axis("seed", (1, 2))]
    folder = new_folder(tmp_path, Recipe(**QUICK), axes)
    write_grid_file(folder, Recipe(**QUICK), sides_of(axes), {})
    grid = read_grid(folder)
    assert isinstance(grid, SavedGrid)
    with pytest.raises(GenerationError, match="differ only in adapter"):
        next_pair(grid)


def test_votes_are_held_against_chance_as_scipy_does():
    from scipy.stats import binomtest

    for won, lost in [(0, 0), (3, 0), (6, 0), (5, 1), (9, 1), (15, 5), (14, 6), (2, 7)]:
        expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
        assert chance_of(won, lost) == pytest.approx(expected)
    assert [agreeing(many) for many in (5, 6, 10, 20)] == [None, 6, 9, 15]
    assert "6 of 6, 9 of 10 or 15 of 20" in guide()


def test_a_verdict_on_votes_says_whether_they_are_enough():
    two = [Score("a", 15, 5, 2), Score("b", 5, 15, 2)]
    assert "a is preferred in 15 of 20: beyond chance" in verdict(two)
    assert "not beyond chance" in verdict([*two, Score("c", 0, 0, 1)])  # the best of three
    assert "not beyond chance" in verdict([Score("a", 3, 0, 0), Score("b", 0, 3, 0)])
    assert verdict([]) == verdict([Score("a", 0, 0, 3)]) == ""
