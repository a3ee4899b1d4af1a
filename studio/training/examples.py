"""From picture files to what a step learns from: latents and text states, made once, in batches, and kept on disk.

A batch is read from the disk's cache when it is needed, so that a run's memory does not grow with its pictures.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from studio.basemodels import Family
from studio.basemodels.family import Size
from studio.datasets import Frame, Item, frame_of
from studio.errors import DatasetError, RunError
from studio.training.cache import Cache, Tensors, key_of
from studio.training.config import DataConfig
from studio.training.processes import Processes
from studio.training.selection import caption_of, name_of, orders_of

BATCH = 16  # pictures, or captions, at a time
VERSION = 1  # of what is in a cache file; another number makes all of them again


T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One picture with its words: names of cache files, no tensors. name: as `selection.name_of` has it."""

    name: str
    item: Item
    frame: Frame
    latents: tuple[str, ...]  # as it is, and mirrored where that is wanted
    captions: tuple[str, ...]  # in each order of its tags
    repeats: int = 1
    weight: float = 1.0  # of its loss
    original: tuple[int, int] = (0, 0)  # width and height in pixels, as it is on disk

    @property
    def framing(self) -> tuple[Size, Size, Size]:
        """(size on disk, left and top of the crop after scaling, size of the crop): see `Family.size_conditioning`."""
        return self.original, (self.frame.left, self.frame.top), self.frame.size


@dataclass(frozen=True)
class Unreadable:
    """A picture that can't be decoded, and why."""

    path: Path
    message: str


@dataclass(frozen=True)
class Row:
    """One place in a batch: which picture, whether mirrored, and in which words ("" for none)."""

    example: Example
    mirrored: bool
    caption: str


@dataclass(frozen=True)
class Batch:
    """B pictures of one size, on the device.

    mean, spread: (B, C, h, w) of the scaled latents, spread 0 where the codec gives none; weight: (B, 1, h, w) of the
    loss; conditions: each (B, …), empty when the text encoder trains.
    """

    rows: list[Row]
    mean: Tensor
    spread: Tensor
    weight: Tensor
    conditions: Tensors


def list_examples(
    items: list[Item], base: Family, cache: Cache, data: DataConfig, seed: int, ordinary: bool = False,
    stop: threading.Event | None = None,
) -> tuple[list[Example], list[str]]:  # fmt: skip
    """(examples, one line for each picture that is left out). Reads headers only; nothing is encoded yet.

    Ends early on `stop`: a disk may be slow.
    """
    examples, problems = [], []
    resolution = data.resolution or base.resolution
    step = max(base.multiple, 64 if resolution >= 512 else 0)
    model = base.identity("vae")
    for item in items:
        if stop is not None and stop.is_set():
            break
        try:
            digest, width, height = cache.facts(item)
        except (DatasetError, OSError) as error:
            problems.append(f"Left out: {error if isinstance(error, DatasetError) else item.path.name + ' is gone.'}")
            continue
        frame = frame_of(width, height, resolution, step, data.buckets, data.upscale)
        mask = _mask_stamp(item) if data.masks else None
        made_of = (VERSION, model, digest, frame.size, frame.scaled, mask)
        caption = item.caption.strip() if ordinary else caption_of(item, data.trigger)
        captions = orders_of(caption, data.keep_tags, seed) if data.shuffle_tags else [caption]
        mirrored = (False, True) if data.flip else (False,)
        name = name_of(item, data.regularisation if ordinary else "")
        examples.append(
            Example(
                name, item, frame, tuple(key_of(*made_of, m) for m in mirrored), tuple(captions),
                item.repeats * data.repeats, data.regularisation_weight if ordinary else 1.0, (width, height),
            )
        )  # fmt: skip
    return examples, problems


def balanced(examples: list[Example], ordinary: list[Example]) -> list[Example]:
    """Both together, the ordinary ones repeated so that about as many of them are seen (arXiv:2208.12242, sec. 3.2)."""
    if not ordinary:
        return examples
    shown = sum(example.repeats for example in examples)
    return examples + [replace(example, repeats=max(1, round(shown / len(ordinary)))) for example in ordinary]


def encode_missing(
    examples: list[Example], base: Family, cache: Cache, processes: Processes, stop: threading.Event,
    data: DataConfig, texts: bool = True,
) -> Iterator[tuple[int, int] | Unreadable]:  # fmt: skip
    """Encode what the cache does not hold, yielding (done, total), and each picture that can't be decoded.

    Pictures are decoded on every core while others are encoded; each process does its share. Ends early on `stop`: what
    is done stays done.
    """
    model = base.identity(*base.text_parts)
    captions = sorted({caption for e in examples for caption in e.captions} | {""}) if texts else []
    words = [c for c in captions[processes.rank :: processes.count] if not cache.has(_text_key(model, c))]
    pictures = [e for e in examples if not all(cache.has(key) for key in e.latents)]
    pictures = sorted(pictures, key=lambda e: e.frame.size)[processes.rank :: processes.count]
    total, done, told = len(words) + len(pictures), 0, 0.0
    if total:
        yield 0, total
    for start in range(0, len(words), BATCH):
        said = words[start : start + BATCH]
        for part in _together(said, base):
            with torch.no_grad():
                states = base.encode_prompt(part)
            for row, caption in enumerate(part):
                cache.write(_text_key(model, caption), {name: value[row].clone() for name, value in states.items()})
        done += len(said)
        if stop.is_set():
            return
        if time.monotonic() - told > 0.5:
            told = time.monotonic()
            yield done, total
    with ThreadPoolExecutor(os.cpu_count() or 1, "decode") as pool:
        groups = list(_same_size(pictures))
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
            if time.monotonic() - told > 0.5 or done == total:
                told = time.monotonic()
                yield done, total


class Reader:
    """Reads batches from the cache."""

    def __init__(self, base: Family, cache: Cache, data: DataConfig, texts: bool = True):
        """texts: whether conditions are read; not when the text encoder trains."""
        self.cache, self.device, self.outside, self.texts = cache, base.device, data.outside, texts
        self._model = base.identity(*base.text_parts)

    def read(self, rows: list[Row]) -> Batch:
        """Raises RunError when a cache file is gone or damaged."""
        latents = [self._found(row.example.latents[row.mirrored], row) for row in rows]
        weights = [self._weight(found) * row.example.weight for found, row in zip(latents, rows)]
        texts = [self._found(_text_key(self._model, row.caption), row) for row in rows] if self.texts else [{}]
        return Batch(
            rows,
            self._stack([found["mean"] for found in latents]),
            self._stack([found.get("spread", torch.zeros(())).expand_as(found["mean"]) for found in latents]),
            self._stack(weights),
            {name: self._stack([text[name] for text in texts]) for name in texts[0]},
        )

    def _found(self, key: str, row: Row) -> Tensors:
        found = self.cache.read(key)
        if found is None:
            name = row.example.name
            raise RunError(f"The cached form of {name} is gone or damaged: resume the run, and it is made again.")
        return found

    def _weight(self, found: Tensors) -> Tensor:
        if "mask" not in found:
            return torch.ones(1, *found["mean"].shape[1:])
        return self.outside + (1 - self.outside) * found["mask"]

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
    """Encode pictures of one size and keep them; mirrored as well where an example has a second key."""
    for mirrored in range(max(len(example.latents) for example, _ in decoded)):
        turn = ImageOps.mirror if mirrored else (lambda picture: picture)
        mean, spread = base.encode_image([turn(picture) for _, (picture, _) in decoded])
        for row, (example, (_, mask)) in enumerate(decoded):
            kept = {"mean": mean[row].clone()}
            if spread is not None:
                kept["spread"] = spread[row].clone()
            if mask is not None:  # (1, h, w), 0 to 1: the mean of what each latent covers
                pixels = torch.from_numpy(np.asarray(turn(mask), np.float32) / 255)[None, None]
                kept["mask"] = F.interpolate(pixels, mean.shape[2:], mode="area")[0]
            cache.write(example.latents[mirrored], kept)


def _text_key(model: str, caption: str) -> str:
    return key_of(VERSION, model, caption)


def _mask_stamp(item: Item) -> list | None:
    file = item.mask_file
    return [file.stat().st_size, file.stat().st_mtime_ns] if file else None


def _together(rows: list[T], base: Family) -> Iterator[list[T]]:
    """As an accelerator likes them; one by one on a CPU, where that costs nothing and a row's last bits do not depend
    on its neighbours: a cache that was interrupted, or mended, then holds the same as any other.
    """
    size = 1 if base.device.type == "cpu" else BATCH
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


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
