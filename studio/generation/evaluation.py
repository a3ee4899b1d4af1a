"""What an adapter does at each strength, in numbers, as an image encoder (a CLIP, arXiv:2103.00020) sees the images.

prompt    cosine of an image and its prompt, trigger words left out: whether it still shows what was asked for
likeness  mean cosine of an image and the training images: how much of their style or subject came over
nearest   cosine of an image and the training image nearest to it: near to 1 when it was memorized

Arrays are numpy's, float32. No torch here, so that a page can show what was measured before torch is loaded.
"""

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import AliasChoices, Field

from studio.captioning.batching import Batches
from studio.captioning.loading import opened, readable
from studio.captioning.scoring import BATCH, Clip
from studio.datasets import Item
from studio.errors import DatasetError, GenerationError
from studio.generation.prompts import BREAK, parse
from studio.workspace import atomic_write, sha256_of

MAX_IMAGES = 512  # training images that are compared with
KEPT = 20_000  # images that a cache of one image encoder holds
TWINS = 0.995  # two training images nearer than this are the same one twice
SLIGHT = 0.02  # of a cosine; less is not taken for a difference
GAINED = 0.8  # of the greatest gain in likeness
FALLEN = 0.15  # of the likeness to the prompt

RULE = (
    "The range begins at the first strength with four fifths of the greatest gain in likeness to the training set. It "
    "ends before the images fit their prompt 15 % less than at a lower strength, and before they are nearer to a "
    "training image than training images are to each other. Where the end comes before the beginning, what lies "
    "between them is a trade. Means over the seeds decide."
)


@dataclass(frozen=True)
class TrainingImages:
    """A training set: a row of `seen` (N, width) for each of its images, as unit vectors."""

    images: tuple[Path, ...]
    seen: np.ndarray

    @property
    def alike(self) -> float | None:
        """Mean cosine of two different images; None when there are none."""
        count = len(self.seen)
        total = float(np.square(self.seen.sum(0, dtype=np.float64)).sum())  # over all pairs, each with itself too
        return (total - count) / (count * (count - 1)) if count > 1 else None

    @property
    def usual(self) -> float | None:
        """See `usual_nearness`; None when there are too few images to compare."""
        return typical_nearness(self.seen) if len(self.seen) > 2 else None


@dataclass(frozen=True)
class SweepScores:
    """Numbers of the images of one seed, one for each strength; the last three are empty without a training set."""

    seed: int
    images: Annotated[tuple[str, ...], Field(validation_alias=AliasChoices("images", "pictures"))]  # names of files
    prompt: tuple[float, ...]
    likeness: tuple[float, ...] = ()
    nearest: tuple[float, ...] = ()
    which: tuple[Path, ...] = ()  # the nearest training image


@dataclass(frozen=True)
class Suggestion:
    """low, high: a range of strength, None where there is none to suggest; words: why, in a sentence or two.

    trade: no strength of it has both, likeness to the training set and to the prompt
    """

    low: float | None
    high: float | None
    words: str
    trade: bool = False


@dataclass(frozen=True)
class Measured:
    """What was measured of one adapter.

    usual, alike  of the training set `dataset`, see TrainingImages
    held_out      of the adapter's run: its held-out loss against the base's, -0.38 for 38 % lower; None: not known
    verdict       on the adapter's run, in a sentence; "" where none is known
    """

    adapter: str
    prompt: str
    encoder: str
    strengths: tuple[float, ...]
    sweeps: Annotated[tuple[SweepScores, ...], Field(validation_alias=AliasChoices("sweeps", "strips"))]  # by seed
    dataset: str = ""
    compared: int = 0  # images of the training set
    usual: float | None = None
    alike: float | None = None
    held_out: float | None = None
    verdict: str = ""

    def curve(self, measure: str) -> list[tuple[float, float]]:
        """(mean, standard deviation) over the seeds at each strength; [] of what was not measured."""
        rows = np.array([getattr(sweep, measure) for sweep in self.sweeps])
        return list(zip(rows.mean(0).tolist(), rows.std(0).tolist())) if rows.size else []

    def suggestion(self) -> Suggestion:
        prompt, likeness, nearest = (
            [mean for mean, _ in self.curve(measure)] for measure in ("prompt", "likeness", "nearest")
        )
        found = suggest(self.strengths, prompt, likeness, nearest, self.usual)
        beside = f"The run's verdict: {self.verdict}" if self.verdict else beside_loss(found, self.held_out)
        return replace(found, words=" ".join(filter(None, [found.words, beside])))


# Nearness -----------------------------------------------------------------------------------------------------------


def typical_nearness(seen: np.ndarray) -> float:
    """How near the nearest pairs of a set are to each other: (N, width) unit vectors, N at least 3.

    TWINS where all of them are the same image.
    """
    near = seen @ seen.T
    np.fill_diagonal(near, -1)
    near[near > TWINS] = -1
    usual = float(np.quantile(near.max(1), 0.95))
    return usual if usual > -1 else TWINS


def is_memorized(near: float, usual: float, before: float) -> bool:
    """Whether an image is nearer to a training image than those are to each other, and than without the adapter."""
    return near > usual and near > before + SLIGHT


# A range of strength ------------------------------------------------------------------------------------------------


def suggest(
    strengths: Sequence[float],
    prompt: Sequence[float],
    likeness: Sequence[float] = (),
    nearest: Sequence[float] = (),
    usual: float | None = None,
) -> Suggestion:
    """The range of strength in which an adapter does its work and no harm.

    strengths ascend from 0; the others are means at each; likeness and nearest are empty without a training set.

    low   the first strength with GAINED of the greatest gain in likeness, if that is SLIGHT at least
    high  the last strength before prompt falls by FALLEN (and SLIGHT) from its highest value at a lower strength, and
          before `is_memorized` is true of nearest

    Where low lies above high no strength has both, and the range between them is a trade.
    """
    lost = memorized = None
    for place, strength in enumerate(strengths):
        best = max(prompt[: place + 1])
        if lost is None and prompt[place] < best - max(FALLEN * abs(best), SLIGHT):
            lost = strength
        if memorized is None and usual is not None and nearest and is_memorized(nearest[place], usual, nearest[0]):
            memorized = strength
    ends = [strength for strength in (lost, memorized) if strength is not None]
    high = max(strength for strength in strengths if not ends or strength < min(ends))
    end = _end(lost, memorized)
    if not likeness:
        if not high:
            return Suggestion(None, None, f"{end[0].upper()}{end[1:]}.")
        return Suggestion(
            0.0, high, f"{end[0].upper()}{end[1:]}. From where on the adapter shows, only a training set can tell."
        )
    gain = max(likeness) - likeness[0]
    if gain < SLIGHT:
        return Suggestion(None, None, "No strength makes the images more like the training set.")
    low = next(at for at, value in zip(strengths, likeness) if value >= likeness[0] + GAINED * gain)
    if low > high:
        return Suggestion(
            high,
            low,
            f"Most of the likeness to the training set comes only at {low:g}, but {end}: try what lies between.",
            trade=True,
        )
    return Suggestion(low, high, f"From {low:g} on most of the likeness to the training set is there; {end}.")


def beside_loss(found: Suggestion, held_out: float | None) -> str:
    """What a range of strength means beside the held-out loss of the run, in a sentence; "" where that is not known."""
    if held_out is None:
        return ""
    if held_out > -SLIGHT:
        said = "The run's held-out loss did not fall"
        return f"{said}: what changes is not what the training set has." if found.low is not None else f"{said} either."
    said = f"The run's held-out loss fell by {-100 * held_out:.0f} %"
    if found.low is not None:
        return f"{said}."
    return (
        f"{said} all the same, so something was learned that shows little in this prompt or to this image encoder, or "
        "that costs the prompt: look at the images, and measure with a prompt like the captions."
    )


def _end(lost: float | None, memorized: float | None) -> str:
    """What ends the range."""
    if memorized is not None and (lost is None or memorized < lost):
        return f"at {memorized:g} the images come too near to single training images"
    return f"at {lost:g} the prompt is followed noticeably less" if lost is not None else "no strength is too much"


# Measuring ----------------------------------------------------------------------------------------------------------


def plain_words(prompt: str, triggers: Sequence[str] = ()) -> str:
    """The prompt as an image encoder should read it: without weights and trigger words, unless those are all."""
    text = "".join(" " if part.weight == BREAK else part.text for part in parse(prompt))
    kept = text
    for word in triggers:
        kept = re.sub(rf"(?<!\w){re.escape(word.strip())}(?!\w)", "", kept, flags=re.IGNORECASE)
    phrases = (" ".join(phrase.split()) for phrase in kept.split(","))
    return ", ".join(filter(None, phrases)) or " ".join(text.split())


def embed_training_images(
    items: Sequence[Item],
    clip: Clip,
    cache: Path,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingImages:
    """The training images as `clip` sees them; of more than MOST, every second or third … is taken.

    cache     a folder in which is kept, by an image's content, what was seen once
    progress  called with (done, total)

    Raises DatasetError when no image can be read, GenerationError when stopped.
    """
    items = items[:: -(-len(items) // MAX_IMAGES) or 1]
    file = cache / f"{_fingerprint(clip)}.npz"
    seen = _read(file)
    digests = {item.path: digest for item in items if (digest := sha256_of(item.path))}
    missing = [item for item in items if item.path in digests and digests[item.path] not in seen]
    batches, done = Batches(BATCH), len(items) - len(missing)
    for ready in opened(missing, clip.side, batches):
        if stop is not None and stop.is_set():
            raise GenerationError("Stopped.")
        good, _ = readable(ready)
        rows = batches.run(lambda part: list(_embed(clip, part)), [image for _, image in good])
        seen |= {digests[item.path]: row for (item, _), row in zip(good, rows) if isinstance(row, np.ndarray)}
        done += len(ready)
        if progress:
            progress(done, len(items))
    paths = [path for path, digest in digests.items() if digest in seen]
    if not paths:
        raise DatasetError("None of the training images can be read: choose another dataset, or none.")
    if missing:
        wanted = {digests[path] for path in paths}
        _write(
            file,
            {key: row for key, row in list(seen.items())[-KEPT:] if key not in wanted}
            | {key: seen[key] for key in wanted},
        )
    return TrainingImages(tuple(paths), np.stack([seen[digests[path]] for path in paths]))


def score_sweep(
    images: Sequence[Image.Image],
    names: Sequence[str],
    seed: int,
    words: str,
    clip: Clip,
    known: TrainingImages | None,
) -> SweepScores:
    """The scores of the images of one strength sweep. words: as `plain_words` has them."""
    seen = np.concatenate([_embed(clip, list(images[at : at + BATCH])) for at in range(0, len(images), BATCH)])
    fits = tuple((seen @ _array(clip.embed_texts([words]))[0]).tolist())
    if known is None:
        return SweepScores(seed, tuple(names), fits)
    near = seen @ known.seen.T  # (images, N)
    which = tuple(known.images[at] for at in near.argmax(1))
    return SweepScores(seed, tuple(names), fits, tuple(near.mean(1).tolist()), tuple(near.max(1).tolist()), which)


def _embed(clip: Clip, images: list[Image.Image]) -> np.ndarray:
    return _array(clip.embed_images(images))


def _array(rows) -> np.ndarray:
    """A torch tensor's numbers."""
    return np.asarray(rows, np.float32)


# What was seen once -------------------------------------------------------------------------------------------------


def _fingerprint(clip: Clip) -> str:
    """An image encoder is identified by its embedding of one image, whatever its name."""
    image = Image.linear_gradient("L").convert("RGB")
    return hashlib.sha256((np.round(_embed(clip, [image]), 3) + 0.0).tobytes()).hexdigest()[:32]


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as found:
            return dict(zip(found["digests"].tolist(), found["seen"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _write(file: Path, seen: dict[str, np.ndarray]) -> None:
    stream = io.BytesIO()
    np.savez(stream, digests=np.array(list(seen)), seen=np.stack(list(seen.values())))
    atomic_write(file, stream.getvalue(), lasting=False)
