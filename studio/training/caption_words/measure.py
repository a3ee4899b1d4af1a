"""The losses of a run's images under their captions, and under them without one word, with and without the adapter."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from studio.adapters import attach_file, read_adapter
from studio.adapters.attach import Adapter
from studio.basemodels import Family
from studio.building import building
from studio.errors import AdapterError, RunError
from studio.generation.adapter_cache import cache_of
from studio.text import pluralize
from studio.training import runs
from studio.training.caption_words.effects import WordEffect, WordReport
from studio.training.caption_words.phrases import counted, phrases_of, without
from studio.training.distributed import Distributed
from studio.training.examples import BatchLoader, Example, Row, Unreadable, encode_missing
from studio.training.folders import triggers_of
from studio.training.objective import loss_of
from studio.training.paired import LEAST, difference
from studio.training.reopening import Progress, Reopened, opened_run
from studio.training.starting import attach_training_adapter
from studio.training.validation import TOGETHER
from studio.workspace import Workspace

DRAWS = 8  # timesteps an image, evenly over the schedule, each with noise of its own
NAMED = 6  # words named of those that are left out


@dataclass(frozen=True)
class Cell:
    """One caption of one image. place: of the image among those measured, which its noise depends on."""

    place: int
    caption: str


def measure_words(
    folder: Path, workspace: Workspace, words: int, images: int, stop: threading.Event
) -> Generator[Progress, None, WordReport | None]:
    """Drop each of the `words` most frequent phrases in turn, each on at most `images` images that have it.

    Held-out images come first, then trained ones. Yields (done, in all, what); returns None after `stop`. The run's
    folder is not written. Raises RunError where there is nothing to measure, else as `reopen`.
    """
    began, result = time.monotonic(), folder / "adapter.safetensors"
    if not result.is_file():
        raise RunError(f"{folder.name} has no adapter yet: its words can't be measured.")
    opened = yield from opened_run(folder, workspace, stop)
    if opened is None:
        return None
    chosen = choose(opened, words, images)
    if not chosen.phrases:
        raise RunError(f"{folder.name}: no word stands on {LEAST} of its images, so none can be measured.")
    texts = not opened.config.adapter.text_encoder
    if texts:  # by the path that training takes, into the same cache
        yield from _encoded(opened, chosen, stop)
    if stop.is_set():
        return None
    losses: list[Tensor] = []
    total = 2 * len(chosen.cells)
    with ExitStack() as stack:
        adapter = _attached(opened, result, stack)
        for number, strength in enumerate((0.0, 1.0)):
            adapter.strength = strength
            found = torch.zeros(len(chosen.cells))
            for done in _measured(opened, chosen, found, texts, stop):
                yield number * len(chosen.cells) + done, total, "Measuring losses"
            if stop.is_set():
                return None
            losses.append(found)
    if not all(torch.isfinite(found).all() for found in losses):
        raise RunError(f"{folder.name}: losses with its adapter are not finite, so its words can't be measured.")
    effects = [_effect(one, chosen, *losses) for one in chosen.phrases]
    return WordReport(
        _step_of(result), effects, chosen.left_out, opened.notes, DRAWS, round(time.monotonic() - began, 1)
    )


@dataclass(frozen=True)
class Phrase:
    """places: of the images that are measured with it, among `Chosen.examples`."""

    text: str
    is_trigger: bool
    captions: int
    share: float
    places: list[int]


@dataclass(frozen=True)
class Chosen:
    """cells: every caption to measure, once."""

    phrases: list[Phrase]
    examples: list[Example]
    held_out: int  # the first of the examples
    cells: list[Cell]
    triggers: list[str]
    left_out: list[str]

    def caption_of(self, place: int) -> str:
        return plain_caption(self.examples[place])


def plain_caption(example: Example) -> str:
    """With nothing drawn; a validation folder's images have their fixed one."""
    return example.caption or example.captions[0]


def choose(opened: Reopened, words: int, images: int) -> Chosen:
    """Which words are dropped on which images: triggers first, then the most frequent."""
    triggers = triggers_of(opened.config.data)
    own = [e for e in opened.examples if e.is_main and not e.regularization]
    examples = [*opened.held_out, *own]
    captions = [plain_caption(e) for e in examples]
    counts = counted(captions, triggers)
    low = [trigger.casefold() for trigger in triggers]
    order = [one for one in low if counts[one]] + [one for one, _ in counts.most_common() if one not in low]
    enough = [one for one in order if counts[one] >= LEAST]
    rare, beyond = len(order) - len(enough), enough[words:]
    having = [set(phrases_of(caption, triggers)) for caption in captions]
    held_out = len(opened.held_out)
    phrases, cells = [], dict[Cell, None]()
    for text in enough[:words]:
        places = [place for place, found in enumerate(having) if text in found]
        first, rest = [p for p in places if p < held_out], [p for p in places if p >= held_out]
        first = first[:images]
        places = first + spread(rest, images - len(first))
        phrases.append(Phrase(text, text in low, counts[text], counts[text] / max(1, len(examples)), places))
        for place in places:
            cells[Cell(place, captions[place])] = None
            cells[Cell(place, without(captions[place], text, triggers))] = None
    left_out = []
    if beyond:
        more = f" and {len(beyond) - NAMED} more" if len(beyond) > NAMED else ""
        left_out.append(f"Less frequent, not measured: {', '.join(beyond[:NAMED])}{more}.")
    if rare:
        left_out.append(f"{pluralize(rare, 'word')} on fewer than {LEAST} images, too few to measure.")
    return Chosen(phrases, examples, held_out, list(cells), triggers, left_out)


def spread(places: Sequence[int], count: int) -> list[int]:
    """`count` of the places, evenly."""
    if count >= len(places):
        return list(places)
    return [places[(2 * number + 1) * len(places) // (2 * count)] for number in range(count)]


def _encoded(opened: Reopened, chosen: Chosen, stop: threading.Event) -> Iterator[Progress]:
    """Encode what the cache lacks of the captions to measure."""
    wanted: dict[int, list[str]] = {}
    for cell in chosen.cells:
        wanted.setdefault(cell.place, []).append(cell.caption)
    examples = [replace(chosen.examples[place], captions=tuple(texts), priors=()) for place, texts in wanted.items()]
    for one in encode_missing(examples, opened.base, opened.cache, Distributed(), stop, opened.config.data):
        if isinstance(one, Unreadable):
            raise RunError(f"{one.path.name} can't be read any more, so the words can't be measured.")
        yield (*one, "Encoding captions without a word")


@torch.no_grad()
def _measured(opened: Reopened, chosen: Chosen, found: Tensor, texts: bool, stop: threading.Event) -> Iterator[int]:
    """Fill (cells,) mean losses, yielding how many cells are done. Noise depends on image and timestep alone."""
    base, data = opened.base, opened.config.data
    reader = BatchLoader(base, opened.cache, data, texts=texts)
    order = sorted(range(len(chosen.cells)), key=lambda n: chosen.examples[chosen.cells[n].place].frame.size)
    work = [(number, draw) for number in order for draw in range(DRAWS)]
    done = 0
    for part in _of_one_size(work, chosen):
        if stop.is_set():
            return
        cells = [chosen.cells[number] for number, _ in part]
        rows = [Row(chosen.examples[cell.place], False, cell.caption) for cell in cells]
        batch = reader.read(rows)
        draws = [torch.Generator().manual_seed(9000 + draw * 4099 + c.place) for (_, draw), c in zip(part, cells)]
        fresh = torch.stack([torch.randn(batch.mean.shape[1:], generator=g) for g in draws]).to(batch.mean)
        noise = torch.stack([torch.randn(batch.mean.shape[1:], generator=g) for g in draws]).to(batch.mean)
        t = base.times(torch.tensor([(draw + 0.5) / DRAWS for _, draw in part])).to(batch.mean.device)
        states = batch.conditions or base.encode_prompt(
            [c.caption for c in cells], data.clip_skip, data.max_token_length
        )
        states |= base.size_conditioning([row.framing for row in rows])
        losses = loss_of(base, batch.mean + batch.spread * fresh, states, noise, t, batch.weight)
        for (number, _), loss in zip(part, losses.cpu()):
            found[number] += loss / DRAWS
        done += len(part)
        yield done // DRAWS


def _of_one_size(work: list[tuple[int, int]], chosen: Chosen) -> Iterator[list[tuple[int, int]]]:
    part: list[tuple[int, int]] = []
    size = None
    for number, draw in work:
        now = chosen.examples[chosen.cells[number].place].frame.size
        if part and (len(part) == TOGETHER or now != size):
            yield part
            part = []
        size = now
        part.append((number, draw))
    if part:
        yield part


def _effect(phrase: Phrase, chosen: Chosen, base: Tensor, adapter: Tensor) -> WordEffect:
    """base, adapter: (cells,) losses without and with the adapter."""
    at = {cell: number for number, cell in enumerate(chosen.cells)}
    rows = []
    for place in phrase.places:
        caption = chosen.caption_of(place)
        whole = at[Cell(place, caption)]
        dropped = at[Cell(place, without(caption, phrase.text, chosen.triggers))]
        rows.append([float(losses[number]) for losses in (base, adapter) for number in (whole, dropped)])
    b, b_without, a, a_without = (sum(column) / len(rows) for column in zip(*rows))
    carried = difference([(row[0] - row[2]) - (row[1] - row[3]) for row in rows])
    kept = difference([row[3] - row[2] for row in rows])
    held_out = sum(place < chosen.held_out for place in phrase.places)
    return WordEffect(
        phrase.text,
        phrase.is_trigger,
        phrase.captions,
        phrase.share,
        held_out,
        len(rows) - held_out,
        b,
        b_without,
        a,
        a_without,
        carried.over(b - a) if b > a else replace(carried.over(0.0), count=0),
        kept.over(a),
    )


def _attached(opened: Reopened, file: Path, stack: ExitStack) -> Adapter:
    """The run's adapter on its base, beside a distilled base's training adapter, alone until the stack closes."""
    base: Family = opened.base
    stack.enter_context(cache_of(base).active(()))
    with building:
        adapter = attach_file(read_adapter(file), base.modules())
        stack.callback(adapter.detach)
        copy = opened.folder / runs.TRAINING_ADAPTER
        beside, _ = attach_training_adapter(opened.config, base, copy if copy.is_file() else None)
    if beside:
        stack.callback(beside.detach)
    return adapter


def _step_of(file: Path) -> int:
    try:
        return int(read_adapter(file).metadata.get("studio.step", "0"))
    except (ValueError, AdapterError):
        return 0
