"""Before the run: what will hurt, how long it will take and how much memory, from two or three real steps."""

import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from studio import devices
from studio.basemodels import Family, load_base
from studio.datasets import has_trigger
from studio.errors import ConfigError, RunError, out_of_memory
from studio.text import pluralize
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.class_images import with_class_images
from studio.training.config import RunConfig, config_from, dotted
from studio.training.config_sections import FIND_THEIR_RATE
from studio.training.defaults import usual_line
from studio.training.distributed import Distributed
from studio.training.effects import about_distilled, foreign_defaults, refuse, without_effect
from studio.training.examples import (
    BatchLoader,
    Example,
    Unreadable,
    about_frames,
    about_masks,
    about_tokens,
    about_variety,
    encode_missing,
    list_examples,
)
from studio.training.folder_table import about_folders, folder_rows
from studio.training.length import with_steps
from studio.training.micro_batches import DoesNotFit
from studio.training.optimizers import missing_for
from studio.training.parameter_count import parameter_line
from studio.training.preview_prompts import foreign_options
from studio.training.previews import draw_previews
from studio.training.run_resources import PeakMemory, precision_of
from studio.training.selection import Selection, split
from studio.training.slider import TRIED, finished, train_step_for, with_images
from studio.workspace import Workspace

STEPS = 3  # measured; the first one, which also warms up, is not counted
ROOM = 0.85  # of the device's memory that a run may fill


@dataclass(frozen=True)
class Finding:
    """One thing to know. level: "stop" (the run would fail), "warn" (it will hurt) or "note"."""

    level: str
    message: str


@dataclass(frozen=True)
class Report:
    """What a preflight found. seconds are 0 where nothing was measured; proposal: settings to change, dotted."""

    findings: list[Finding]
    step_seconds: float = 0.0
    preview_seconds: float = 0.0
    memory: float = 0.0  # GB at the most
    available: float = 0.0  # GB that the device has for it
    total_seconds: float = 0.0
    proposal: dict[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return not any(finding.level == "stop" for finding in self.findings)


def preflight(config: RunConfig, workspace: Workspace, stop: threading.Event | None = None) -> Report:
    """Check the data and the settings, then take a few real steps on the largest bucket and make one preview.

    Writes nothing but cache files, which the run will use. Raises StudioError where a run could not even begin.
    """
    config = finished(with_images(with_steps(config), workspace, Distributed(), stop or threading.Event(), TRIED))
    cache = Cache(workspace.cache / "encoded")
    chosen = split(config, lambda item: cache.facts(item)[0])
    findings = [Finding("note", line) for line in chosen.accounts]
    findings += [Finding("warn", line) for line in chosen.warnings]
    findings += _about_captions(config, chosen) + _about_settings(config)
    precision = precision_of(config.training)
    base = load_base(config.base, precision=precision)
    base.onload()  # an earlier run has sent parts of a shared base away
    chosen, undrawn = with_class_images(config, chosen, base, workspace)
    seed = config.training.seed
    examples, problems = list_examples(chosen.items, base, cache, config.data, seed, chosen=chosen)
    regularization, more = list_examples(chosen.regularization, base, cache, config.data, seed, regularization=True)
    problems += more
    cache.keep_facts()
    findings += [Finding("warn", problem) for problem in problems] + [Finding("note", base.placed())]
    if not config.adapter.init_from:
        findings.append(Finding("note", parameter_line(config.adapter, config.base)))
    findings.append(Finding("note", usual_line(config)))
    if not examples:
        raise RunError(f"No image can be learned from. {problems[0]}")
    try:
        refuse(config, base)
    except ConfigError as error:
        findings.append(Finding("stop", str(error)))
    warnings = without_effect(config, base) + foreign_defaults(config, base) + about_distilled(config)
    warnings += foreign_options(config.preview.prompts)
    warnings += about_tokens(examples + regularization, base, config.data.max_token_length)
    warnings += about_frames(examples + regularization)
    warnings += about_masks(examples + regularization, config.data)
    findings += [Finding("warn", line) for line in warnings]
    regularization += [replace(examples[0], regularization=True, repeats=1)] * undrawn  # for the balance
    if not config.slider.positive:  # whose few images are only here to be tried on
        findings += _about_images(config, examples, cache, base)
        findings += _about_balance(config, chosen, examples, regularization)
    if any(finding.level == "stop" for finding in findings):
        return Report(findings)
    measured = _measure(config, examples, base, cache, stop or threading.Event())
    findings += _about_disk(config, workspace, examples, measured)
    if isinstance(measured.failure, str):
        return Report([*findings, Finding("stop", measured.failure)], proposal=measured.proposal)
    previews = config.training.steps // config.preview.every if config.preview.every else 0
    images = len([line for line in config.preview.prompts if line.strip()])
    if undrawn:
        findings.append(Finding("note", f"{pluralize(undrawn, 'class image')} will be drawn before the run."))
    total = config.training.steps * measured.step + (previews * images + undrawn) * measured.preview
    return Report(
        findings, measured.step, measured.preview, measured.memory, measured.available, total, measured.proposal
    )


def _about_captions(config: RunConfig, chosen: Selection) -> list[Finding]:
    items, out = chosen.items, []
    captions = [item.caption.strip() for item in items]
    triggers = [chosen.data_of(item, config.data).trigger for item in items]
    for trigger in dict.fromkeys(filter(None, triggers)):
        lacking = sum(one == trigger and not has_trigger(text, trigger) for one, text in zip(triggers, captions))
        if lacking:
            many = f"{lacking} caption{'s' * (lacking > 1)}"
            out.append(Finding("note", f"{trigger!r} is missing in {many}: it is put in front."))
    same = Counter(filter(None, captions)).most_common(1)
    if same and same[0][1] > 2 and same[0][1] > len(items) / 2:
        out.append(Finding("warn", f"{same[0][1]} images share the caption {same[0][0][:60]!r}."))
    if not chosen.held_out and not config.slider.positive:
        out.append(Finding("warn", "No images are held out: the run can't say whether it learns or memorizes."))
    return out


def _about_settings(config: RunConfig) -> list[Finding]:
    training, out = config.training, []
    missing = missing_for(training)
    if missing:
        out.append(Finding("stop", missing))
    if training.optimizer in FIND_THEIR_RATE and not 0.1 <= training.learning_rate <= 10:
        out.append(Finding("warn", "Prodigy finds the rate by itself and multiplies it by training.learning_rate: 1."))
    elif training.optimizer not in FIND_THEIR_RATE and training.learning_rate > 0.01:
        out.append(Finding("warn", f"A learning rate of {training.learning_rate:g} is very high for an adapter."))
    if training.compile and devices.accelerator() is None:
        out.append(Finding("warn", "Compiling takes minutes on a CPU and made no step faster there: leave it off."))
    if training.precision == "fp16" and devices.accelerator() is None:
        out.append(Finding("warn", "fp16 on a CPU is slow and coarse: leave training.precision at auto."))
    if training.loss == "huber" and training.min_snr_gamma:
        out.append(Finding("note", "Huber loss and min-SNR both play down hard timesteps."))
    if (config.data.regularisation or config.data.class_images) and not config.data.trigger:
        out.append(Finding("warn", "Regularization images are there, but no trigger word tells yours from them."))
    return out


def _about_images(config: RunConfig, examples: list[Example], cache: Cache, base: Family) -> list[Finding]:
    out, batch = [], config.training.batch_size
    examples = [e for e in examples if e.is_main]
    side = config.data.resolution or base.resolution
    near_duplicates = Counter(cache.facts(e.item)[0] for e in examples)
    again = sum(count - 1 for count in near_duplicates.values())
    if again:
        out.append(Finding("warn", f"{_are(again, 'image')} there twice, byte for byte."))
    small = [e.name for e in examples if min(e.frame.size) < side * 0.5]
    if small and not config.data.upscale:
        out.append(Finding("note", f"{_are(len(small), 'image')} smaller than {side} pixels, like {small[0]}."))
    sizes = Counter(e.frame.size for e in examples)
    few = [f"{w} × {h} ({count})" for (w, h), count in sizes.items() if count < batch]
    if few and len(examples) >= batch:
        out.append(Finding("note", f"Buckets with fewer images than a batch repeat them in it: {', '.join(few)}."))
    return out


def _about_balance(
    config: RunConfig, chosen: Selection, examples: list[Example], regularization: list[Example]
) -> list[Finding]:
    """How often the run shows each image, counted as its batches are made."""
    training = config.training
    plan = BatchSampler(examples + regularization, training.batch_size, training.seed, config.data)
    own, other = plan.times_seen(training.steps * training.batch_size * training.accumulation)
    line = f"{sum(e.is_main for e in examples)} images, each seen {own:.1f} times"
    if regularization:
        line += f"; {sum(e.is_main for e in regularization)} regularization images, each seen {other:.1f} times"
    repeated = len({(e.repeats, e.folder_weight) for e in examples}) > 1
    out = [Finding("note", line + (" on average (folders repeat some)." if repeated else "."))]
    lines = about_folders(folder_rows(chosen, config.data), own) + about_variety(examples)
    out += [Finding("note", line) for line in lines]
    if own < 5:
        out.append(Finding("warn", f"Each image is seen {own:.1f} times: more steps will be needed."))
    return out


@dataclass
class _Measured:
    step: float = 0.0
    preview: float = 0.0
    memory: float = 0.0
    available: float = 0.0
    checkpoint: float = 0.0  # GB of one
    proposal: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def _measure(
    config: RunConfig, examples: list[Example], base: Family, cache: Cache, stop: threading.Event
) -> _Measured:
    """Steps on the images of the largest bucket; when memory runs out, again with checkpointing, then smaller."""
    largest = max((e.frame.size for e in examples), key=lambda size: size[0] * size[1])
    few = [e for e in examples if e.frame.size == largest][: config.training.batch_size]
    texts = not config.adapter.text_encoder
    unreadable = [
        one
        for one in encode_missing(few, base, cache, Distributed(), stop, config.data, texts)
        if isinstance(one, Unreadable)
    ]
    few = [e for e in few if e.item.path not in {one.path for one in unreadable}]
    if not few:
        raise RunError(unreadable[0].message)
    base.offload_encoders(text=texts)
    found, wanted = _Measured(available=available_memory(base.device)), config
    settings = dotted(config)
    for change in smaller(config):
        wanted = config_from(settings | change)
        try:
            found.step, found.memory, found.preview, trainer_size = try_steps(wanted, few, base, cache, stop)
        except (RuntimeError, MemoryError, DoesNotFit) as error:
            if not isinstance(error, DoesNotFit) and not out_of_memory(error):
                raise
            continue
        found.checkpoint = 4 * trainer_size / 1e9
        if found.memory <= found.available or not change:
            found.proposal = dict(change)
        if found.memory <= found.available:
            break
    else:
        found.failure = "The run does not fit into this device's memory: choose a lower resolution or rank."
        return found
    if not found.proposal and wanted.training.batch_size < 8 and devices.is_accelerator(base.device):
        found.proposal = _larger(wanted, found)
    return found


def try_steps(
    config: RunConfig, few: list[Example], base: Family, cache: Cache, stop: threading.Event
) -> tuple[float, float, float, int]:
    """(seconds a step, GB at the most, seconds a preview, bytes of the adapter). Raises RunError."""
    with PeakMemory(base.device) as peak:
        train_step = train_step_for(config, base, Distributed())
        try:
            plan = BatchSampler(few, config.training.batch_size, config.training.seed, config.data)
            reader = BatchLoader(base, cache, config.data, texts=not train_step.trains_text)
            took = []
            for step in range(1, STEPS + 1):
                if stop.is_set():
                    raise RunError("The check was stopped.")
                began = time.monotonic()
                reading = train_step.step(step, plan, reader, 1.0)
                if reading.warning:
                    raise DoesNotFit(reading.warning)
                float(reading.norm)
                took.append(time.monotonic() - began)
            began, drawn = time.monotonic(), 0.0
            if config.preview.every:
                with TemporaryDirectory() as folder, train_step.drawing():
                    next(draw_previews(0, base, train_step, config, Path(folder)), None)
                drawn = time.monotonic() - began
            size = sum(p.numel() * p.element_size() for p in train_step.parameters)
        finally:
            train_step.detach()
    return min(took[1:]), peak.gigabytes, drawn, size


def smaller(config: RunConfig) -> list[dict[str, Any]]:
    """The run as it is, then in ever less memory with the same images a step."""
    out: list[dict[str, Any]] = [{}]
    training = config.training
    if not training.gradient_checkpointing:
        out.append({"training.gradient_checkpointing": True})
    batch, parts = training.batch_size, training.accumulation
    while batch > 1:
        batch, parts = (batch + 1) // 2, parts * 2
        smaller = {"training.batch_size": batch, "training.accumulation": parts}
        out.append({**smaller, "training.gradient_checkpointing": True})
    if precision_of(training) == "fp32" and devices.default_precision() != "fp32":
        out.append({**out[-1], "training.precision": devices.default_precision()})
    return out


def _larger(config: RunConfig, found: _Measured) -> dict[str, Any]:
    """A larger batch when at least two of the same would fit: accelerators like that."""
    batch = config.training.batch_size
    fits = int(found.available / max(0.1, found.memory))
    return {"training.batch_size": min(8, batch * fits)} if fits >= 2 else {}


def available_memory(device: torch.device) -> float:
    """GB that a run may take: ROOM of what is free now and what this process holds already."""
    return ROOM * devices.available_memory(device) / 1e9


def _about_disk(config: RunConfig, workspace: Workspace, examples: list[Example], measured: _Measured) -> list[Finding]:
    """Checkpoints hold the adapter, two of them its optimizer; an image and its caption take about a megabyte, and so
    does every other variant of both.
    """
    count = min(config.training.keep_checkpoints, config.training.steps // config.training.checkpoint_every + 1)
    needed = (count + 8) * measured.checkpoint / 4 + sum(len(e.latents) + len(e.captions) for e in examples) * 5e-4
    free = shutil.disk_usage(workspace.root).free / 1e9
    if needed < 0.8 * free:
        return []
    return [
        Finding("stop" if needed > free else "warn", f"About {needed:.1f} GB will be written; {free:.1f} are free.")
    ]


def _are(count: int, what: str) -> str:
    """ "1 image is", "2 images are"."""
    return f"{count} {what}{'s are' if count > 1 else ' is'}"


def as_text(report: Report) -> str:
    """The report in lines, for the terminal."""
    signs = {"stop": "✗", "warn": "!", "note": "·"}
    lines = [f"{signs[finding.level]} {finding.message}" for finding in report.findings]
    if report.step_seconds:
        lines.append(
            f"{report.step_seconds:.2f} s a step, {report.preview_seconds:.1f} s a preview, {report.memory:.1f} GB of "
            f"{report.available:.1f}; about {max(1, round(report.total_seconds / 60))} min in all."
        )
    for key, value in report.proposal.items():
        lines.append(f"→ {key} = {str(value).lower() if isinstance(value, bool) else value}")
    if report.ready and not report.proposal:
        lines.append("Ready." if not report.findings else "Ready, all the same.")
    return "\n".join(lines)
