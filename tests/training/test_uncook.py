"""Un-cooking: what is planted too strong is scaled down, what is healthy stays, and the file does what was measured."""

import threading
from dataclasses import replace

import pytest
import torch

from studio.adapters import block_of, read_adapter
from studio.adapters.writing import write_adapter
from studio.basemodels import load_base
from studio.errors import RunError
from studio.training import config_from, train
from studio.training.selection import split
from studio.training.uncook.measure import halves_of, uncook
from studio.training.uncook.search import GRID, GROUPS, LEAST_STEP, Reading, group_of, search
from studio.workspace import ASSETS
from tests.training.test_caption_words import result_of


def found_by(search):
    while True:
        try:
            next(search)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("ideal", "found"),
    [
        ({"down": 1, "mid": 1, "up": 1}, {}),
        ({"down": 1, "mid": 1, "up": 0.25}, {"up": 0.25}),
        ({"down": 0, "mid": 1, "up": 0.5}, {"down": 0, "up": 0.5}),
        ({"down": 1.25, "mid": 1, "up": 1}, {"down": 1.25}),
        ({"down": 0.5, "mid": 0.5, "up": 0.5}, {"down": 0.5, "mid": 0.5, "up": 0.5}),
    ],
)
def test_the_search_finds_the_scales_of_the_lowest_objective(ideal, found):
    tried = []

    def evaluate(scales):
        tried.append(scales)
        loss = sum((scales.get(name, 1) - best) ** 2 for name, best in ideal.items())
        return Reading(scales, [1 + loss] * 4, [0.0] * 4)

    best = found_by(search(list(ideal), evaluate))
    assert {name: scale for name, scale in best.scales.items() if scale != 1} == found
    assert len(tried) <= 40 and max(max(one.values(), default=1) for one in tried) <= GRID[-1]


def test_what_moves_less_than_counts_stays_and_the_search_is_bounded():
    flat = found_by(search(["down", "up"], lambda scales: Reading(scales, [1 + LEAST_STEP * 0.3 * len(scales)], [0.0])))
    assert not flat.scales
    tried = []
    found_by(
        search([str(n) for n in range(50)], lambda scales: tried.append(scales) or Reading(scales, [1.0], [0.0]), 7)
    )
    assert len(tried) == 7


def test_blocks_of_any_model_have_a_group():
    order = {f"transformer.layers.{n}": n for n in range(6)}
    assert [group_of("transformer", name, order) for name in order] == [
        "first blocks", "first blocks", "middle blocks", "middle blocks", "last blocks", "last blocks",
    ]  # fmt: skip
    assert group_of("unet", "unet.up_blocks.1", {}) == "up" and group_of("unet", "unet.conv_in", {}) == "the rest"
    assert group_of("text_encoder_2", "text_encoder_2.encoder.layers.3", order) == "text encoder"
    assert {"up", "text encoder", "the rest"} <= set(GROUPS)


@pytest.fixture
def trained(workspace, quick):
    """A run on the silhouettes and its configuration, with eight held-out images."""
    held_out = str(ASSETS / "datasets" / "held-out" / "silhouette")
    values = quick | {
        "name": "run",
        "adapter.targets": "all",
        "training.learning_rate": 0.003,
        "training.steps": 12,
        "data.held_out": held_out,
    }
    config = config_from(values | {"validation.every": 12, "validation.scorecard": 0.0})
    for _ in train(config, workspace):
        pass
    return workspace.runs / "run" / "adapter.safetensors", config


def uncooked(workspace, file, config, target):
    chosen = split(config)
    return result_of(uncook(file, "it", config, chosen, chosen.held_out, workspace, target, threading.Event()))


def test_a_group_planted_far_too_strong_is_scaled_down_and_the_rest_stays(workspace, trained, tmp_path):
    file, config = trained
    adapter, cooked = read_adapter(file), tmp_path / "cooked.safetensors"
    # conv_out, since nothing normalizes what comes after it: the tiny base's own blocks hide what is done to them.
    layers = {
        place: replace(update, parts={**update.parts, "B": update.parts["B"] * 300})
        if block_of(*place).endswith("conv_out")
        else update
        for place, update in adapter.layers.items()
    }
    assert sum(one is not other for one, other in zip(layers.values(), adapter.layers.values())) == 1
    write_adapter(cooked, layers, adapter.layout, adapter.metadata)
    target = tmp_path / "new.safetensors"
    found = uncooked(workspace, cooked, config, target)
    scales = {row.name: row.scale for row in found.groups}
    assert found.is_better and scales["the rest"] <= 0.25 and found.after.loss < found.before.loss, found.sentence
    assert not found.apart and found.images == 8 and "the rest × " in found.sentence
    assert all(scale >= 1 for name, scale in scales.items() if name != "the rest"), scales
    written = read_adapter(target)
    assert written.metadata["studio.uncooked"] == found.sentence and found.file == target.name
    one, other = (part.of_block("unet.conv_out").share for part in found.maps)
    assert other == pytest.approx(one * scales["the rest"], rel=1e-3)
    # The file at strength 1 is what was measured.
    again = uncooked(workspace, target, config, tmp_path / "again.safetensors")
    assert again.before.loss == pytest.approx(found.after.loss, rel=1e-3)


def test_a_healthy_adapter_stays_and_nothing_is_written(workspace, trained, tmp_path):
    file, config = trained
    found = uncooked(workspace, file, config, tmp_path / "new.safetensors")
    assert not found.is_better and "Nothing better was found" in found.sentence
    assert all(row.scale == 1 for row in found.groups) and not (tmp_path / "new.safetensors").exists()
    base = load_base(config.base, precision="fp32")
    assert all(not torch.isnan(parameter).any() for parameter in base.model.parameters())


def test_many_images_keep_the_search_and_the_judgement_apart():
    one, other = halves_of(list(range(12)))
    assert len(one) == len(other) == 6 and not {*one} & {*other}
    few = list(range(11))
    assert halves_of(few) == (few, few)


def test_too_few_images_are_refused(workspace, trained, tmp_path):
    file, config = trained
    chosen = split(config)
    with pytest.raises(RunError, match="at least 3 images"):
        result_of(uncook(file, "it", config, chosen, chosen.held_out[:2], workspace, tmp_path / "x", threading.Event()))
