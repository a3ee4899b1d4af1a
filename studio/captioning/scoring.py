"""How well each caption fits its image, by a CLIP (arXiv:2103.00020), so that a person knows where to look."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from studio.building import building
from studio.captioning.batching import Batches, free_memory
from studio.captioning.generators import explained, place
from studio.captioning.loading import chosen_items, opened, readable
from studio.captioning.models import DownloadStopped, Progress, find_model, read_config
from studio.datasets import Dataset, Item
from studio.errors import BaseModelError, StudioError, out_of_memory

BATCH = 16


class Clip(Protocol):
    """(N, width) unit vectors, float32 on the CPU; those of texts and images can be compared."""

    side: int

    def embed_texts(self, texts: list[str]) -> Any: ...

    def embed_images(self, images: list[Image.Image]) -> Any: ...

    def close(self) -> None: ...


@dataclass
class Score:
    """similarity: the cosine, -1 to 1. What is usual depends on the CLIP; compare scores of one run alone."""

    file: str
    caption: str
    similarity: float


@dataclass
class Scores:
    """rows: worst fit first; without: images that have no caption; unreadable: one line each."""

    rows: list[Score] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    stopped: bool = False


class HubClip:
    """Any CLIP that transformers loads as CLIPModel, with its tokenizer and image processor."""

    def __init__(self, folder: Path, name: str):
        kind = read_config(folder).get("model_type")
        if kind != "clip":
            raise BaseModelError(f"{name} is a model of type {str(kind)[:40]!r}, not a CLIP.")
        with explained(name):
            from studio.libraries import AutoImageProcessor, AutoTokenizer, CLIPModel

            self.device, self.dtype = place("auto", "auto")
            model = CLIPModel.from_pretrained(folder, dtype=self.dtype, use_safetensors=True, local_files_only=True)
            self.model: Any = model.to(self.device).eval()
            self.processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self.longest = model.config.text_config.max_position_embeddings
            self.side = 2 * model.config.vision_config.image_size

    def embed_texts(self, texts: list[str]):
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        return self._embed(self.model.get_text_features, tokens)

    def embed_images(self, images: list[Image.Image]):
        return self._embed(self.model.get_image_features, self.processor(images=images, return_tensors="pt"))

    def _embed(self, work: Callable, inputs):
        import torch

        with torch.inference_mode():
            given = {key: value.to(self.device) for key, value in inputs.items()}
            if "pixel_values" in given:
                given["pixel_values"] = given["pixel_values"].to(self.dtype)
            states = work(**given).pooler_output.float().cpu()
        return torch.nn.functional.normalize(states, dim=-1)

    def close(self) -> None:
        self.model = None
        free_memory()


def load_clip(
    name: str | None = None,
    download: bool = False,
    download_progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Clip:
    """The starter's CLIP, or the one in a folder or under a hub id. Raises BaseModelError."""
    if name is None:
        from studio.captioning.starter import StarterCaptioner

        with building:
            return StarterCaptioner()
    folder = find_model(name, download=download, progress=download_progress, stop=stop)
    with building:
        return HubClip(folder, name)


def score(
    dataset: Dataset,
    clip: str | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    trigger: str = "",
    only: Collection[str] | None = None,
    download: bool = False,
    download_progress: Progress | None = None,
) -> Scores:
    """The similarity of each caption with its image, lowest first.

    clip      a folder or a hub id; None: the starter's own, which knows its own small world
    trigger   taken from the front of captions before, as it says nothing to a CLIP
    progress  called with (done, total)

    Raises BaseModelError when the CLIP is not there or unfit.
    """
    found, todo = Scores(), []
    for item in chosen_items(dataset, only):
        if caption := item.caption_now():
            todo.append(Item(item.path, caption))
        else:
            found.without.append(dataset.file_of(item))
    if not todo:
        return found
    try:
        model = load_clip(clip, download, download_progress, stop)
    except DownloadStopped:
        found.stopped = True
        return found
    try:
        _score(model, dataset, todo, trigger, stop, progress, found)
    finally:
        model.close()
    found.rows.sort(key=lambda row: row.similarity)
    return found


def _score(model: Clip, dataset: Dataset, todo: list[Item], trigger: str, stop, progress, found: Scores) -> None:
    batches, done = Batches(BATCH), 0

    def similarity(pairs: list[tuple[str, Image.Image]]) -> list[float]:
        texts, images = zip(*pairs)
        return (model.embed_texts(list(texts)) * model.embed_images(list(images))).sum(1).tolist()

    for ready in opened(todo, model.side, batches):
        if stop is not None and stop.is_set():
            found.stopped = True
            return
        good, problems = readable(ready)
        found.unreadable += problems
        pairs = [(_without(item.caption, trigger), image) for item, image in good]
        for (item, _), value in zip(good, batches.run(similarity, pairs, (StudioError,))):
            if isinstance(value, Exception):
                why = "the memory doesn't hold it" if out_of_memory(value) else f"{type(value).__name__}: {value}"[:160]
                found.unreadable.append(f"{item.path.name}: not scored, {why}.")
            else:
                found.rows.append(Score(dataset.file_of(item), item.caption, value))
        done += len(ready)
        if progress:
            progress(done, len(todo))


def _without(caption: str, trigger: str) -> str:
    """The caption without the trigger in front, unless that is all there is."""
    trigger = " ".join(trigger.split())
    first, _, rest = caption.partition(",")
    return rest.strip() if trigger and first.strip().lower() == trigger.lower() and rest.strip() else caption
