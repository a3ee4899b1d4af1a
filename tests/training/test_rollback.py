"""A loss that is not a number: back to the last good state, slower, with the image named; given up after three."""

import pytest
import torch

from studio.adapters import read_adapter
from studio.errors import RunError
from studio.training import config_from, read_run, train
from studio.training.examples import BatchLoader
from studio.training.train_step import TrainStep

MEASURED = {"validation.every": 3, "training.steps": 6}


def poison(monkeypatch, when) -> list[str]:
    """Make the latents of the first image of a step NaN wherever `when(names poisoned so far)`; returns the names."""
    read, bad = BatchLoader.read, []

    def poisoned(self, rows):
        batch = read(self, rows)
        if len(rows) == 2 and when(bad):
            bad.append(rows[0].example.name)
            batch.mean[0] = float("nan")
        return batch

    monkeypatch.setattr(BatchLoader, "read", poisoned)
    return bad


def steps_of(monkeypatch) -> list[tuple[int, float]]:
    """(step, factor on the rate) as the train_step is asked for them."""
    step, asked = TrainStep.step, []

    def told(self, number, plan, reader, slower):
        asked.append((number, slower))
        return step(self, number, plan, reader, slower)

    monkeypatch.setattr(TrainStep, "step", told)
    return asked


def test_one_bad_step_goes_back_to_the_checkpoint_and_on_at_half_the_rate(workspace, quick, monkeypatch):
    asked = steps_of(monkeypatch)
    bad = poison(monkeypatch, lambda bad: asked[-1][0] == 4 and not bad)
    kinds = [type(e).__name__ for e in train(config_from(quick | {"name": "once"}), workspace)]
    assert kinds.count("RolledBack") == 1 and kinds[-1] == "Finished"
    assert asked == [(1, 1), (2, 1), (3, 1), (4, 1), (3, 0.5), (4, 0.5), (5, 0.5), (6, 0.5)]
    view = read_run(workspace, "once")
    assert [step for step, _, _ in view.losses] == [1, 2, 3, 4, 5, 6], "what was undone is not drawn"
    assert any(bad[0] in said and "step 4" in said and "times 0.5" in said for _, said in view.warnings)


@pytest.mark.full
def test_weights_are_clean_after_a_rollback(workspace, quick, monkeypatch):
    asked = steps_of(monkeypatch)
    poison(monkeypatch, lambda bad: asked[-1][0] == 4 and not bad)
    for _ in train(config_from(quick | {"name": "clean"}), workspace):
        pass
    file = read_adapter(workspace.runs / "clean" / "adapter.safetensors")
    assert all(torch.isfinite(part).all() for update in file.layers.values() for part in update.parts.values())


@pytest.mark.full
def test_a_run_that_stays_bad_ends_after_three_tries_with_its_best_kept(workspace, quick, monkeypatch):
    asked = steps_of(monkeypatch)
    poison(monkeypatch, lambda bad: asked and asked[-1][0] == 5)
    config = config_from(quick | MEASURED | {"name": "bad", "validation.fraction": 0.05})
    with pytest.raises(RunError, match="at step 5.*three tries.*holds its best, from step 3"):
        list(train(config, workspace))
    assert [number for number, _ in asked].count(5) == 4
    view = read_run(workspace, "bad")
    assert view.state == "failed" and view.adapter
    assert read_adapter(view.adapter).metadata["studio.step"] == "3"


@pytest.mark.full
def test_a_gradient_that_overflows_goes_back_to_the_checkpoint_too(workspace, quick, monkeypatch):
    asked = steps_of(monkeypatch)
    clip = torch.nn.utils.clip_grad_norm_

    def overflow(parameters, most):
        norm = clip(parameters, most)
        return norm * float("inf") if asked[-1] == (3, 1) else norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", overflow)
    kinds = [type(e).__name__ for e in train(config_from(quick | {"name": "inf"}), workspace)]
    assert kinds.count("RolledBack") == 1 and kinds[-1] == "Finished"
