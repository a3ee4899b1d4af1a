"""From what a few steps measured to the settings of a run, each with a reason in plain words. Pure; no torch here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.text import duration, percent, pluralize
from studio.training.config import RunConfig, config_from, dotted
from studio.training.config_sections import FIND_THEIR_RATE
from studio.training.paired import LEAST, Difference
from studio.training.scorecard.plan import BACKWARD, UNTIL
from studio.training.scorecard.plan import plan_of as scorecards_of

LEAST_SEEN, MOST_SEEN = 10, 250  # passes over each image between which the preset's steps stay as they are
SHORTER = 0.75  # of the preset's steps: below, a higher rate that is clearly better is taken
LONGER = 2  # times the preset's steps: the most of a run that ends by the verdict
SHARES = (0.1, 0.2, 0.3, 0.5)  # scorecard budgets that are tried for one
VALIDATIONS = 8  # of one
CHECK = 2  # previews' worth of drawing that the export check takes
MOST = 1_000_000  # steps
YOURS = "As you set it."
TABLE = (  # what the table shows, in this order
    "adapter.kind",
    "adapter.rank",
    "data.resolution",
    "training.batch_size",
    "training.accumulation",
    "training.gradient_checkpointing",
    "training.precision",
    "training.learning_rate",
    "training.steps",
    "validation.every",
    "preview.every",
    "validation.scorecard",
    "validation.until_verdict",
)


@dataclass(frozen=True)
class Wish:
    """minutes, memory (GB): at the most, None for no limit of one's own. fixed: settings that the person has set."""

    minutes: float | None = None
    memory: float | None = None
    until_right: bool = False
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Probe:
    """A few steps at one learning rate. share: held-out loss against the base, -0.1 for 10 % below; against: the loss
    less that at the rate in question, as a share of the base's, over the held-out images.
    """

    rate: float
    share: float
    against: Difference


@dataclass(frozen=True)
class Measured:
    """What was found out about a dataset on this machine.

    images      of one's own; enlarged: how many are smaller than they are trained
    held_out    images; 0 where none is
    resolution  that is trained at; usual: the base's own
    change      of settings, so that a step fits into memory; tried: how many ways were
    memory      GB that was held at the most; available: GB that the run may hold
    step, preview, validation   seconds of one
    before      seconds until the first step: loading, and encoding what is still to be encoded
    probes      by rate, of `steps` steps each; () where rates were not compared
    judges      images that the probes were compared by, none of which they saw
    pixels      of an image that is drawn, over those of one that is trained on
    parameters  what is trained, in words
    """

    images: int
    enlarged: int
    held_out: int
    resolution: int
    usual: int
    change: Mapping[str, Any]
    tried: int
    memory: float
    available: float
    step: float
    preview: float
    validation: float
    before: float
    steps: int
    probes: tuple[Probe, ...] = ()
    judges: int = 0
    pixels: float = 1.0
    parameters: str = ""


@dataclass(frozen=True)
class Row:
    setting: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """rows: what the table shows. settings: all that changes, dotted. minutes, memory: as predicted."""

    rows: list[Row]
    settings: dict[str, Any]
    minutes: float
    memory: float
    available: float
    notes: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        steps = next(row.value for row in self.rows if row.setting == "training.steps")
        most = "At most " if self.settings.get("validation.until_verdict") else ""
        return f"{most}{steps:,} steps in about {duration(60 * self.minutes)}, {self.memory:.1f} GB."

    def as_answer(self) -> dict[str, Any]:
        rows = [vars(row) for row in self.rows]
        return {**vars(self), "rows": rows, "sentence": self.sentence}


def plan_for(config: RunConfig, wish: Wish, found: Measured) -> Plan:
    """config: the preset's settings with those that the person set."""
    fitted = config_from(dotted(config) | dict(found.change))
    reasons = _of_adapter(fitted, found) | _of_memory(config, fitted, wish, found)
    settings, why = _length(fitted, wish, found)
    settings |= dict(found.change)
    reasons |= why
    rate, reasons["training.learning_rate"] = _rate(config, wish, found, settings.get("training.steps"))
    if rate != config.training.learning_rate:
        settings["training.learning_rate"] = rate
    whole = config_from(dotted(config) | settings)
    given = dotted(whole)
    given["data.resolution"] = given["data.resolution"] or found.usual
    rows = [
        Row(key, given[key], YOURS if key in wish.fixed else reasons[key])
        for key in TABLE
        if key in reasons or key in wish.fixed
    ]
    seconds = seconds_of(whole, found)
    return Plan(rows, settings, seconds / 60, found.memory, found.available, _notes(whole, wish, found, seconds))


def seconds_of(config: RunConfig, found: Measured) -> float:
    """Of a whole run: steps, validations, previews, scorecards and what is before and after."""
    training = config.training
    validations = 2 + training.steps // config.validation.every if config.validation.every and found.held_out else 0
    previews = 1 + training.steps // config.preview.every if config.preview.every else 0
    images = sum(1 for line in config.preview.prompts if line.strip())
    again = 1 if training.gradient_checkpointing else 0
    row = found.step / (training.batch_size * training.accumulation * (1 + BACKWARD + again))
    drawn = (previews * images + CHECK) * found.preview
    scoring = row * _scorecard_rows(config, found)
    return found.before + training.steps * found.step + validations * found.validation + drawn + scoring


def _scorecard_rows(config: RunConfig, found: Measured) -> float:
    plan, guidance = scorecards_of(config, found.pixels), config.preview.guidance > 1
    if plan.size is None or not found.held_out:
        return 0.0
    cards = (1 + len(plan.moments)) * plan.size.each(guidance)
    return found.pixels * (plan.size.once(guidance) + cards + plan.size.strengths())


def most_steps(seconds: float, of: Callable[[int], float]) -> int:
    """The most steps whose run takes no longer; 0 for none."""
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if of(middle) <= seconds else (low, middle - 1)
    return low


# Why -----------------------------------------------------------------------------------------------------------------


def _of_adapter(config: RunConfig, found: Measured) -> dict[str, str]:
    wanted = config.adapter
    kind = "The preset's: every program reads it." if wanted.kind == "lora" else "The preset's."
    return {"adapter.kind": kind, "adapter.rank": f"The preset's: {found.parameters}." if found.parameters else kind}


def _of_memory(config: RunConfig, fitted: RunConfig, wish: Wish, found: Measured) -> dict[str, str]:
    """Resolution, batch and what saves memory."""
    limit = "that you allow" if wish.memory is not None and wish.memory <= found.available else "that are free"
    peak = f"{found.memory:.1f} GB of the {found.available:.1f} {limit}"
    if found.memory > found.available:
        fits = f"the least that was tried, and still {peak}"
    else:
        fits = f"a step takes {peak}"
    size = "The base's own" if found.resolution == found.usual else "The preset's"
    if "data.resolution" in found.change:
        size = "Smaller than the base's own, so that it fits"
    small = f", though {found.enlarged} of {found.images} images are smaller and enlarged" if found.enlarged else ""
    images = config.training.batch_size * config.training.accumulation
    reasons = {"data.resolution": f"{size}{small}: {fits}."}
    if fitted.training.accumulation == config.training.accumulation:
        reasons["training.batch_size"] = f"The preset's images per step: {fits}."
        if fitted.training.accumulation > 1:
            reasons["training.accumulation"] = f"The preset's: {pluralize(images, 'image')} per step."
    else:
        reasons["training.batch_size"] = f"Fewer at a time, so that it fits: {fits}."
        reasons["training.accumulation"] = f"So that a step still learns from {pluralize(images, 'image')}."
    if fitted.training.gradient_checkpointing:
        mine = config.training.gradient_checkpointing
        reasons["training.gradient_checkpointing"] = (
            "The preset's: a large base." if mine else "Without it a step did not fit."
        )
    if "training.precision" in found.change:
        reasons["training.precision"] = "The device's usual one, since fp32 did not fit."
    return reasons


def _rate(config: RunConfig, wish: Wish, found: Measured, steps: int | None) -> tuple[float, str]:
    """(the learning rate, why)."""
    own, steps = config.training.learning_rate, steps or config.training.steps
    if "training.learning_rate" in wish.fixed:
        return own, YOURS
    if config.training.optimizer in FIND_THEIR_RATE:
        return own, f"{config.training.optimizer} finds its rate by itself."
    if not found.probes:
        return own, "The preset's: there are too few images to compare rates by."
    lower, higher = ([one for one in found.probes if sign * (one.rate - own) > 0] for sign in (-1, 1))
    tried = ", ".join(f"{one.rate:.2g}: {_fine(one.share)}" for one in found.probes)
    seen = pluralize(found.judges, "unseen image")
    said = f"Loss on {seen} after {found.steps} steps against the base's, by rate: {tried}."
    better = [one for one in lower if one.against.is_clear and one.against.value < 0]
    if better:
        best = min(better, key=lambda one: one.share)
        return best.rate, f"{said} The preset's {own:g} is too high here: {_gap(best)}."
    faster = [one for one in higher if one.against.is_clear and one.against.value < 0]
    if not faster:
        why = "Too few images to see a difference" if found.judges < LEAST else "No difference beyond the spread"
        worse = [one for one in (*lower, *higher) if one.against.is_clear]
        if len(worse) == len(found.probes) - 1 and worse:
            why = "The others are clearly worse"
        return own, f"{said} {why}: the preset's rate stays."
    best = min(faster, key=lambda one: one.share)
    if steps < SHORTER * config.training.steps:
        return best.rate, f"{said} The run is shorter than the preset's, so it learns faster: {_gap(best)}."
    return own, f"{said} A higher rate is ahead at first; over {steps:,} steps the preset's rate has the time it needs."


def _fine(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")


def _gap(probe: Probe) -> str:
    share, error = 100 * probe.against.value, 100 * probe.against.error
    return f"at {probe.rate:.2g} the loss is {abs(share):.1f} ± {error:.1f} % of the base's lower"


# How long ------------------------------------------------------------------------------------------------------------


def _length(config: RunConfig, wish: Wish, found: Measured) -> tuple[dict[str, Any], dict[str, str]]:
    """(settings, reasons): steps, and what happens every so many of them."""
    training = config.training
    images = training.batch_size * training.accumulation
    fixed = {"training.steps", "training.epochs"} & wish.fixed
    usual, why = (training.steps, YOURS) if fixed else _usual(training.steps, images, found.images)
    until = wish.until_right and found.held_out > 0 and "validation.until_verdict" not in wish.fixed
    if until:
        for share in _shares(config, wish):
            steps, reason = _within(
                config, wish, found, usual if fixed else LONGER * usual, why, {"share": share, "until": True}
            )
            settings = _spread(config, wish, steps, share, True)
            whole = config_from(dotted(config) | settings)
            if len(scorecards_of(whole, found.pixels).moments) >= UNTIL:
                most = f"At the most, {LONGER} times the usual length" if not fixed else YOURS.rstrip(".")
                cards = len(scorecards_of(whole, found.pixels).moments)
                reasons = _interval_reasons(whole) | {
                    "training.steps": f"{most}: the verdict ends it. {reason}",
                    "validation.scorecard": f"{percent(share).lstrip('+')} of the run's computing is "
                    f"{pluralize(cards, 'scorecard')} on the way and one at the end.",
                    "validation.until_verdict": "It ends when a scorecard says learned and the next is no better.",
                }
                return settings, reasons
    steps, reason = _within(config, wish, found, usual, why, {"share": config.validation.scorecard, "until": False})
    settings = _spread(config, wish, steps, config.validation.scorecard, False)
    whole = config_from(dotted(config) | settings)
    reasons = {"training.steps": reason, **_interval_reasons(whole)}
    if until:
        reasons["validation.until_verdict"] = "Off: so short a run has no room for the scorecards that would end it."
    return settings, reasons


def _usual(steps: int, images: int, count: int) -> tuple[int, str]:
    """(steps for a set of `count` images, why). images: of a step; steps: the preset's."""
    seen = steps * images / max(1, count)
    least, most = (max(1, math.ceil(passes * count / images)) for passes in (LEAST_SEEN, MOST_SEEN))
    each = f"each of {pluralize(count, 'image')}"
    if steps > most:
        return most, f"The preset's {steps:,} would show {each} {seen:,.0f} times, which memorizes: {MOST_SEEN} times."
    if steps < least:
        return least, f"The preset's {steps:,} would show {each} {seen:.1f} times: more, until it is {LEAST_SEEN}."
    return steps, f"The preset's: {each} is seen {seen:,.0f} times."


def _shares(config: RunConfig, wish: Wish) -> list[float]:
    own = config.validation.scorecard
    return [own] if "validation.scorecard" in wish.fixed else [own, *(share for share in SHARES if share > own)]


def _within(
    config: RunConfig, wish: Wish, found: Measured, usual: int, why: str, how: Mapping[str, Any]
) -> tuple[int, str]:
    """(steps, why), as many as the minutes allow."""
    if wish.minutes is None or {"training.steps", "training.epochs"} & wish.fixed:
        return usual, why

    def seconds(steps: int) -> float:
        settings = _spread(config, wish, steps, **how)
        return seconds_of(config_from(dotted(config) | settings), found)

    most = max(1, most_steps(60 * wish.minutes, seconds))
    time = f"{wish.minutes:g} minutes"
    if most >= usual:
        return usual, f"{why} {time} would hold {most:,}."
    images = config.training.batch_size * config.training.accumulation
    seen = most * images / max(1, found.images)
    return most, f"As many as fit into {time}, instead of {usual:,}: each image is seen {seen:.1f} times."


def _spread(config: RunConfig, wish: Wish, steps: int, share: float, until: bool) -> dict[str, Any]:
    """The settings of a run of this length: as many validations, previews and checkpoints as the preset has."""
    training = config.training
    out: dict[str, Any] = {"training.steps": steps}
    everies = {
        "validation.every": (config.validation.every, VALIDATIONS if until else 1),
        "preview.every": (config.preview.every, 1),
        "training.checkpoint_every": (training.checkpoint_every, 1),
    }
    for key, (every, least) in everies.items():
        if every:
            out[key] = max(1, round(steps / max(least, training.steps // every, 1)))
    out["training.warmup"] = min(training.warmup, steps // 10)
    out |= {"validation.scorecard": share, "validation.until_verdict": until}
    if training.epochs is not None and "training.epochs" not in wish.fixed:
        out["training.epochs"] = None
    given = dotted(config)
    return {key: value for key, value in out.items() if key not in wish.fixed and value != given[key]}


def _interval_reasons(config: RunConfig) -> dict[str, str]:
    steps, validation, preview = config.training.steps, config.validation.every, config.preview.every
    times = {"validation.every": validation, "preview.every": preview}
    return {key: f"{pluralize(max(1, steps // every), 'time')} in the run." for key, every in times.items() if every}


def _notes(config: RunConfig, wish: Wish, found: Measured, seconds: float) -> list[str]:
    notes = []
    if wish.minutes is not None and seconds > 60 * wish.minutes * 1.02:
        notes.append(f"It takes about {duration(seconds)}, longer than {wish.minutes:g} minutes.")
    if found.memory > found.available:
        notes.append("It may not fit into memory: choose a lower resolution or a smaller base.")
    if wish.memory is not None and wish.memory > found.available:
        notes.append(f"This device has {found.available:.1f} GB for it, less than the {wish.memory:g} that you allow.")
    if wish.until_right and not found.held_out:
        notes.append("Until it is right needs images held out, by which the verdict is given.")
    return notes
