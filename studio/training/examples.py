"""From image files to what a step learns from: latents and text states, made once, in batches, and kept on disk.

A batch is read from the disk's cache when it is needed, so that a run's memory does not grow with its images.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from studio import devices
from studio.basemodels import Family
from studio.basemodels.family import Size
from studio.datasets import Frame, Item
from studio.datasets.images import has_alpha, size_of
from studio.datasets.masks import has_other_shape
from studio.errors import DatasetError, RunError
from studio.text import pluralize
from studio.training.augmenting import Augmented, augments, variants_of
from studio.training.cache import Cache, Tensors, key_of
from studio.training.caption_variants import caption_of, captions_of, fixed_caption_of
from studio.training.config_sections import DataConfig
from studio.training.distributed import Distributed
from studio.training.prior_prediction import prior_captions
from studio.training.selection import Selection, Source, frames_of, is_too_small, name_of

BATCH = 16  # images, or captions, at a time
MUCH_LOST = 0.2  # share of an image that is cut off: more is said
MUCH_ENLARGED = 2.0
VERSION = 2  # of what is in a cache file of an image; another number makes all of them again
TEXT_VERSION = 3  # the same of a caption's: since 3 in as many chunks as the caption takes

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One image with its words: names of cache files, no tensors. name: as `selection.name_of` has it."""

    name: str
    item: Item
    frame: Frame
    latents: tuple[str, ...]  # of each variant: as it is, and mirrored where that is wanted
    captions: tuple[str, ...]  # those that a batch draws from
    caption: str = ""  # with nothing drawn
    repeats: int = 1
    weight: float = 1.0  # of its loss
    regularization: bool = False
    original: tuple[int, int] = (0, 0)  # width and height in pixels, as it is on disk
    digest: str = ""  # SHA-256 of the file
    mask: str = ""  # "" for none, "alpha" for the image's own, else SHA-256 of the mask's file
    variants: tuple[Augmented, ...] = ()  # () where the image is trained as it is
    folder: str = ""  # label of the dataset folder that it is from; "" for regularization and validation images
    folder_weight: float | None = None
    sizes: int = 1  # in how many sizes the image is trained
    is_main: bool = True  # whether this is the one of `data.resolution`
    priors: tuple[str | None, ...] = ()  # of each caption, see `prior_prediction.prior_captions`

    @property
    def flips(self) -> int:
        """1, or 2 where it is mirrored as well."""
        return len(self.latents) // max(1, len(self.variants))

    @property
    def crops(self) -> tuple[Augmented, ...]:
        """What is encoded, each in `flips` ways."""
        return self.variants or (Augmented(self.frame),)

    @property
    def enlarged(self) -> float:
        """By what factor it is enlarged to fill its bucket; 1 or less where it is not."""
        return max(self.frame.scaled[0] / self.original[0], self.frame.scaled[1] / self.original[1])


@dataclass(frozen=True)
class Unreadable:
    """An image that can't be decoded, and why."""

    path: Path
    message: str


@dataclass(frozen=True)
class Row:
    """One place in a batch: which image, whether mirrored, in which words ("" for none), which of its variants."""

    example: Example
    mirrored: bool
    caption: str
    variant: int = 0

    @property
    def latents(self) -> str:
        """The name of its cache file."""
        return self.example.latents[self.variant * self.example.flips + self.mirrored]

    @property
    def framing(self) -> tuple[Size, Size, Size]:
        """(size on disk, left and top of the crop after scaling, size of the crop): see `Family.size_conditioning`."""
        frame = self.example.crops[self.variant].frame
        return self.example.original, (frame.left, frame.top), frame.size

    @property
    def prior(self) -> str | None:
        """The caption for prior prediction; None where this place has none, as without a caption."""
        return dict(zip(self.example.captions, self.example.priors)).get(self.caption)


@dataclass(frozen=True)
class Batch:
    """B images of one size, on the device.

    mean, spread: (B, C, h, w) of the scaled latents, spread 0 where the VAE gives none; weight: (B, 1, h, w) of the
    loss; conditions: each (B, …), empty when the text encoder trains.
    """

    rows: list[Row]
    mean: Tensor
    spread: Tensor
    weight: Tensor
    conditions: Tensors


def list_examples(
    items: list[Item],
    base: Family,
    cache: Cache,
    data: DataConfig,
    seed: int,
    regularization: bool = False,
    stop: threading.Event | None = None,
    chosen: Selection | None = None,
    held_out: bool = False,
) -> tuple[list[Example], list[str]]:
    """(examples, one line for each image that is left out). Reads headers only; nothing is encoded yet.

    An image is one example for each size that it is trained in, the first of them at `data.resolution`. Ends early on
    `stop`: a disk may be slow.

    chosen: says which folder an image is of. held_out: nothing of it varies, and it has one size.
    """
    examples, problems, model = list[Example](), list[str](), _vae_identity(base)
    for item in items:
        if stop is not None and stop.is_set():
            break
        try:
            cache.facts(item)
        except (DatasetError, OSError) as error:
            problems.append(f"Left out: {error if isinstance(error, DatasetError) else item.path.name + ' is gone.'}")
            continue
        source = chosen.source_of(item) if chosen else None
        followed = source.data if source else data
        own = _listed(item, base, model, cache, followed, seed, regularization, held_out, source)
        examples += own if isinstance(own, list) else []
        problems += [own] if isinstance(own, str) else []
    return examples, problems


def _listed(
    item: Item,
    base: Family,
    model: str,
    cache: Cache,
    data: DataConfig,
    seed: int,
    regularization: bool,
    held_out: bool,
    source: Source | None,
) -> list[Example] | str:
    """The examples of an image, or why it is left out. model: what its latents are encoded by."""
    digest, width, height = cache.facts(item)
    frames = frames_of(width, height, data, base.resolution, base.multiple)
    if is_too_small(width, height, frames[0], data):
        least = " × ".join(map(str, frames[0].size))
        return (
            f"Left out: {item.path.name} has {width} × {height} pixels, fewer than the smallest bucket of {least}: "
            "use a larger copy, or set data.upscale to true."
        )
    mask = _mask_of(item, cache) if data.masks else ""
    if held_out:
        frames, captions = frames[:1], fixed_caption_of(item, data, seed)
    else:
        captions = captions_of(item, data, seed, regularization)
    plain = Example(
        name_of(item, data.regularisation if regularization else ""),
        item,
        frames[0],
        (),
        captions,
        caption_of(item, data),
        repeats=item.repeats * data.repeats,
        weight=data.regularisation_weight if regularization else 1.0,
        regularization=regularization,
        original=(width, height),
        digest=digest,
        mask=mask,
        folder=source.label if source else "",
        folder_weight=source.line.weight if source else None,
        sizes=len(frames),
        priors=() if held_out else prior_captions(captions, data, regularization),
    )
    found = []
    for frame in frames:
        made_of = (VERSION, model, digest, frame.size, frame.scaled, mask)
        variants = variants_of(frame, (width, height), data, seed, digest) if augments(data) and not held_out else ()
        facts: list[tuple[object, ...]] = [(astuple(one),) for one in variants] or [()]
        latents = tuple(key_of(*made_of, m, *fact) for fact in facts for m in (False, True)[: 1 + data.flip])
        found.append(replace(plain, frame=frame, latents=latents, variants=variants, is_main=frame is frames[0]))
    return found


def about_frames(examples: list[Example]) -> list[str]:
    """A line on images that lose much by cutting, and one on those that are enlarged much."""
    lines, examples = [], [e for e in examples if e.is_main]
    cut = sorted((e for e in examples if e.frame.lost > MUCH_LOST), key=lambda e: -e.frame.lost)
    if cut:
        lines.append(
            f"{pluralize(len(cut), 'image')} cut by more than {MUCH_LOST:.0%} to fit a bucket, {cut[0].name} the most: "
            f"{cut[0].frame.lost:.0%} of it is lost."
        )
    grown = sorted((e for e in examples if e.enlarged > MUCH_ENLARGED), key=lambda e: -e.enlarged)
    if grown:
        lines.append(
            f"{pluralize(len(grown), 'image')} enlarged more than {MUCH_ENLARGED:g} times, {grown[0].name} the most: "
            f"{grown[0].enlarged:.1f} times."
        )
    return lines


def about_tokens(examples: list[Example], base: Family, most: int = 0) -> list[str]:
    """A line on captions that are longer than what is read of them. most: `data.max_token_length`."""
    lost = {caption: base.tokens(caption, most)[1] for caption in {c for e in examples for c in e.captions}}
    cut = [e for e in examples if e.is_main and any(lost[caption] for caption in e.captions)]
    if not cut:
        return []
    name, rest = cut[0].name, next(lost[caption] for caption in cut[0].captions if lost[caption])
    what = f"the text encoder of {base.title} reads"
    if base.reads_on and most:
        what = f"data.max_token_length, {most} tokens"
    return [
        f"{pluralize(len(cut), 'caption')} longer than {what}: of {name}, "
        f"{rest if len(rest) <= 60 else '…' + rest[-60:]!r} is not trained."
    ]


def about_variety(examples: list[Example]) -> list[str]:
    """A line on what a run draws from: sizes, variants of images, variants of captions; [] where nothing varies."""
    own = [e for e in examples if not e.regularization]
    parts, sizes = [], max((e.sizes for e in own), default=1)
    if sizes > 1:
        every = sum(e.is_main and e.sizes == sizes for e in own)
        parts.append(f"{pluralize(every, 'image')} in {sizes} sizes each")
    if variants := sum(len(e.variants) for e in own):
        parts.append(f"{variants} variants of images")
    if max((len(e.captions) for e in own), default=1) > 1:
        parts.append(f"{pluralize(len({c for e in own for c in e.captions}), 'caption')} to draw from")
    return [f"Trained: {', '.join(parts)}."] if parts else []


def about_masks(examples: list[Example], data: DataConfig) -> list[str]:
    """A line where masks are wanted and there are none, or not on each of the person's own images, and on those of
    another shape than their images.
    """
    own = [e for e in examples if not e.regularization and e.is_main] if data.masks else []
    strange = [e.name for e in own if _is_stretched(e)]
    lines = []
    if strange:
        many = pluralize(len(strange), "mask")
        lines = [f"{many} of another shape than the image, {strange[0]} among them: stretched over it."]
    lacking = [e.name for e in own if e.mask == "alpha" and not _has_alpha(e.item)]
    if not lacking:
        return lines
    if len(lacking) == len(own):
        return ["data.masks has no effect: no image has an alpha channel or a -masklabel.png beside it."]
    return [*lines, f"No mask, so all of it counts: {pluralize(len(lacking), 'image')}, {lacking[0]} among them."]


def encode_missing(
    examples: list[Example],
    base: Family,
    cache: Cache,
    distributed: Distributed,
    stop: threading.Event,
    data: DataConfig,
    texts: bool = True,
) -> Iterator[tuple[int, int] | Unreadable]:
    """Encode what the cache does not hold, yielding (done, total), and each image that can't be decoded.

    Images are decoded on every core while others are encoded; each process does its share. Ends early on `stop`: what
    is done stays done.
    """
    model = _text_identity(base, data)
    known = {caption for e in examples for caption in (*e.captions, *e.priors) if caption is not None}
    captions = sorted(known | {""}) if texts else []
    words = [c for c in captions[distributed.rank :: distributed.count] if not cache.has(_text_key(model, c))]
    images = [e for e in examples if not all(cache.has(key) for key in e.latents)]
    images = sorted(images, key=lambda e: e.frame.size)[distributed.rank :: distributed.count]
    total, done, yielded_at = len(words) + len(images), 0, 0.0
    if total:
        yield 0, total
    for part in _equally_long(words, base, data.max_token_length):
        with torch.no_grad():
            states = base.encode_prompt(part, data.clip_skip, data.max_token_length)
        for row, caption in enumerate(part):
            cache.write(_text_key(model, caption), {name: value[row].clone() for name, value in states.items()})
        done += len(part)
        if stop.is_set():
            return
        if time.monotonic() - yielded_at > 0.5:
            yielded_at = time.monotonic()
            yield done, total
    with ThreadPoolExecutor(os.cpu_count() or 1, "decode") as pool:
        groups = list(_same_size(images))
        decode = partial(_decode, masks=data.masks)
        waiting = [pool.map(decode, group) for group in groups[:2]]
        for number, group in enumerate(groups):
            decoded = []
            for found in waiting.pop(0):
                decoded.append(found)
                if stop.is_set():
                    pool.shutdown(wait=False, cancel_futures=True)
                    return
            if number + 2 < len(groups):  # the next ones are decoded while these are encoded
                waiting.append(pool.map(decode, groups[number + 2]))
            yield from (problem for problem in decoded if isinstance(problem, Unreadable))
            readable = [(e, found) for e, found in zip(group, decoded) if not isinstance(found, Unreadable)]
            for few in _together(readable, base):
                _encode(few, base, cache)
            done += len(group)
            if stop.is_set():
                pool.shutdown(wait=False, cancel_futures=True)
                return
            if time.monotonic() - yielded_at > 0.5 or done == total:
                yielded_at = time.monotonic()
                yield done, total


class BatchLoader:
    """Reads batches from the cache."""

    def __init__(self, base: Family, cache: Cache, data: DataConfig, texts: bool = True):
        """texts: whether conditions are read; not when the text encoder trains."""
        self.cache, self.device, self.data, self.texts = cache, base.device, data, texts
        self._model, self._join = _text_identity(base, data), base.join

    def read(self, rows: list[Row]) -> Batch:
        """Raises RunError when a cache file is gone or damaged."""
        latents = [self._found(row.latents, row) for row in rows]
        weights = [self._weight(found) * row.example.weight for found, row in zip(latents, rows)]
        words = self.words(rows, [row.caption for row in rows]) if self.texts else {}
        return Batch(
            rows,
            self._stack([found["mean"] for found in latents]),
            self._stack([found.get("spread", torch.zeros(())).expand_as(found["mean"]) for found in latents]),
            self._stack(weights),
            words,
        )

    def words(self, rows: list[Row], captions: list[str]) -> Tensors:
        """The conditions of these captions, one for each row, on the device. Raises RunError as `read` does."""
        texts = [self._found(_text_key(self._model, caption), row) for row, caption in zip(rows, captions)]
        joined = self._join([{name: value[None] for name, value in text.items()} for text in texts])
        return {name: value.to(self.device, non_blocking=True) for name, value in joined.items()}

    def _found(self, key: str, row: Row) -> Tensors:
        found = self.cache.read(key)
        if found is None:
            name = row.example.name
            raise RunError(f"The cached form of {name} is gone or damaged: resume the run, and it is made again.")
        return found

    def _weight(self, found: Tensors) -> Tensor:
        if not self.data.masks or "mask" not in found:
            return torch.ones(1, *found["mean"].shape[1:])
        return self.data.outside + (1 - self.data.outside) * found["mask"]

    def _stack(self, tensors: list[Tensor]) -> Tensor:
        return torch.stack(tensors).to(self.device, non_blocking=True)


Pixels = list[tuple[Image.Image, Image.Image | None]]  # of each variant, with the mask at the same size


def _decode(example: Example, masks: bool) -> Pixels | Unreadable:
    """The training pixels, or why there are none."""
    try:
        mask = example.item.load_mask() if masks else None
        enough = 2 * max(max(one.frame.scaled) for one in example.crops)  # so that Lanczos still scales it down
        image = example.item.load(enough)
        return [(one.image(image), mask and one.mask(mask)) for one in example.crops]
    except DatasetError as error:
        return Unreadable(example.item.path, f"Left out: {error}")


def _encode(decoded: list[tuple[Example, Pixels]], base: Family, cache: Cache) -> None:
    """Encode images of one size and keep them, in each variant; mirrored as well where an example has such keys."""
    ways = max(len(example.crops) for example, _ in decoded)
    for variant, mirrored in ((v, m) for v in range(ways) for m in (0, 1)):
        having = [
            (Row(example, bool(mirrored), "", variant).latents, pixels[variant])
            for example, pixels in decoded
            if variant < len(example.crops) and mirrored < example.flips
        ]
        if not having:
            continue
        turn = ImageOps.mirror if mirrored else (lambda image: image)
        mean, spread = base.encode_image([turn(image) for _, (image, _) in having])
        for row, (key, (_, mask)) in enumerate(having):
            kept = {"mean": mean[row].clone()}
            if spread is not None:
                kept["spread"] = spread[row].clone()
            if mask is not None:  # (1, h, w), 0 to 1: the mean of what each latent covers
                pixels = torch.from_numpy(np.asarray(turn(mask), np.float32) / 255)[None, None]
                kept["mask"] = F.interpolate(pixels, mean.shape[2:], mode="area")[0]
            cache.write(key, kept)


def _text_key(model: str, caption: str) -> str:
    return key_of(TEXT_VERSION, model, caption)


def _vae_identity(base: Family) -> str:
    """The VAE and the precision it computes in."""
    return key_of(base.identity("vae"), str(base.pipeline.vae.dtype), base.choice.variant, base.choice.family)


def _text_identity(base: Family, data: DataConfig) -> str:
    """The text encoders, each with the precision it computes in (large ones follow the denoiser's), and how they read
    a caption.
    """
    modules = base.modules()
    dtypes = [str(modules[name].dtype) for name in base.text_encoders if name in modules]
    how = [data.clip_skip, data.max_token_length, base.text_length]
    return key_of(base.identity(*base.text_parts), dtypes, base.choice.variant, base.choice.family, how)


def _mask_of(item: Item, cache: Cache) -> str:
    """What the mask is made of: the content of its own file, else the image's alpha channel."""
    file = item.mask_file
    return cache.digest(file) if file else "alpha"


def _is_stretched(example: Example) -> bool:
    file = example.item.mask_file
    try:
        return file is not None and has_other_shape(size_of(file), example.original)
    except DatasetError:  # said when it is encoded
        return False


def _has_alpha(item: Item) -> bool:
    try:
        return has_alpha(item.path)
    except DatasetError:  # said when it is encoded
        return True


def _together(rows: list[T], base: Family) -> Iterator[list[T]]:
    """As an accelerator likes them; one by one on a CPU, where that costs nothing and a row's last bits do not depend
    on its neighbours: a cache that was interrupted, or mended, then holds the same as any other.
    """
    size = BATCH if devices.is_accelerator(base.device) else 1
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _equally_long(captions: list[str], base: Family, most: int) -> Iterator[list[str]]:
    """What is encoded together: captions that are read in equally many chunks."""
    by_length: dict[int, list[str]] = {}
    for caption in captions:
        by_length.setdefault(base.chunks([(caption, 1.0)], most), []).append(caption)
    for length in sorted(by_length):
        yield from _together(by_length[length], base)


def _same_size(examples: list[Example]) -> Iterator[list[Example]]:
    """Runs of at most BATCH images of one bucket, variants counted; they come sorted."""
    part: list[Example] = []
    for example in examples:
        full = (len(part) + 1) * max(len(one.crops) for one in (*part, example)) > BATCH
        if part and (full or part[0].frame.size != example.frame.size):
            yield part
            part = []
        part.append(example)
    if part:
        yield part
