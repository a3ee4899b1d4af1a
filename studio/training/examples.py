"""From image files to what a step learns from: latents and text states, made once, in batches, and kept on disk.

A batch is read from the disk's cache when it is needed, so that a run's memory does not grow with its images.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from studio.datasets import Frame, Item, frame_of
from studio.datasets.images import has_alpha, size_of
from studio.datasets.masks import has_other_shape
from studio.errors import DatasetError, RunError
from studio.text import pluralize
from studio.training.cache import Cache, Tensors, key_of
from studio.training.config_sections import DataConfig
from studio.training.distributed import Distributed
from studio.training.selection import caption_of, is_too_small, name_of, orders_of

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
    latents: tuple[str, ...]  # as it is, and mirrored where that is wanted
    captions: tuple[str, ...]  # in each order of its tags
    repeats: int = 1
    weight: float = 1.0  # of its loss
    regularization: bool = False
    original: tuple[int, int] = (0, 0)  # width and height in pixels, as it is on disk
    digest: str = ""  # SHA-256 of the file
    mask: str = ""  # "" for none, "alpha" for the image's own, else SHA-256 of the mask's file

    @property
    def enlarged(self) -> float:
        """By what factor it is enlarged to fill its bucket; 1 or less where it is not."""
        return max(self.frame.scaled[0] / self.original[0], self.frame.scaled[1] / self.original[1])

    @property
    def framing(self) -> tuple[Size, Size, Size]:
        """(size on disk, left and top of the crop after scaling, size of the crop): see `Family.size_conditioning`."""
        return self.original, (self.frame.left, self.frame.top), self.frame.size


@dataclass(frozen=True)
class Unreadable:
    """An image that can't be decoded, and why."""

    path: Path
    message: str


@dataclass(frozen=True)
class Row:
    """One place in a batch: which image, whether mirrored, and in which words ("" for none)."""

    example: Example
    mirrored: bool
    caption: str


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
) -> tuple[list[Example], list[str]]:
    """(examples, one line for each image that is left out). Reads headers only; nothing is encoded yet.

    Ends early on `stop`: a disk may be slow.
    """
    examples, problems = [], []
    resolution = data.resolution or base.resolution
    step = max(base.multiple, 64 if resolution >= 512 else 0)
    model = _vae_identity(base)
    for item in items:
        if stop is not None and stop.is_set():
            break
        try:
            digest, width, height = cache.facts(item)
        except (DatasetError, OSError) as error:
            problems.append(f"Left out: {error if isinstance(error, DatasetError) else item.path.name + ' is gone.'}")
            continue
        frame = frame_of(width, height, resolution, step, data.buckets, data.upscale)
        if is_too_small(width, height, frame, data):
            least = " × ".join(map(str, frame.size))
            problems.append(
                f"Left out: {item.path.name} has {width} × {height} pixels, fewer than the smallest bucket of {least}: "
                "use a larger copy, or set data.upscale to true."
            )
            continue
        mask = _mask_of(item, cache) if data.masks else ""
        made_of = (VERSION, model, digest, frame.size, frame.scaled, mask)
        caption = item.caption.strip() if regularization else caption_of(item, data.trigger)
        captions = orders_of(caption, data.keep_tags, seed) if data.shuffle_tags else [caption]
        mirrored = (False, True) if data.flip else (False,)
        name = name_of(item, data.regularisation if regularization else "")
        examples.append(
            Example(
                name,
                item,
                frame,
                latents=tuple(key_of(*made_of, m) for m in mirrored),
                captions=tuple(captions),
                repeats=item.repeats * data.repeats,
                weight=data.regularisation_weight if regularization else 1.0,
                regularization=regularization,
                original=(width, height),
                digest=digest,
                mask=mask,
            )
        )
    return examples, problems


def about_frames(examples: list[Example]) -> list[str]:
    """A line on images that lose much by cutting, and one on those that are enlarged much."""
    lines = []
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
    cut = [(e.name, lost[e.captions[0]]) for e in examples if lost[e.captions[0]]]
    if not cut:
        return []
    name, rest = cut[0]
    what = f"the text encoder of {base.title} reads"
    if base.reads_on and most:
        what = f"data.max_token_length, {most} tokens"
    return [
        f"{pluralize(len(cut), 'caption')} longer than {what}: of {name}, "
        f"{rest if len(rest) <= 60 else '…' + rest[-60:]!r} is not trained."
    ]


def about_masks(examples: list[Example], data: DataConfig) -> list[str]:
    """A line where masks are wanted and there are none, or not on each of the person's own images, and on those of
    another shape than their images.
    """
    own = [e for e in examples if not e.regularization] if data.masks else []
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
    captions = sorted({caption for e in examples for caption in e.captions} | {""}) if texts else []
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
        latents = [self._found(row.example.latents[row.mirrored], row) for row in rows]
        weights = [self._weight(found) * row.example.weight for found, row in zip(latents, rows)]
        texts = [self._found(_text_key(self._model, row.caption), row) for row in rows] if self.texts else []
        words = self._join([{name: value[None] for name, value in text.items()} for text in texts]) if texts else {}
        return Batch(
            rows,
            self._stack([found["mean"] for found in latents]),
            self._stack([found.get("spread", torch.zeros(())).expand_as(found["mean"]) for found in latents]),
            self._stack(weights),
            {name: value.to(self.device, non_blocking=True) for name, value in words.items()},
        )

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


def _decode(example: Example, masks: bool) -> tuple[Image.Image, Image.Image | None] | Unreadable:
    """(the training pixels, the mask at the same size), or why there are none."""
    try:
        mask = example.item.load_mask() if masks else None
        enough = 2 * max(example.frame.scaled)  # so that what remains is still scaled down, by Lanczos
        return example.frame.cut(example.item.load(enough)), mask and example.frame.cut(mask)
    except DatasetError as error:
        return Unreadable(example.item.path, f"Left out: {error}")


def _encode(decoded: list[tuple[Example, tuple[Image.Image, Image.Image | None]]], base: Family, cache: Cache) -> None:
    """Encode images of one size and keep them; mirrored as well where an example has a second key."""
    for mirrored in range(max(len(example.latents) for example, _ in decoded)):
        turn = ImageOps.mirror if mirrored else (lambda image: image)
        mean, spread = base.encode_image([turn(image) for _, (image, _) in decoded])
        for row, (example, (_, mask)) in enumerate(decoded):
            kept = {"mean": mean[row].clone()}
            if spread is not None:
                kept["spread"] = spread[row].clone()
            if mask is not None:  # (1, h, w), 0 to 1: the mean of what each latent covers
                pixels = torch.from_numpy(np.asarray(turn(mask), np.float32) / 255)[None, None]
                kept["mask"] = F.interpolate(pixels, mean.shape[2:], mode="area")[0]
            cache.write(example.latents[mirrored], kept)


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
    """Runs of at most BATCH examples of one bucket; they come sorted."""
    part: list[Example] = []
    for example in examples:
        if part and (len(part) == BATCH or part[0].frame.size != example.frame.size):
            yield part
            part = []
        part.append(example)
    if part:
        yield part
