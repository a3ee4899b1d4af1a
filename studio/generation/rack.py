"""The adapters at hand for a base: read once, kept hanging, and acting only while a picture is drawn.

Between two pictures none of them acts, so that a run which trains on the same base goes on as if nothing had been.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from studio.adapters import Adapter, attach_file, read_adapter
from studio.basemodels import Family
from studio.building import building
from studio.errors import AdapterError
from studio.generation.uses import AdapterUse

KEPT = 20  # adapters that stay in memory; the one that was used longest ago goes first
Hung = list[tuple[str, Adapter]]  # (component, where the adapter itself knows none)


class Rack:
    """What hangs on one base. `runs` are those that train on it now: {where they write: {component: adapter}}."""

    def __init__(self, base: Family):
        # Not the base itself: the rack lives as long as it does, and must not keep it alive.
        self._modules, self._base = base.modules(), weakref.ref(base)
        self._read: OrderedDict[tuple, Adapter] = OrderedDict()
        self.runs: dict[Path, Mapping[str, Adapter]] = {}

    @contextmanager
    def showing(
        self, uses: Sequence[AdapterUse], rows: Mapping[int, torch.Tensor] | None = None
    ) -> Iterator[Callable[[int, int], None]]:
        """Let adapters act as `uses` say. The answer must be told (steps done, in all) before each step.

        rows  {index of a use: a factor on its strength for each row of the batch}

        The words are read before the first step: on text encoders `start` and `end` don't count, unless nothing is
        left between them. Raises AdapterError when a file can't be read or does not fit; nothing then acts.
        """
        files: list[Path] = [use.file for use in uses]
        hung = [self._hung(use, files[:number].count(use.file)) for number, use in enumerate(uses)]
        before = [(adapter, adapter.strength) for adapters in self.runs.values() for adapter in adapters.values()]
        try:
            for adapter, _ in before:
                adapter.strength = 0.0
            for number, (use, parts) in enumerate(zip(uses, hung)):
                for component, adapter in parts:
                    adapter.set_layer_scales(partial(_factor, use, component))
                    adapter.per_sample_scale = rows.get(number) if rows else None
                    adapter.strength = float(use.start < use.end)

            def step(done: int, total: int) -> None:
                for use, parts in zip(uses, hung):
                    strength = float(use.acts(done / total))
                    for _, adapter in parts:
                        if adapter.strength != strength:
                            adapter.strength = strength

            yield step
        finally:
            for _, adapter in (part for parts in hung for part in parts):
                adapter.per_sample_scale, adapter.strength = None, 0.0
            for adapter, strength in before:
                adapter.set_layer_scales(lambda own, path: 1.0)
                adapter.strength = strength
            base = self._base()
            if self.runs and base:  # they have no use for the rest of it, which took part in drawing
                base.release(text=all(len(adapters) == 1 for adapters in self.runs.values()))

    @contextmanager
    def training(self, file: Path, adapters: Mapping[str, Adapter]) -> Iterator[None]:
        """These train on the base meanwhile and will be written to `file`; {component: adapter}. Off it in the end."""
        self.runs[file] = adapters
        try:
            yield
        finally:
            del self.runs[file]
            for adapter in adapters.values():
                adapter.detach()

    def _hung(self, use: AdapterUse, copy: int) -> Hung:
        """What hangs for a use; the same file may be used again, in another `copy`."""
        if use.live and use.file in self.runs:
            return list(self.runs[use.file].items())
        if use.live and not use.file.is_file():
            raise AdapterError(f"{use.title} does not train any more and left no adapter: take it off.")
        stat = use.file.stat() if use.file.is_file() else None
        key = (use.file, stat and (stat.st_size, stat.st_mtime_ns), copy)
        if key not in self._read:
            file = read_adapter(use.file)
            with building:
                self._read[key] = attach_file(file, self._modules, 0.0)
        self._read.move_to_end(key)
        while len(self._read) > KEPT:
            self._read.popitem(last=False)[1].detach()
        return [("", self._read[key])]


def _factor(use: AdapterUse, component: str, own: str, path: str) -> float:
    return use.at(own or component, path)


_racks: "weakref.WeakKeyDictionary[Family, Rack]" = weakref.WeakKeyDictionary()


def rack_of(base: Family) -> Rack:
    """The base's one rack."""
    if base not in _racks:
        _racks[base] = Rack(base)
    return _racks[base]
