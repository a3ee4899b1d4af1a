"""Slider LoRAs: the formula of concept sliders, both ends, no images of one's own, and an exact resume."""

import threading

import pytest
import torch

from studio.adapters import read_adapter
from studio.basemodels import load_base
from studio.errors import ConfigError
from studio.generation import AppliedAdapter
from studio.generation.strength_sweep import OF_A_SLIDER, STRENGTHS, strengths_for
from studio.services import runs as services
from studio.training import config_from, read_run, train
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.defaults import config_for
from studio.training.distributed import Distributed
from studio.training.events import Finished, Preparing
from studio.training.examples import BatchLoader, encode_missing, list_examples
from studio.training.preflight import preflight
from studio.training.selection import split
from studio.training.slider import SliderStep, finished, with_images
from tests.training.test_exact_resume import same, state


@pytest.fixture
def slider(quick) -> dict:
    return {key: value for key, value in quick.items() if key != "data.folder"} | {
        "name": "age",
        "slider.positive": "old apple",
        "slider.negative": "new apple",
        "slider.target": "apple",
        "slider.images": 2,
        "slider.guidance": 3.0,
        "slider.preserve": ["red", "green"],
        "preview.steps": 1,
        "training.learning_rate": 1e-2,
    }


@pytest.fixture
def under_way(slider, workspace):
    """(a step of the slider, its plan, its reader)."""
    config = finished(with_images(config_from(slider), workspace, Distributed(), threading.Event()))
    base, cache = load_base(config.base, shared=False), Cache(workspace.cache / "encoded")
    examples, _ = list_examples(split(config).items, base, cache, config.data, 0)
    list(encode_missing(examples, base, cache, Distributed(), threading.Event(), config.data))
    step = SliderStep(config, base, Distributed())
    yield step, BatchSampler(examples, 2, 0, config.data), BatchLoader(base, cache, config.data)
    step.detach()


def said(base, texts):
    with torch.no_grad():
        return base.encode_prompt(texts)


def test_the_loss_is_the_papers_formula_for_both_ends(under_way):
    """Written by hand: at strength ±1 the goal is e(target) ± 3 (e(positive) − e(negative)), all of the base alone."""
    step, plan, reader = under_way
    base = step.base
    for adapter in step.adapters.values():
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    drawn = step._draw(5, plan)
    batch = reader.read(drawn.rows)
    t = base.times(drawn.shares, None)
    seen = base.add_noise(batch.mean + batch.spread * drawn.fresh, drawn.noise, t)
    with torch.no_grad():
        (found,) = step._losses(drawn, slice(0, 2), reader)
        wanted = []
        for row, (sign, attribute) in enumerate(((-1, "red"), (1, "green"))):  # batch 5 begins at the lower end
            x, at = seen[row : row + 1], t[row : row + 1]
            words = {end: said(base, [f"{attribute} {end}"]) for end in ("apple", "old apple", "new apple")}
            step.strength = 0.0
            e = {end: base.predict(x, at, one) for end, one in words.items()}
            step.strength = float(sign)
            mine = base.predict(x, at, words["apple"])
            step.strength = 1.0
            goal = e["apple"] + sign * 3.0 * (e["old apple"] - e["new apple"])
            wanted.append((mine - goal).square().mean())
    assert torch.allclose(found, torch.stack(wanted), rtol=1e-4, atol=1e-6)


@pytest.mark.full
def test_the_two_ends_move_the_prediction_in_opposite_directions(under_way):
    step, plan, reader = under_way
    base = step.base
    for number in range(1, 9):
        step.step(number, plan, reader, 1.0)
    drawn = step._draw(99, plan)
    t = base.times(drawn.shares, None)
    words = said(base, ["red apple", "red apple"])
    with torch.no_grad():
        found = {}
        for strength in (-1.0, 0.0, 1.0):
            step.strength = strength
            found[strength] = base.predict(drawn.noise, t, words)
        step.strength = 1.0
    up, down = found[1.0] - found[0.0], found[-1.0] - found[0.0]
    assert torch.nn.functional.cosine_similarity(up.flatten(), down.flatten(), 0) < -0.8


def test_a_run_needs_no_images_and_says_what_it_is(slider, workspace):
    events = list(train(config_from(slider), workspace))
    assert isinstance(events[-1], Finished) and any(isinstance(one, Preparing) for one in events)
    drawn = next(path for path in (workspace.cache / "slider").iterdir() if path.is_dir())
    assert sorted(path.name for path in drawn.iterdir()) == ["000.png", "000.txt", "001.png", "001.txt"]
    assert (drawn / "001.txt").read_text().strip() == "green apple"
    file = workspace.runs / "age" / "adapter.safetensors"
    assert '"positive": "old apple"' in read_adapter(file).metadata["studio.slider"]
    assert strengths_for(AppliedAdapter(file=file)) == OF_A_SLIDER != STRENGTHS
    assert preflight(config_from(slider), workspace).ready


@pytest.mark.full
def test_it_resumes_bit_for_bit(slider, workspace):
    list(train(config_from(slider | {"name": "whole"}), workspace))
    stop = threading.Event()
    for event in train(config_from(slider | {"name": "parts"}), workspace, stop=stop):
        if event.step == 3:
            stop.set()
    folder = workspace.runs / "parts"
    list(train(config_from(slider | {"name": "parts"}), workspace, folder=folder))
    one, other = state(workspace.runs / "whole"), state(folder)
    assert same(one["train_step"]["adapters"], other["train_step"]["adapters"])
    assert read_run(workspace, "whole").losses[-1] == read_run(workspace, "parts").losses[-1]


def test_what_does_not_go_together_is_said(slider):
    for change, words in (
        ({"slider.negative": ""}, "go together: set all three"),
        ({"adapter.text_encoder": True}, "trains no text encoder"),
        ({"training.epochs": 2}, "no epochs"),
        ({"slider.images": 0}, "needs images of your own"),
    ):
        with pytest.raises(ConfigError, match=words):
            config_from(slider | change)
    assert config_for(
        {"base": "starter", **{k: v for k, v in slider.items() if k.startswith("slider")}}
    ).preview.prompts == [
        "apple @-1",
        "apple @0",
        "apple @1",
    ]


def test_the_form_and_endpoints_begin_one_without_a_dataset(slider, workspace):
    values = {key: value for key, value in slider.items() if key not in ("base", "name")}
    config = services.config_of(workspace, {"dataset": "", **values})
    assert (config.name, config.data.folder) == ("old-apple-slider", "")
