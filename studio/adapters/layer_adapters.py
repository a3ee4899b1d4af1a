"""All adapters of one base layer, and the two ways in which they act on it.

Live: the base layer runs with its own weight and the output of each update is added. Gradients flow and nothing is
cached. Adapters act this way while they train, and under torch.compile.

Merged: W + Σ s · delta is computed once, in float32 and rounded once, and replaces the weight during the call. The
result is cached until a strength or a tensor changes, so that the next denoising step reuses it.

The base's own parameter is never written. Switching an adapter off is therefore bit-exact, whatever was done before (a
merge that is undone by subtraction drifts: by a fifth of the delta after 100 times in float16).
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor, nn

from studio.adapters import live_weight
from studio.adapters.layers import (
    EXECUTION_DEVICE,
    Layer,
    Scaled,
    is_quantised,
    override_weight,
    restore_weight,
    stacked,
    weight_of,
)
from studio.errors import AdapterError

LEAST_ROOM = 64 * 10**6  # bytes for merged copies, however small the model is
ATTRIBUTE = "_layer_adapters"  # on the base layer, so that `copy.deepcopy` of a model copies its adapters too


class AdapterState(Protocol):
    """What a layer needs to know of the adapter that it belongs to. See `attach.Adapter` for the meaning."""

    training: bool
    mode_switches: int

    @property
    def strength(self) -> float: ...

    @property
    def per_sample_scale(self) -> Tensor | None: ...


Item = tuple[AdapterState, Layer]


class MergeCache:
    """The parameters of the last merge.

    key         what they were made of: layers, scales, and the state of every tensor that went in
    parameters  {"weight": …} and perhaps "bias", in the base's dtype; empty before the first merge
    """

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.parameters: dict[str, Tensor] = {}
        self._sum: Tensor | None = None  # kept while strengths move: allocating it costs as much as the product

    def get(self, key: tuple[Any, ...], merge: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The parameters for `key`; `merge` is called when those of another key are held."""
        if key != self.key or not self.parameters:
            self.parameters, self.key = merge(), key
        return self.parameters

    def sum_buffer(self, like: Tensor) -> Tensor:
        """Uninitialized float32 memory of the shape of `like`, contiguous; the same as last time where it fits."""
        if self._sum is None or self._sum.shape != like.shape or self._sum.device != like.device:
            self._sum = torch.empty(like.shape, device=like.device)
        return self._sum

    def drop_buffer(self) -> None:
        """Free what `sum_buffer` holds."""
        self._sum = None

    def clear(self) -> None:
        """Forget the merged parameters."""
        self.key, self.parameters = (), {}


class LayerAdapters:
    """The adapters of one base layer, in the order in which they were attached."""

    def __init__(self, base: nn.Module):
        self.base = base
        self.items: list[Item] = []
        self.cache = MergeCache()
        self.has_room = True  # for a merged copy of the weight; see `share_room`
        self._live: list[Item] = []  # those that act live in the call under way
        # The weight is packed, or comes and goes: neither merged nor replaced.
        self._stays_apart = is_quantised(base) or EXECUTION_DEVICE in base.__dict__
        self._hooks = [
            base.register_forward_pre_hook(self._before),
            base.register_forward_hook(self._after, with_kwargs=True),
        ]

    @classmethod
    def of(cls, base: nn.Module) -> "LayerAdapters":
        """The adapters of a layer; hooks are registered on the first call."""
        found = base.__dict__.get(ATTRIBUTE)
        if found is None:
            found = base.__dict__[ATTRIBUTE] = cls(base)
        return found

    def add(self, adapter: AdapterState, layer: Layer) -> None:
        self.cache.clear()
        self.items.append((adapter, layer))

    def remove(self, adapter: AdapterState) -> None:
        """Remove the layer of one adapter, and the hooks with the last one."""
        self.cache.clear()
        restore_weight(self.base)
        self.items = [item for item in self.items if item[0] is not adapter]
        if not self.items:
            for hook in self._hooks:
                hook.remove()
            self.base.__dict__.pop(ATTRIBUTE, None)

    def follow(self, device: torch.device | str) -> None:
        """Move the layers of all adapters, and forget what was merged for the device before."""
        self.cache.clear()
        self.cache.drop_buffer()
        for _, layer in self.items:
            layer.to(device)

    def _before(self, base: nn.Module, args: tuple[Any, ...]) -> None:
        restore_weight(base)  # a call that an exception ended, as checkpointing's do, has left its own
        merged: list[Scaled] = []
        self._live = []
        live: list[Scaled] = []
        learning, none_merged = torch.is_grad_enabled(), self._stays_apart or torch.compiler.is_compiling()
        joined = bool(args) and not none_merged
        for adapter, layer in self.items:
            scale = adapter.strength * layer.layer_scale
            if scale == 0:
                continue
            by_sample = adapter.per_sample_scale is not None
            if (
                none_merged
                or adapter.training
                or by_sample
                or (learning and layer.trains)
                or (not self.has_room and layer.is_low_rank)
            ):
                self._live.append((adapter, layer))
                live.append((layer, scale))
                joined = joined and not by_sample
            else:
                merged.append((layer, scale))
        if merged:
            override_weight(base, self.cache.get(self._key(merged), lambda: self._merge(merged)))
        if live and joined and live_weight.act(base, live, args[0]):
            self._live = []

    def _after(self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        restore_weight(base)
        for adapter, layer in self._live:
            x, scale = args[0] if args else kwargs["input"], adapter.strength * layer.layer_scale
            if adapter.per_sample_scale is None:
                output = layer.add_to(output, base, x, scale)
            else:
                added = layer.add_to(torch.zeros_like(output), base, x, scale)
                output = output + _per_sample(adapter.per_sample_scale, output) * added
        return output

    def _key(self, merged: list[Scaled]) -> tuple[Any, ...]:
        tensors = [*self.base._parameters.values(), *(p for layer, _ in merged for p in layer._parameters.values())]
        return merged, [_stamp(p) for p in tensors if p is not None]

    def _merge(self, merged: Sequence[Scaled]) -> dict[str, Tensor]:
        """The base's weight, and its bias where an update changes it, with all deltas added."""
        # Outside inference mode, because a later call that wants gradients may use what is made here.
        with torch.inference_mode(False), torch.no_grad():
            own, own_bias = weight_of(self.base), self.base._parameters.get("bias")
            start = own.detach().float()
            weight, bias_delta = self._low_rank_sum(start, merged), None
            for layer, scale in merged:
                if not layer.is_low_rank:
                    weight = weight + scale * layer.delta(start)
                added = layer.bias_delta()
                if added is not None:
                    added = scale * added.flatten()
                    bias_delta = added if bias_delta is None else bias_delta + added
            if own.dtype != torch.float32:  # the rounded copy is cached, so the sum need not be
                self.cache.drop_buffer()
            if bias_delta is None:
                return {"weight": weight.to(own.dtype)}
            bias = bias_delta if own_bias is None else own_bias.detach().float() + bias_delta
            return {"weight": weight.to(own.dtype), "bias": bias.to(own.dtype)}

    def _low_rank_sum(self, start: Tensor, merged: Sequence[Scaled]) -> Tensor:
        """W + Σ s σ B A of all plain LoRAs in one product."""
        plain = [(layer, scale) for layer, scale in merged if layer.is_low_rank]
        if not plain:
            return start
        A, B = stacked(plain)
        out = self.cache.sum_buffer(start)
        torch.addmm(start.flatten(1), B, A, out=out.flatten(1))
        return out


def move(model: nn.Module, device: torch.device | str) -> None:
    """Move a model with all adapters on it, which compute where its weights are."""
    model.to(device)
    for part in model.modules():
        adapters = part.__dict__.get(ATTRIBUTE)
        if adapters is not None:
            adapters.follow(device)


def share_room(model: nn.Module, room: int) -> None:
    """Let the narrowest adapted layers keep merged copies, as many as `room` bytes hold.

    On the widest ones a copy takes the most memory and saves the least time: of a product with in · out numbers, a live
    update of rank r is r (1 / in + 1 / out).
    """
    adapted = [vars(part)[ATTRIBUTE] for part in model.modules() if ATTRIBUTE in vars(part)]
    for adapters in sorted(adapted, key=lambda adapters: weight_of(adapters.base).numel()):
        room -= weight_of(adapters.base).nbytes
        adapters.has_room = room >= 0
        if room < 0:
            adapters.cache.clear()
            adapters.cache.drop_buffer()


def room_for(model: nn.Module) -> int:
    """Bytes that merged copies of a model's weights may take: STUDIO_MERGED_MB, else a tenth of the model.

    Raises AdapterError for a variable that is no whole number.
    """
    if given := os.environ.get("STUDIO_MERGED_MB", ""):
        if not given.isdecimal():
            raise AdapterError(f"STUDIO_MERGED_MB is {given[:20]!r}: give a whole number of megabytes.")
        return int(given) * 10**6
    return max(LEAST_ROOM, sum(p.nbytes for p in model.parameters()) // 10)


def active_state(model: nn.Module) -> tuple[Any, ...] | None:
    """What acts on a model now: while two answers are equal, the model gives the same output for the same input.

    None where that can't be known: an adapter trains, or scales each sample differently.
    """
    found: list[Any] = []
    for part in model.modules():
        adapters = part.__dict__.get(ATTRIBUTE)
        for adapter, layer in adapters.items if adapters else ():
            scale = adapter.strength * layer.layer_scale
            if scale and (adapter.training or adapter.per_sample_scale is not None):
                return None
            if scale:
                found += ref(layer), scale, adapter.mode_switches, *map(_stamp, layer._parameters.values())
    return tuple(found)


def _per_sample(scale: Tensor, output: Tensor) -> Tensor:
    """`scale` (n,) as a factor on `output` (batch, …), whose batch is n, a multiple (guidance doubles it), or 1."""
    times = max(1, output.shape[0] // len(scale))
    return scale.to(output).repeat(times).view(-1, *[1] * (output.ndim - 1))


def _stamp(tensor: Tensor) -> tuple[int, int]:
    """Changes with each write into the tensor, and when its data moves.

    Tensors made in inference mode can't be written outside it and count no writes.
    """
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
