"""Runs on the pretend device: nothing is left on the CPU, and the losses are the CPU's."""

import gc
import threading

import pytest
import torch

from studio import devices
from studio.basemodels import load_base
from studio.errors import RunError
from studio.training import config_from, preflight, read_run, train, trainer
from studio.training.events import Checkpoint, Finished, Preview, Started, Step, Stopped, Validation, Warned
from studio.training.optimizers import missing_for
from studio.training.train_step import TrainStep
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels.tiny import MAKERS
from tests.devices.conftest import forget_bases
from tests.devices.runs import QUICK, losses, refuse_unfinished, run
from tests.devices.second_device import NAME, pretend

EVERYTHING = {
    "adapter.text_encoder": True,
    "adapter.dropout": 0.1,
    "data.masks": True,
    "data.flip": True,
    "data.caption_dropout": 0.3,
    "training.accumulation": 2,
    "training.ema": 0.9,
    "training.loss": "huber",
    "training.input_perturbation": 0.1,
    "training.noise_offset": 0.05,
    "training.gradient_checkpointing": True,
    "preview.every": 2,
    "preview.steps": 1,
    "preview.prompts": ["a disc", "red@0.5"],
    "validation.every": 2,
    "validation.fraction": 0.2,
}


def here_and_away(base, images, tmp_path, **more):
    """The events of the same run on the CPU and on the pretend device."""
    forget_bases()
    here = run(base, images, tmp_path / "here", **more)
    forget_bases()
    with pretend():
        away = run(base, images, tmp_path / "away", **more)
    forget_bases()
    return here, away


@pytest.mark.parametrize("name", tiers.default(MAKERS, "sd1"))
def test_a_run_with_everything_has_the_losses_of_the_cpu(folders, images, tmp_path, name):
    more = EVERYTHING | ({"training.min_snr_gamma": 5} if name.startswith("sd") and name != "sd3" else {})
    if name == "z-image":
        more |= {"adapter.text_encoder": False}
    here, away = here_and_away(folders(name), images, tmp_path, **more)
    refuse_unfinished(away)
    assert losses(away) == pytest.approx(losses(here), rel=1e-4)
    for kind in (Validation, Preview, Checkpoint):
        assert sum(isinstance(event, kind) for event in away) == sum(isinstance(event, kind) for event in here) > 0
    assert [e.loss for e in away if isinstance(e, Validation)] == pytest.approx(
        [e.loss for e in here if isinstance(e, Validation)], rel=1e-4
    )


PAIRS = [("dora", "prodigy"), ("lora", "adamw"), ("tucker", "adafactor"), ("loha", "lion")]
PAIRS += [("lokr", "schedule-free-adamw"), ("lora", "adamw-8bit")]


@pytest.mark.parametrize("kind, optimizer", tiers.default(PAIRS))
def test_every_kind_and_every_optimizer_trains(folders, images, tmp_path, memory, kind, optimizer):
    more = {"adapter.kind": kind, "training.optimizer": optimizer}
    if optimizer == "schedule-free-adamw":
        more["training.schedule"] = "constant"
    lacking = missing_for(config_from(QUICK | {"data.folder": str(images)} | more).training)
    if lacking:
        pytest.skip(lacking)
    events = run(folders("sd1"), images, tmp_path, **more)
    refuse_unfinished(events)
    assert all(torch.isfinite(torch.tensor(losses(events))))


@pytest.mark.full
@pytest.mark.parametrize(
    "more",
    [
        {"adapter.targets": "attention", "training.lora_plus": 4},
        {"adapter.targets": "patterns", "adapter.patterns": ["attn2 rank=4 lr=1e-4"]},
        {"training.timesteps": "logit-normal", "training.least_noise": 0.2},
    ],
)
def test_settings_of_one_kind_train(folders, images, tmp_path, memory, more):
    refuse_unfinished(run(folders("sdxl"), images, tmp_path, **more))


@pytest.mark.full
def test_a_run_stopped_and_resumed_is_the_run_that_never_stopped(folders, images, tmp_path, memory):
    more = {"training.steps": 4, "training.ema": 0.5}
    whole = losses(run(folders("sd1"), images, tmp_path / "whole", **more))
    config = config_from(QUICK | {"base": str(folders("sd1")), "data.folder": str(images)} | more)
    stop, first = threading.Event(), []
    stop.set()
    for event in train(config, Workspace.open(tmp_path / "parts"), stop):
        first.append(event)
    if not losses(first):  # it stopped before the first step
        stop.clear()
        for event in train(config, Workspace.open(tmp_path / "parts"), stop, tmp_path / "parts" / "runs" / "run"):
            first.append(event)
            if isinstance(event, Started):
                stop.set()
    assert isinstance(first[-1], Stopped)
    rest = list(train(config, Workspace.open(tmp_path / "parts"), folder=tmp_path / "parts" / "runs" / "run"))
    refuse_unfinished(rest)
    assert losses(first) + losses(rest) == whole


@pytest.mark.full
def test_a_run_begins_after_a_check_and_after_another_run(folders, images, tmp_path, memory):
    """Both have sent parts of the shared base away, and the images of this one are not encoded yet."""
    wanted = QUICK | {"base": str(folders("sd1")), "data.folder": str(images), "adapter.targets": "attention"}
    report = preflight.preflight(config_from(wanted), Workspace.open(tmp_path / "checked"))
    assert 0 < report.memory < 0.1 and report.available == pytest.approx(preflight.ROOM * memory.total / 1e9, rel=0.05)
    for name in ("first", "second"):
        assert isinstance(
            run(folders("sd1"), images, tmp_path / name, **{"adapter.targets": "attention"})[-1], Finished
        )


@pytest.mark.full
def test_readings_are_waited_for_in_bunches(folders, images, tmp_path, memory, monkeypatch):
    taken, seen, step = [], [], TrainStep.step

    def noted(self, number, *given):
        taken.append(number)
        return step(self, number, *given)

    def watch(event, base):
        if isinstance(event, Step):
            seen.append((event.step, len(taken)))

    monkeypatch.setattr(TrainStep, "step", noted)
    size = trainer.READ_EVERY
    run(folders("sd1"), images, tmp_path, watch, **{"training.steps": size + 2, "adapter.targets": "attention"})
    assert [number for number, _ in seen] == list(range(1, size + 3))
    assert seen[0] == (1, size) and seen[-1] == (size + 2, size + 2)


@pytest.mark.full
def test_memory_that_a_step_reports_is_the_device_s(folders, images, tmp_path, memory):
    events = run(folders("sd1"), images, tmp_path)
    steps = [event for event in events if isinstance(event, Step)]
    assert steps and all(0 < event.memory < 0.1 for event in steps)
    assert memory.emptied > 0
    forget_bases()
    assert memory.allocated < 10_000  # what a process keeps for good: none of a base


# Out of memory -------------------------------------------------------------------------------------------------------


def test_a_step_that_runs_out_of_memory_goes_on_in_pieces(folders, images, tmp_path, memory):
    more = {"training.batch_size": 4, "training.steps": 3, "adapter.targets": "attention"}
    device, peaks = torch.device(NAME), []

    def measure(event, _):
        if isinstance(event, Started):
            devices.reset_peak_memory(device)
        if isinstance(event, Step):
            peaks.append(devices.peak_memory(device))

    def tighten(event, _):
        if isinstance(event, Started):
            memory.limit = int(0.9 * max(peaks))
        if isinstance(event, Step) and event.step == 3:
            memory.limit = None  # the export check takes a second base

    whole = losses(run(folders("sd1"), images, tmp_path / "whole", measure, **more))
    forget_bases()
    events = run(folders("sd1"), images, tmp_path / "tight", tighten, **more)
    refuse_unfinished(events)
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any("Memory ran out with 4 images at once: from here on 2" in line for line in warned), warned
    assert losses(events) == pytest.approx(whole, rel=1e-5)


def test_one_image_too_many_stops_with_advice(folders, images, tmp_path, memory):
    def watch(event, _):
        if isinstance(event, Started):
            memory.limit = memory.allocated + 1000

    with pytest.raises(RunError, match="Memory ran out with a single image"):
        run(folders("sd1"), images, tmp_path, watch)
    memory.limit = None
    assert read_run(Workspace.open(tmp_path), "run").state == "failed"


def test_the_vae_goes_on_in_tiles(folders, memory):
    base = load_base(str(folders("sd1")), shared=False, precision="fp32")
    latents = torch.randn(4, 4, 16, 16).to(base.device)
    whole = base.decode(latents)
    gc.collect()
    devices.reset_peak_memory(base.device)
    base.decode(latents)
    memory.limit = memory.peak - 1000
    tiled = base.decode(latents)
    memory.limit = None
    assert base.pipeline.vae.use_slicing and len(tiled) == len(whole) == 4


# Release and reload --------------------------------------------------------------------------------------------------


def places(base) -> dict[str, str]:
    """{component: the device that all of it lies on}."""
    found = {}
    for name, module in {**base.modules(), "vae": base.pipeline.vae}.items():
        kinds = {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}
        found[name] = kinds.pop() if len(kinds) == 1 else str(sorted(kinds))
    return found


@pytest.mark.parametrize("name", tiers.default(MAKERS, "sdxl"))
def test_parts_leave_the_device_and_come_back(folders, memory, name):
    gc.collect()
    others = memory.allocated  # what earlier tests left in shared bases
    base = load_base(str(folders(name)), shared=False, precision="fp32")
    parts = places(base)
    assert set(parts.values()) == {NAME}
    full, emptied = memory.allocated - others, memory.emptied
    base.offload_encoders(text=False)
    assert places(base) == {**parts, "vae": "cpu"}
    base.offload_encoders()
    assert places(base) == {part: NAME if part == base.denoiser else "cpu" for part in parts}
    base.offload()
    assert set(places(base).values()) == {"cpu"} and memory.emptied > emptied
    gc.collect()
    assert memory.allocated - others < 0.05 * full
    base.onload()
    assert places(base) == parts and memory.allocated - others == pytest.approx(full, rel=0.01)


@pytest.mark.parametrize("text", tiers.default([False, True]))
def test_a_run_keeps_on_the_device_what_it_needs(folders, images, tmp_path, memory, text):
    seen = []

    def watch(event, base):
        if isinstance(event, (Started, Step, Preview, Checkpoint, Finished)):
            seen.append((type(event), places(base)))

    more = {"preview.every": 1, "preview.steps": 1, "preview.prompts": ["a disc"], "adapter.text_encoder": text}
    run(folders("sdxl"), images, tmp_path, watch, **more)
    beside = NAME if text else "cpu"
    lean = {"unet": NAME, "text_encoder": beside, "text_encoder_2": beside, "vae": "cpu"}
    assert [kind for kind, _ in seen].count(Step) == 2
    for kind, found in seen:
        if kind in (Started, Step, Checkpoint):
            assert found == lean, (kind, found)
        if kind is Preview:
            assert set(found.values()) == {NAME}
        if kind is Finished:  # the export check's clean base had the device
            assert set(found.values()) == {"cpu"}
