"""The adapters of a base: read once, kept attached, and active only while an image is drawn.

Between two images none of them is active, so that a run which trains on the same base is not affected.
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
from studio.generation.applied_adapter import AppliedAdapter

KEPT = 20  # adapters that stay in memory; the one that was used longest ago goes first
Attached = list[tuple[str, Adapter]]  # (component, where the adapter itself knows none)


class AdapterCache:
    """The adapters attached to one base. `runs` train on it now: {where they write: {component: adapter}}."""

    def __init__(self, base: Family):
        # Not the base itself: the cache lives as long as the base, and must not keep it alive.
        self._modules, self._base = base.modules(), weakref.ref(base)
        self._read: OrderedDict[tuple, Adapter] = OrderedDict()
        self.runs: dict[Path, Mapping[str, Adapter]] = {}
        self._beside: dict[Path, Adapter] = {}  # what acts while these train, and never while an image is drawn

    @contextmanager
    def active(
        self, applied: Sequence[AppliedAdapter], rows: Mapping[int, torch.Tensor] | None = None
    ) -> Iterator[Callable[[int, int], None]]:
        """Activate adapters as `uses` say. Yields a function to be called with (steps done, in all) before each step.

        rows  {index of an adapter: a factor on its strength for each row of the batch}

        Prompts are encoded before the first step: on text encoders `start` and `end` don't count, unless nothing is
        left between them. Raises AdapterError when a file can't be read or does not fit; none is active then.
        """
        files: list[Path] = [one.file for one in applied]
        attached = [self.attach(one, files[:number].count(one.file)) for number, one in enumerate(applied)]
        trained = [adapter for adapters in self.runs.values() for adapter in adapters.values()]
        before = [(adapter, adapter.strength) for adapter in (*trained, *self._beside.values())]
        try:
            for adapter, _ in before:
                adapter.strength = 0.0
            for number, (one, parts) in enumerate(zip(applied, attached)):
                for component, adapter in parts:
                    adapter.set_layer_scales(partial(_factor, one, component))
                    adapter.per_sample_scale = rows.get(number) if rows else None
                    adapter.strength = float(one.start < one.end)

            def step(done: int, total: int) -> None:
                for one, parts in zip(applied, attached):
                    strength = float(one.is_active(done / total))
                    for _, adapter in parts:
                        if adapter.strength != strength:
                            adapter.strength = strength

            yield step
        finally:
            for _, adapter in (part for parts in attached for part in parts):
                adapter.per_sample_scale, adapter.strength = None, 0.0
            for adapter, strength in before:
                adapter.set_layer_scales(lambda own, path: 1.0)
                adapter.strength = strength
            base = self._base()
            if self.runs and base:  # training has no use for the VAE and perhaps the text encoders
                base.offload_encoders(text=all(len(adapters) == 1 for adapters in self.runs.values()))

    @contextmanager
    def training(self, file: Path, adapters: Mapping[str, Adapter], beside: Adapter | None = None) -> Iterator[None]:
        """These train on the base meanwhile and will be written to `file`; {component: adapter}. Off it in the end.

        beside: acts with them while they train, and on no image.
        """
        self.runs[file] = adapters
        if beside:
            self._beside[file] = beside
        try:
            yield
        finally:
            del self.runs[file]
            self._beside.pop(file, None)
            for adapter in (*adapters.values(), *([beside] if beside else [])):
                adapter.detach()

    def attach(self, one: AppliedAdapter, copy: int) -> Attached:
        """The attached adapter of a use; the same file may be used again, in another `copy`."""
        if one.live and one.file in self.runs:
            return list(self.runs[one.file].items())
        if one.live and not one.file.is_file():
            raise AdapterError(f"{one.title} does not train any more and left no adapter: remove it.")
        stat = one.file.stat() if one.file.is_file() else None
        key = (one.file, stat and (stat.st_size, stat.st_mtime_ns), copy)
        if key not in self._read:
            file = read_adapter(one.file)
            with building:
                self._read[key] = attach_file(file, self._modules, 0.0)
        self._read.move_to_end(key)
        while len(self._read) > KEPT:
            self._read.popitem(last=False)[1].detach()
        return [("", self._read[key])]


def _factor(one: AppliedAdapter, component: str, own: str, path: str) -> float:
    return one.scale_for(own or component, path)


_caches: "weakref.WeakKeyDictionary[Family, AdapterCache]" = weakref.WeakKeyDictionary()


def cache_of(base: Family) -> AdapterCache:
    """The base's one cache of adapters."""
    if base not in _caches:
        _caches[base] = AdapterCache(base)
    return _caches[base]
