"""The adapters on one base layer, and the two ways in which they act.

Live: the base runs as it is and each update's own output is added. Gradients flow; nothing is cached. This is how an
adapter works while it trains, and under torch.compile.

Merged: W + Σ s · delta is computed once, in float32 and rounded once, and stands in for the weight while the adapters
act. It is kept when they stop, so that the next picture finds it, until a strength or a number moves. The base's
parameter itself is never written, so going back is exact whatever was done in between (a merge undone by subtraction
drifts: by a fifth of the delta after 100 times in float16).
"""

from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn

from studio.adapters.layers import WORKS_ON, Layer, is_quantised, weight_of

if TYPE_CHECKING:
    from studio.adapters.attach import Adapter

ATTRIBUTE = "_adapter_stack"  # where a base layer keeps its stack, so that `copy.deepcopy` of a model copies it too


class Stack:
    """All adapters of one base layer, in the order in which they were attached."""

    def __init__(self, base: nn.Module):
        self.base = base
        self.members: list[tuple[Adapter, Layer]] = []  # (adapter, its layer here)
        self._settled = False  # whether nothing acts but what stands in for the weight; looked up after each move
        self._made: dict[str, Tensor] = {}  # what was merged last: the weight and perhaps the bias
        self._made_of: list[tuple] = []  # (id of a layer, its strength, where its numbers lie)
        self._parts: list[Tensor] = []  # of these layers, those that may be written
        self._written: list = []  # how often each of them was, and stamps of the base's own numbers
        self._inside: list[Adapter] = []  # the adapters that are in what stands in; empty: nothing does
        self._room: Tensor | None = None  # kept while strengths move: asking for memory costs as much as the product
        self._never_merged = is_quantised(base) or WORKS_ON in base.__dict__  # its place is not to be taken
        self._hooks = [
            base.register_forward_pre_hook(self._before),
            base.register_forward_hook(self._after, with_kwargs=True),
        ]

    @classmethod
    def of(cls, base: nn.Module) -> "Stack":
        """The layer's stack, made when it has none."""
        stack = base.__dict__.get(ATTRIBUTE)
        if stack is None:
            stack = base.__dict__[ATTRIBUTE] = cls(base)
        return stack

    def add(self, adapter: "Adapter", layer: Layer) -> None:
        self.forget()
        self.members.append((adapter, layer))

    def remove(self, adapter: "Adapter") -> None:
        """Take one adapter's layer away, and the hooks with the last one."""
        self.forget()
        self.members = [member for member in self.members if member[0] is not adapter]
        if not self.members:
            for hook in self._hooks:
                hook.remove()
            self.base.__dict__.pop(ATTRIBUTE, None)

    def unmerge(self) -> None:
        """Let the base's own parameters be seen again: bit for bit what they were."""
        self._settled, self._inside = False, []
        self.base.__dict__.pop("weight", None)
        self.base.__dict__.pop("bias", None)

    def forget(self) -> None:
        """Unmerge, and keep nothing of what was merged."""
        self.unmerge()
        self._made, self._made_of, self._parts = {}, [], []

    def _is_live(self, adapter: "Adapter", layer: Layer) -> bool:
        return (
            adapter.training
            or adapter.rows is not None
            or (torch.is_grad_enabled() and layer.trains)
            or self._never_merged
        )

    def _before(self, base: nn.Module, args: tuple) -> None:
        if torch.compiler.is_compiling():
            return
        if self._settled and (not self._inside or (not torch.is_grad_enabled() and self._stamps() == self._written)):
            return  # the usual case, in every layer at every step
        acting = [m for m in self.members if _strength(*m) != 0]
        still = [m for m in acting if not self._is_live(*m)]
        if not still:
            if self._inside:
                self.unmerge()
            self._settled = not acting
            return
        made_of = [
            (id(layer), _strength(adapter, layer), *(part.data_ptr() for part in layer.parameters()))
            for adapter, layer in still
        ]
        if made_of != self._made_of or self._stamps() != self._written:
            self._made, self._made_of = self._merge(still), made_of
            self._parts = [part for _, layer in still for part in layer.parameters() if not part.is_inference()]
            self._written = self._stamps()
            base.__dict__.pop("bias", None)
        self._settled, self._inside = len(still) == len(acting), [adapter for adapter, _ in still]
        # An entry of the instance's own dict is found before a parameter of the same name, and is no parameter:
        # state_dict(), parameters() and training see the base's own weight as before.
        base.__dict__.update(self._made)

    def _stamps(self) -> list:
        own = [_stamp(p) for p in self.base._parameters.values() if p is not None]
        return own + [part._version for part in self._parts]

    def _merge(self, still: list[tuple["Adapter", Layer]]) -> dict[str, Tensor]:
        # Outside inference mode, because what is made here may meet a later call that wants gradients.
        with torch.inference_mode(False), torch.no_grad():
            own, own_bias = weight_of(self.base), self.base._parameters.get("bias")
            start = own.detach().float()
            weight, moved = self._low_rank_sum(start, still), None
            for adapter, layer in still:
                if not layer.is_low_rank:
                    weight = weight + _strength(adapter, layer) * layer.delta(start)
                added = layer.bias_delta()
                if added is not None:
                    added = _strength(adapter, layer) * added.flatten()
                    moved = added if moved is None else moved + added
            if own.dtype != torch.float32:  # what was rounded is kept, not the sum beside it
                self._room = None
            if moved is None:
                return {"weight": weight.to(own.dtype)}
            bias = moved if own_bias is None else own_bias.detach().float() + moved
            return {"weight": weight.to(own.dtype), "bias": bias.to(own.dtype)}

    def _low_rank_sum(self, start: Tensor, still: list[tuple["Adapter", Layer]]) -> Tensor:
        """W + Σ s σ B A of the plain LoRAs in one product, into the room of the last one: a slider waits for this."""
        pairs = [(_strength(adapter, layer) * layer.sigma, layer) for adapter, layer in still if layer.is_low_rank]
        if not pairs:
            return start
        B = torch.cat([scale * layer.B.flatten(1) for scale, layer in pairs], 1)
        A = torch.cat([layer.A.flatten(1) for _, layer in pairs])
        if self._room is None or self._room.shape != start.shape or self._room.device != start.device:
            self._room = torch.empty(start.shape, device=start.device)  # contiguous, so that `flatten` is a view
        torch.addmm(start.flatten(1), B, A, out=self._room.flatten(1))
        return self._room

    def _after(self, base: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        if self._settled:
            return output
        x = args[0] if args else kwargs["input"]
        live = [m for m in self.members if _strength(*m) != 0 and not any(m[0] is merged for merged in self._inside)]
        if len(live) == 1 and live[0][0].rows is None and not torch.compiler.is_compiling():
            adapter, layer = live[0]
            if layer.can_join(base, output, x):
                return layer.join_to(output, base, x, _strength(adapter, layer))
        for adapter, layer in live:
            strength = _strength(adapter, layer)
            if adapter.rows is None:
                output = layer.add_to(output, base, x, strength)
            else:
                added = layer.add_to(torch.zeros_like(output), base, x, strength)
                output = output + _spread(adapter.rows, output) * added
        return output


def acting(model: nn.Module) -> tuple | None:
    """What acts on a model now: while answers are equal, so is what the model gives. None where no answer can tell."""
    found: list[Any] = []
    for part in model.modules():
        stack = part.__dict__.get(ATTRIBUTE)
        for adapter, layer in stack.members if stack else ():
            strength = _strength(adapter, layer)
            if strength and (adapter.training or adapter.rows is not None):
                return None
            if strength:
                found += ref(layer), strength, adapter.switched, *map(_stamp, layer.parameters())
    return tuple(found)


def _strength(adapter: "Adapter", layer: Layer) -> float:
    return adapter.strength * layer.factor


def _spread(rows: Tensor, output: Tensor) -> Tensor:
    """A number for each row of `output`, whose batch is as long as `rows`, a multiple (guidance asks twice), or 1."""
    many = max(1, output.shape[0] // len(rows))
    return rows.to(output).repeat(many).view(-1, *[1] * (output.ndim - 1))


def _stamp(tensor: Tensor) -> tuple[int, int]:
    """Another one after each write into the tensor, and where its numbers lie elsewhere.

    Tensors made in inference mode can't be written outside it and count no writes.
    """
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
