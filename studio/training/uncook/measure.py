"""Un-cooking an adapter: its held-out loss and drift at scales of its block groups, and the file that comes of it."""

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from studio.adapters import AdapterFile, place_layers, read_adapter
from studio.adapters.block_map import BlockMap, component_of
from studio.adapters.examine import examine
from studio.adapters.rewrite import resize_file
from studio.basemodels import Family, load_base
from studio.basemodels.defaults import variant_of
from studio.datasets import Item
from studio.errors import AdapterError, RunError
from studio.generation.adapter_cache import cache_of
from studio.generation.applied_adapter import AppliedAdapter
from studio.generation.exporting import export_merged
from studio.training.cache import Cache
from studio.training.config import RunConfig
from studio.training.defaults import prompts_of
from studio.training.distributed import Distributed
from studio.training.examples import Batch, BatchLoader, Example, Row, Unreadable, encode_missing, list_examples
from studio.training.paired import LEAST
from studio.training.reopening import Progress
from studio.training.run_resources import precision_of
from studio.training.selection import Selection
from studio.training.uncook.search import (
    GROUPS,
    LEAST_STEP,
    MOST,
    GroupRow,
    Reading,
    Scales,
    Uncooked,
    group_of,
    search,
    unchanged,
)
from studio.training.validation import Validator
from studio.workspace import Workspace

IMAGES = 16  # that are taken at the most, half of them for the search
APART = 12  # images from which the search and the judgement have images of their own: fewer would decide nothing
DRIFT_LEVELS = (0.2, 0.4, 0.6, 0.8)  # shares of the noise schedule at which drift is measured
STRENGTHS = (0.75, 0.5, 0.25)  # of the whole adapter, for comparison
RANKS = (2, 4)  # parts of its rank that the adapter is cut to, to see whether that is better


def uncook(
    file: Path,
    name: str,
    config: RunConfig,
    chosen: Selection,
    items: Sequence[Item],
    workspace: Workspace,
    target: Path,
    stop: threading.Event,
) -> Generator[Progress, None, Uncooked | None]:
    """Search scales for the adapter in `file`, and write what was found to `target`; nothing where nothing is better.

    items: images that it has not learned from. Returns None after `stop`. Raises AdapterError where the file does not
    fit the base, RunError where there are too few images.
    """
    began = time.monotonic()
    yield 0, MOST, "Loading the base model"
    base = load_base(config.base, precision=precision_of(config.training))
    base.onload()
    adapter = read_adapter(file)
    adapter.refuse_if_damaged()
    placed, _ = place_layers(adapter, base.modules())
    if not placed:
        raise AdapterError(f"{name} was made for another base model: choose that one.")
    yield 0, MOST, "Encoding images and captions"
    meter = _meter(base, config, chosen, items, workspace, placed, stop)
    if meter is None:
        return None
    halves = halves_of(meter.examples)
    where = examine(adapter, base.modules()).where
    assert where is not None
    groups = _groups(where)
    strongest = [row.name for row in sorted(_rows(where, groups, {}), key=lambda row: -row.before)]
    finding = _search(meter, file, adapter, {name: groups[name] for name in strongest}, halves[0], workspace, stop)
    found = yield from finding
    if found is None:
        return None
    best, evaluations, cut = found
    with TemporaryDirectory(dir=workspace.cache) as folder:
        copy = Path(folder) / file.name
        if cut:
            resize_file(adapter, cut).write(copy)
        source = copy if cut else file
        before = meter.read(halves[1], _applied(file, {}, groups))
        after = replace(meter.read(halves[1], _applied(source, best.scales, groups)), scales=best.scales, rank=cut)
        rows = _rows(where, groups, best.scales)
        answer = Uncooked(
            name, rows, before, after, adapter.rank, len(halves[1]), halves[0] is not halves[1], evaluations, 0.0
        )
        if not answer.is_better:
            seconds = round(time.monotonic() - began, 1)
            return replace(answer, groups=unchanged(rows), notes=answer.best_tried, seconds=seconds)
        alone = {one: meter.read(halves[1], AppliedAdapter(file=file, strength=one)) for one in STRENGTHS}
        layout = adapter.layout if adapter.layout in ("kohya", "diffusers") else "kohya"
        made = export_merged(
            [_applied(source, best.scales, groups)],
            base,
            target,
            layout=layout,
            metadata={"modelspec.merged_from": name, "studio.uncooked": answer.sentence, **_kept(adapter)},
        )
    then = examine(read_adapter(target), base.modules()).where
    seconds = round(time.monotonic() - began, 1)
    notes = (*answer.beside_strength(alone), *made.notes)
    return replace(answer, file=target.name, notes=notes, seconds=seconds, maps=(where, then))


def _kept(adapter: AdapterFile) -> dict[str, str]:
    """What the new file says of where it comes from."""
    keys = ("studio.run", "studio.trigger", "modelspec.trigger_phrase", "ss_tag_frequency")
    return {key: adapter.metadata[key] for key in keys if adapter.metadata.get(key)}


def _search(
    meter: "_Meter",
    file: Path,
    adapter: AdapterFile,
    groups: Mapping[str, list[str]],
    images: list[Example],
    workspace: Workspace,
    stop: threading.Event,
) -> Generator[Progress, None, tuple[Reading, int, int] | None]:
    """(the best reading, evaluations, the rank that it was cut to or 0)."""

    def evaluate(scales: Scales) -> Reading:
        return replace(meter.read(images, _applied(file, scales, groups)), scales=scales)

    going, done = search(list(groups), evaluate), 0
    while True:
        try:
            done = next(going)
        except StopIteration as end:
            best: Reading = end.value
            break
        if stop.is_set():
            return None
        yield done, MOST, "Trying scales of the blocks"
    cut = 0
    for part in RANKS:
        rank = adapter.rank // part
        if rank < 1 or stop.is_set():
            break
        with TemporaryDirectory(dir=workspace.cache) as folder:
            copy = Path(folder) / file.name
            try:
                resize_file(adapter, rank).write(copy)
            except AdapterError:  # of a kind that has no smaller rank without its base
                break
            found = replace(meter.read(images, _applied(copy, best.scales, groups)), scales=best.scales, rank=rank)
        done += 1
        yield min(done, MOST), MOST, "Trying smaller ranks"
        if found.objective > best.objective - LEAST_STEP:
            break
        best, cut = found, rank
    return None if stop.is_set() else (best, done, cut)


# Groups of blocks ----------------------------------------------------------------------------------------------------


def _groups(where: BlockMap) -> dict[str, list[str]]:
    """{group: names of its blocks} of those that the adapter changes."""
    blocks = [block for block in where.blocks if where.of_block(block).applied]
    numbered = [one for one in blocks if one.rpartition(".")[2].isdigit() and not one.startswith("text_encoder")]
    order = {block: place for place, block in enumerate(numbered)}
    found: dict[str, list[str]] = {}
    for block in blocks:
        found.setdefault(group_of(component_of(block), block, order), []).append(block)
    return found


def _rows(where: BlockMap, groups: Mapping[str, list[str]], scales: Scales) -> list[GroupRow]:
    rows = []
    for name in (one for one in GROUPS if one in groups):
        cells = [where.of_block(block) for block in groups[name]]
        energy, weights = sum(one.delta_energy for one in cells), sum(one.weight_energy for one in cells)
        share, scale = (energy / weights) ** 0.5 if weights else 0.0, scales.get(name, 1.0)
        rows.append(GroupRow(name, sum(one.applied for one in cells), scale, share, share * abs(scale)))
    return rows


def _applied(file: Path, scales: Scales, groups: Mapping[str, list[str]]) -> AppliedAdapter:
    blocks = {block: scales[name] for name in groups if scales.get(name, 1.0) != 1 for block in groups[name]}
    return AppliedAdapter(file=file, blocks=blocks)


# Losses and drift ----------------------------------------------------------------------------------------------------


@dataclass
class _Meter:
    """Measures the base with an adapter on images, always at the same noise and timesteps."""

    base: Family
    config: RunConfig
    reader: BatchLoader
    examples: list[Example]
    base_losses: dict[int, Tensor]  # by id of the list of images
    base_predictions: dict[int, Tensor]

    def read(self, images: list[Example], applied: AppliedAdapter) -> Reading:
        key = id(images)
        if key not in self.base_losses:
            with cache_of(self.base).active(()):
                self.base_losses[key] = self._losses(images)
                self.base_predictions[key] = self._predictions(images)
        with cache_of(self.base).active((applied,)):
            losses, predictions = self._losses(images), self._predictions(images)
        whole = self.base_losses[key]
        drifts = (predictions - self.base_predictions[key]).square().mean(1) / whole  # an image at a time
        return Reading({}, (losses / whole).tolist(), drifts.tolist())

    def conditions(self, batch: Batch) -> dict[str, Tensor]:
        data = self.config.data
        captions = [row.caption for row in batch.rows]
        words = batch.conditions or self.base.encode_prompt(captions, data.clip_skip, data.max_token_length)
        return words | self.base.size_conditioning([row.framing for row in batch.rows])

    def _losses(self, images: list[Example]) -> Tensor:
        """(images,) in the order of `_sorted`."""
        return Validator(images, self.base, self.reader, Distributed(), self.conditions).measure().mean(1)

    @torch.no_grad()
    def _predictions(self, images: list[Example]) -> Tensor:
        """(images, numbers) what is predicted of them at DRIFT_LEVELS for prompts without the trigger."""
        base, data = self.base, self.config.data
        unrelated, found = prompts_of(variant_of(self.config.base)), []
        for number, example in enumerate(_sorted(images)):
            row = Row(example, False, unrelated[number % len(unrelated)])
            batch = self.reader.read([Row(example, False, example.captions[0])])
            words = base.encode_prompt([row.caption], data.clip_skip, data.max_token_length)
            words |= base.size_conditioning([row.framing])
            draw, rows = torch.Generator().manual_seed(7000 + number), []
            for share in DRIFT_LEVELS:
                noise = torch.randn(batch.mean.shape, generator=draw).to(batch.mean)
                t = base.times(torch.tensor([share])).to(batch.mean.device)
                rows.append(base.predict(base.add_noise(batch.mean, noise, t), t, words).float().cpu().flatten())
            found.append(torch.cat(rows))
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


def _sorted(images: list[Example]) -> list[Example]:
    """As a Validator sorts them."""
    return sorted(images, key=lambda one: one.frame.size)


def _meter(
    base: Family,
    config: RunConfig,
    chosen: Selection,
    items: Sequence[Item],
    workspace: Workspace,
    placed: Mapping[tuple[str, str], object],
    stop: threading.Event,
) -> _Meter | None:
    cache = Cache(workspace.cache / "encoded")
    few = list(items)[:: max(1, -(-len(items) // IMAGES))]
    examples, problems = list_examples(
        few, base, cache, config.data, config.training.seed, chosen=chosen, held_out=True
    )
    texts = not any(component.startswith("text_encoder") for component, _ in placed)
    found = encode_missing(examples, base, cache, Distributed(), stop, config.data, texts)
    unreadable = {one.path for one in found if isinstance(one, Unreadable)}
    examples = [one for one in examples if one.item.path not in unreadable]
    if stop.is_set():
        return None
    if len(examples) < LEAST:
        why = f" {problems[0]}" if problems else ""
        raise RunError(f"It takes at least {LEAST} images that the adapter has not learned from.{why}")
    return _Meter(base, config, BatchLoader(base, cache, config.data, texts=texts), examples, {}, {})


def halves_of(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """(what the search sees, what it is judged by), which are the same where there are few."""
    if len(examples) < APART:
        return examples, examples
    return examples[::2], examples[1::2]
