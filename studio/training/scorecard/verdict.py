"""One verdict on a run: from its held-out losses and the scorecards of its checkpoints. Pure; no torch here.

The thresholds are set on runs whose outcome is known, and judged on others: `python -m tests.benchmarks.verdicts`,
docs/scorecard.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studio.text import percent, pluralize
from studio.training.scorecard.scores import Scores

LEARNED, PARTLY, UNFINISHED, OVERFITTED = "learned", "partly learned", "unfinished", "over-fitted"
NOTHING, KNOWN, BROKEN, COLLAPSED = "nothing learned", "known already", "broken", "collapsed"
MEMORIZED, CAPTIONS, IMAGES, ONE_CAPTION = "memorized", "captions", "images", "one caption"
DRIFTED, UNKNOWN = "drifted", "not measured"
UNUSABLE = (NOTHING, KNOWN, BROKEN, COLLAPSED, MEMORIZED, CAPTIONS, IMAGES)
USABLE = (LEARNED, PARTLY, UNFINISHED, OVERFITTED, DRIFTED, ONE_CAPTION)
OUTCOMES = (*USABLE, *UNUSABLE, UNKNOWN)

SMALL = 0.01  # of the base's loss: less is no change
RUINED = 0.05  # of the base's loss: the last validation is so much worse
TURNED = 0.02  # of the base's loss: the last validation is so much worse than the best one
LITTLE = 0.25  # of the way to the held-out images: less is unfinished
MUCH = 0.4  # of the way: less is learned in part
FALLING = 0.25  # of the whole gain, in the last third of the run: more is unfinished
NO_ROOM = 0.4  # see "room" of MEASURES
KNOWN_GAIN = 0.15  # of the base's loss: what is gained by images that the base draws already
MISFIT = 0.05  # of the base's own caption margin: below, the captions do not say what the images show
ALIKE = 0.1  # share of captions that differ: below, no word was tied to what changes from image to image
DAMAGED = 0.2  # share of images that are noise
UNHEARD = -0.6  # of the base's prompt fit: below, prompts are hardly followed
SAME = 0.35  # collapse
COPIED = 0.34  # share of images that are memorized
GAP = 0.25  # of the base's loss: so much of what was learned is of the trained images alone
FAR = 0.6  # drift
BETTER = 0.02  # of the base's loss: another strength than 1 must be better by this


@dataclass(frozen=True)
class Loss:
    """A validation. spread: standard error of loss - base."""

    step: int
    loss: float
    base: float
    spread: float = 0.0

    @property
    def share(self) -> float:
        """-0.38 for 38 % below the base."""
        return self.loss / self.base - 1 if self.base else 0.0

    @property
    def clear(self) -> float:
        """The smallest change that counts, as a share of the base's loss."""
        return max(2 * self.spread / self.base, SMALL) if self.base else SMALL


@dataclass(frozen=True)
class Evidence:
    """What is known of a run."""

    losses: Sequence[Loss] = ()
    scores: Sequence[Scores] = ()


@dataclass(frozen=True)
class Verdict:
    """outcome: one of OUTCOMES. checkpoint, strength: what to take; 0 where no checkpoint can be used.

    remedy: what helps, a sentence; link: the setting ("training.steps") or view ("dataset:edit") that it means.
    """

    outcome: str
    checkpoint: int
    strength: float
    sentence: str
    remedy: str = ""
    link: str = ""

    @property
    def usable(self) -> bool:
        return self.outcome in USABLE


def verdict_of(evidence: Evidence) -> Verdict:
    """The verdict on a run; also on one that goes on, as it stands."""
    measured = [one for one in evidence.losses if one.step]
    if not measured and not evidence.scores:
        return Verdict(
            UNKNOWN, 0, 1.0, "Nothing was held out and nothing was scored: look at the previews.",
            "Hold some images out, so that it can be measured.", "validation.fraction",
        )  # fmt: skip
    best = min(measured, key=lambda one: one.loss) if measured else None
    card = card_for(evidence.scores, best.step if best else None)
    if best is not None and -best.share < best.clear:
        return _without_gain(measured, best, card)
    if best is not None and card and -best.share < KNOWN_GAIN and _has_no_room(card):
        return _KNOWN
    for fault in _FAULTS:
        found = fault(card) if card else None
        if found:
            other = _sound(evidence, best)
            return _instead(other, found, best) if other and found[0] not in (CAPTIONS, IMAGES) else _unusable(found)
    step = best.step if best else card.step if card else 0
    return _usable(measured, best, card, step)


def card_for(scores: Sequence[Scores], step: int | None) -> Scores | None:
    """The scorecard of the weights of a step, else the one nearest to it."""
    if not scores:
        return None
    return min(scores, key=lambda one: (abs(one.step - step), -one.step)) if step is not None else scores[-1]


_KNOWN = Verdict(
    KNOWN, 0, 1.0,
    "Nothing was learned because there was nothing to learn: the base draws like the held-out images already.",
    "Use the base with prompts like the captions, or add images of what it can not draw.", "dataset:images",
)  # fmt: skip


def _has_one_caption(card: Scores) -> bool:
    return card.get("different") is not None and card.value("different") < ALIKE


def _has_no_room(card: Scores) -> bool:
    return card.get("room") is not None and card.value("room") < NO_ROOM


# Nothing gained -----------------------------------------------------------------------------------------------------


def _without_gain(measured: Sequence[Loss], best: Loss, card: Scores | None) -> Verdict:
    last = measured[-1]
    fault = (_damaged(card) or _misfit(card)) if card else None
    if last.share > RUINED and not fault:
        return Verdict(
            BROKEN, 0, 1.0,
            f"Not usable: the held-out loss is {percent(last.share)} against the base, and never was better than it.",
            "Most likely the learning rate is too high: a third of it is worth a try.", "training.learning_rate",
        )  # fmt: skip
    if fault:
        return _unusable(fault)
    if card and _has_no_room(card):
        return _KNOWN
    # At the rate so far, twice the steps would be seen.
    rising = last is best and -last.share > best.clear / 2
    if rising or (card and card.value("likeness") > LITTLE / 2):
        return Verdict(
            UNFINISHED, 0, 1.0,
            f"Too short: after {pluralize(last.step, 'step')} the held-out loss is {percent(best.share)} against the "
            "base, within the noise.",
            "More steps.", "training.steps",
        )  # fmt: skip
    return Verdict(
        NOTHING, 0, 1.0,
        f"Nothing was learned: the held-out loss stays {percent(best.share)} against the base.",
        "A higher learning rate, more steps, or captions that name what is new.", "training.learning_rate",
    )  # fmt: skip


# Faults of what is drawn --------------------------------------------------------------------------------------------

Fault = tuple[str, str, str, str]  # outcome, what is wrong, remedy, link


def _damaged(card: Scores) -> Fault | None:
    lost = card.get("lost")
    if lost is None or lost.value < DAMAGED:
        return None
    return (
        IMAGES,
        f"{percent(lost.value).lstrip('+')} of the images are noise to the base: its VAE can not render them.",
        "Look through the images and remove what is damaged.",
        "dataset:images",
    )


def _misfit(card: Scores) -> Fault | None:
    fit = card.get("captions")
    if _has_one_caption(card) or fit is None:
        return None
    # Where they fit in the base's eyes, an adapter that can't tell them apart is broken, and they are not.
    if fit.clearly_above(2 * MISFIT) or not (card.get("captions_after") or fit).clearly_below(MISFIT):
        return None
    names = f", {', '.join(card.suspects[:3])} first" if card.suspects else ""
    return (
        CAPTIONS,
        "the captions do not say what the images show: they fit them no better than another image's captions.",
        f"Check the captions{names}.",
        "dataset:edit",
    )


def _collapsed(card: Scores) -> Fault | None:
    same, prompt = card.get("collapse"), card.get("prompt")
    alike = same is not None and same.clearly_above(SAME)
    deaf = prompt is not None and prompt.clearly_below(UNHEARD)
    if not (alike and (deaf or prompt is None)) and not (alike and same is not None and same.value > 2 * SAME):
        return None
    return (
        COLLAPSED,
        "with the trigger all prompts give nearly the same image.",
        "Most likely the trigger stands for the subjects: name them in the captions, or train fewer steps.",
        "dataset:edit",
    )


def _deaf(card: Scores) -> Fault | None:
    prompt = card.get("prompt")
    if prompt is None or not prompt.clearly_below(UNHEARD):
        return None
    return (
        BROKEN,
        f"its images do not show what the prompt asks for ({percent(prompt.value)} prompt fit).",
        "A lower learning rate, or fewer steps.",
        "training.learning_rate",
    )


def _copied(card: Scores) -> Fault | None:
    copies = card.get("memorized")
    if copies is None or copies.value < COPIED:
        return None
    return (
        MEMORIZED,
        f"{percent(copies.value).lstrip('+')} of its images are copies of trained ones.",
        "More images, or fewer steps.",
        "training.steps",
    )


def _learned_by_heart(card: Scores) -> Fault | None:
    gap = card.get("gap")
    if gap is None or not gap.clearly_above(GAP):
        return None
    return (
        MEMORIZED,
        f"the loss on trained images is {percent(-gap.value)} below that on held-out ones, more than was learned of "
        "both.".replace("−", ""),
        "More images, or fewer steps.",
        "training.steps",
    )


_FAULTS: tuple[Callable[[Scores], Fault | None], ...] = (
    _damaged, _misfit, _collapsed, _copied, _deaf, _learned_by_heart,
)  # fmt: skip


def fault_of(card: Scores) -> str:
    """What is wrong with a checkpoint, as one of OUTCOMES; "" for nothing."""
    return next((found[0] for look in _FAULTS if (found := look(card))), "")


def _sound(evidence: Evidence, best: Loss | None) -> tuple[Scores, Loss | None] | None:
    """The scored checkpoint of the lowest loss without a fault, if it is better than the base."""
    losses = {one.step: one for one in evidence.losses}
    fine = [one for one in evidence.scores if one.step and not fault_of(one)]
    if best is not None:
        known = [(one, losses[one.step]) for one in fine if one.step in losses]
        known = [(one, loss) for one, loss in known if -loss.share >= loss.clear]
        return min(known, key=lambda row: row[1].loss) if known else None
    return (fine[-1], None) if fine else None


def _instead(other: tuple[Scores, Loss | None], fault: Fault, best: Loss | None) -> Verdict:
    card, loss = other
    outcome, what, remedy, link = fault
    later = f"step {best.step:,}" if best else "the last step"
    gain = f" (held-out loss {percent(loss.share)} against the base)" if loss else ""
    return Verdict(
        OVERFITTED, card.step, strength_of(card),
        f"Take step {card.step:,}{_at(card)}{gain}: {_facts(card)}. At {later} {what}",
        remedy, link,
    )  # fmt: skip


def _unusable(fault: Fault) -> Verdict:
    outcome, what, remedy, link = fault
    return Verdict(outcome, 0, 1.0, f"Not usable: {what}", remedy, link)


# Something gained ---------------------------------------------------------------------------------------------------


def _usable(measured: Sequence[Loss], best: Loss | None, card: Scores | None, step: int) -> Verdict:
    strength = strength_of(card)
    loss = f"held-out loss {percent(best.share)} against the base" if best else "no held-out loss"
    said = f"{_facts(card)}; {loss}" if card else f"{loss}; what it draws was not scored"
    take = f"Take step {step:,}{_at(card)}: {said}."
    last = measured[-1] if measured else None
    drift = card.get("drift") if card else None
    if last and best and last.share - best.share > max(TURNED, best.clear):
        return Verdict(
            OVERFITTED, step, strength,
            f"{take} Later steps are over-fitted: the loss rose to {percent(last.share)}.",
            "Fewer steps, or more images.", "training.steps",
        )  # fmt: skip
    if drift and drift.clearly_above(FAR):
        return Verdict(
            DRIFTED, step, strength,
            f"{take} It changes unrelated prompts as well ({percent(drift.value)} drift).",
            "Regularization images, or a lower strength.", "data.regularisation",
        )  # fmt: skip
    if card and _has_one_caption(card):
        return Verdict(
            ONE_CAPTION, step, strength,
            f"{take} All images have the same caption: it brings what they share, and no word can ask for the rest.",
            "For a style, say in each caption what its image shows; for one person or thing, what changes.",
            "dataset:edit",
        )  # fmt: skip
    if _unfinished(measured, best, card):
        return Verdict(
            UNFINISHED, step, strength, f"{take} It was still learning when it ended.", "More steps.", "training.steps"
        )
    if card and (likeness := card.get("likeness")) and likeness.value < MUCH:  # as _facts calls it
        return Verdict(
            PARTLY, step, strength, take, "More steps, a higher rank, or more images.", "training.steps"
        )  # fmt: skip
    return Verdict(LEARNED, step, strength, take)


def _unfinished(measured: Sequence[Loss], best: Loss | None, card: Scores | None) -> bool:
    likeness = card.get("likeness") if card else None
    if likeness and likeness.clearly_below(LITTLE):
        return True
    if not best or len(measured) < 3 or best is not measured[-1]:
        return False
    before = [one for one in measured if one.step <= 2 * best.step / 3]
    if not before:
        return False
    gained, lately = -best.share, before[-1].share - best.share
    return lately > max(FALLING * gained, best.clear)


def strength_of(card: Scores | None) -> float:
    """The strength with the lowest held-out loss, 1 unless another is clearly better."""
    if card is None or 1.0 not in card.strengths:
        return 1.0
    strength, share = min(card.strengths.items(), key=lambda row: row[1])
    return strength if share < card.strengths[1.0] - BETTER else 1.0


def _at(card: Scores | None) -> str:
    return f" at strength {strength_of(card):g}" if card and card.strengths else ""


def _facts(card: Scores) -> str:
    """ "learned (+41 % likeness), prompts kept (−3 %), no memorization"."""
    parts = []
    likeness, prompt, copies = card.get("likeness"), card.get("prompt"), card.get("memorized")
    if likeness:
        word = (
            "learned" if likeness.value >= MUCH else "partly learned" if likeness.value >= LITTLE else "little learned"
        )
        parts.append(f"{word} ({percent(likeness.value)} likeness)")
    if prompt:
        word = "prompts kept" if prompt.value > UNHEARD / 2 else "prompts followed less"
        parts.append(f"{word} ({percent(min(prompt.value, 0.0) or 0.0)})")
    if copies:
        near = math.ceil(copies.value * copies.count)
        parts.append(f"{pluralize(near, 'image')} near to trained ones" if near else "no memorization")
    return ", ".join(parts) or "nothing scored"
