"""Words of captions dropped in turn: what is dropped, what is measured, and what is said of it."""

import threading
from dataclasses import replace

import pytest
import torch

from studio.adapters import attach_file, read_adapter
from studio.basemodels import load_base
from studio.errors import RunError
from studio.training import config_from, train
from studio.training.caption_words import effects
from studio.training.caption_words.effects import WordEffect, WordReport, finding_of
from studio.training.caption_words.measure import DRAWS, choose, measure_words
from studio.training.caption_words.phrases import phrases_of, without
from studio.training.paired import Difference, difference
from studio.training.reopening import reopen
from tests import tiers

NOTHING = threading.Event()


def result_of(iterator):
    """What a generator returns, after all that it yields."""
    while True:
        try:
            next(iterator)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("zsk, red hair, on a white background", ["zsk", "red hair", "white", "background"]),
        ("a photo of zsk riding the bicycle", ["zsk", "photo", "riding", "bicycle"]),
        ("Cat, cat, 1girl", ["cat", "1girl"]),
        ("zsk cat, dog", ["zsk", "cat", "dog"]),
        ("", []),
    ],
)
def test_captions_are_taken_as_tags_and_words_of_sentences(caption, phrases):
    assert phrases_of(caption, ["zsk"]) == phrases
    for phrase in phrases:
        left = without(caption, phrase, ["zsk"])
        assert phrase not in phrases_of(left, ["zsk"]) and all(
            one in left.casefold() for one in phrases if one != phrase
        )


def test_a_tag_inside_a_longer_tag_stays():
    assert without("cat, cat face, on a cat mat here", "cat") == "cat face, on a mat here"


def effect(**changes) -> WordEffect:
    plain = WordEffect("x", False, 4, 0.2, 1, 3, 1.0, 1.0, 0.8, 0.8, Difference(0, 0.01, 8), Difference(0, 0.01, 8))
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"carried": Difference(0.3, 0.02, 8)}, "carries"),
        ({"carried": Difference(0.3, 0.2, 8)}, None),
        ({"carried": Difference(0.3, 0.0, 2)}, None),  # too few images
        ({"carried": Difference(0.3, 0.02, 8), "share": 0.95}, "second trigger"),
        ({"kept": Difference(-0.1, 0.01, 8)}, "misfit"),
        ({"is_trigger": True}, "weak trigger"),
        ({"is_trigger": True, "carried": Difference(0.6, 0.05, 8)}, "holds"),
        ({"is_trigger": True, "carried": Difference(0.3, 0.2, 8)}, "unclear"),
    ],
)
def test_each_finding_follows_from_the_paired_losses(changes, kind):
    found = finding_of(effect(**changes))
    assert (found and found.kind) == kind
    assert found is None or (found.sentence.endswith(".") and not found.remedy or found.remedy.endswith("."))


def test_a_weak_trigger_names_the_word_that_stands_in_its_place():
    weak, rival = effect(word="zsk", is_trigger=True), effect(word="rug", share=0.9, carried=Difference(0.5, 0.02, 8))
    first, second = WordReport(effects=[rival, weak]).findings
    assert (first.kind, second.kind) == ("weak trigger", "second trigger")
    assert "“rug”" in first.remedy and first.link == second.link == "dataset:edit"


def test_the_spread_of_differences_is_their_standard_error():
    values = [0.1, 0.4, 0.2, 0.7]
    found = difference(values)
    assert found.value == pytest.approx(0.35)
    assert found.error == pytest.approx(torch.tensor(values, dtype=torch.float64).std().item() / 2)
    assert not found.is_clear and difference([0.3, 0.31, 0.32, 0.3]).is_clear and not difference([0.3]).is_clear


RUN = {
    "name": "run",
    "data.trigger": "zsk",
    "validation.every": 3,
    "training.steps": 3,
    "training.checkpoint_every": 100,
    "validation.scorecard": 0.0,
    "training.learning_rate": 0.01,
}


@pytest.mark.parametrize("more", tiers.default([{}, {"adapter.text_encoder": True}]))
def test_losses_are_those_of_the_saved_file_on_these_captions(workspace, quick, more):
    for _ in train(config_from(quick | RUN | more), workspace):
        pass
    folder = workspace.runs / "run"
    before = sorted((file, file.stat().st_mtime_ns) for file in folder.rglob("*"))
    report = result_of(measure_words(folder, workspace, 2, 3, NOTHING))
    assert before == sorted((file, file.stat().st_mtime_ns) for file in folder.rglob("*"))  # the run is not touched
    assert [one.word for one in report.effects] == ["zsk", "background"] and report.step == 3
    assert (
        all(one.held_out == 2 and one.trained == 1 for one in report.effects) and "not measured" in report.left_out[0]
    )

    opened = result_of(reopen(folder, workspace, NOTHING))
    chosen, base = choose(opened, 2, 3), load_base(quick["base"], precision="fp32")
    adapter = attach_file(read_adapter(folder / "adapter.safetensors"), base.modules())
    losses = []
    for drop in (False, True):  # by hand, an image at a time
        total = 0.0
        for place in chosen.phrases[0].places:
            example = chosen.examples[place]
            caption = without(chosen.caption_of(place), "zsk", ["zsk"]) if drop else chosen.caption_of(place)
            latents = opened.cache.read(example.latents[0])
            for draw in range(DRAWS):
                generator = torch.Generator().manual_seed(9000 + draw * 4099 + place)
                fresh, noise = (torch.randn(latents["mean"].shape, generator=generator)[None] for _ in range(2))
                t = base.times(torch.tensor([(draw + 0.5) / DRAWS]))
                x = latents["mean"][None] + latents["spread"].expand_as(latents["mean"])[None] * fresh
                with torch.no_grad():
                    told = base.encode_prompt([caption])
                    seen = base.predict(base.add_noise(x, noise, t), t, told)
                total += (seen - base.target(x, noise, t)).square().mean().item() / DRAWS / 3
        losses.append(total)
    adapter.detach()
    assert (report.effects[0].adapter, report.effects[0].adapter_without) == pytest.approx(tuple(losses), rel=1e-4)
    assert report.effects[0].base != report.effects[0].adapter


def test_what_was_measured_is_read_again_and_nonsense_is_nothing(tmp_path):
    report = WordReport(5, [effect()], ["Left out."], ["Changed."], 8, 1.5)
    effects.keep(tmp_path, report)
    assert effects.read(tmp_path) == report and report.as_answer()["findings"] == []
    for text in ("", "[]", '{"effects": [{"word": 1}]}', "[" * 5000):
        (tmp_path / effects.FILE).write_text(text)
        assert effects.read(tmp_path) is None


def test_a_stopped_measurement_returns_nothing_and_leaves_the_base_alone(workspace, quick):
    for _ in train(config_from(quick | RUN | {"training.steps": 1, "validation.every": 0}), workspace):
        pass
    stop, base = threading.Event(), load_base(quick["base"], precision="fp32")
    measuring = measure_words(workspace.runs / "run", workspace, 1, 3, stop)
    for *_, what in measuring:
        if what == "Measuring losses":
            stop.set()
    assert stop.is_set() and not any("lora" in name for name, _ in base.model.named_modules())


def test_a_run_without_an_adapter_has_no_words(workspace):
    (workspace.runs / "run").mkdir()
    with pytest.raises(RunError, match="no adapter yet"):
        next(measure_words(workspace.runs / "run", workspace, 1, 3, NOTHING))
