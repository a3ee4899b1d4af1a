"""Attaching adapters to a model and detaching them.

An adapter acts on the base model's layers (see `layer_adapters`): the base's weights, state dict and class stay as they
were, any number of adapters can act on one layer, and each has its own strength that can change between two calls.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from studio.adapters import names
from studio.adapters.files import AdapterFile
from studio.adapters.layer_adapters import LayerAdapters, room_for, share_room
from studio.adapters.layers import Layer, can_train, device_of, init_layer, shape_of
from studio.adapters.spec import AdapterSpec
from studio.adapters.update import Update
from studio.adapters.writing import write_adapter
from studio.errors import AdapterError
from studio.text import pluralize

# Base parameter -> [its requires_grad before the first adapter, how many adapters keep it frozen]. Shared by all
# adapters, so that they can be detached in any order.
_frozen: MutableMapping[nn.Parameter, list[Any]] = WeakTensorKeyDictionary()


@dataclass(frozen=True)
class MatchReport:
    """How a file's layers fitted the loaded base.

    matched, total  layers
    unused          (key, why) of layers and of tensors that were not used
    notes           what else is in the file and not used, and what was assumed
    """

    matched: int
    total: int
    unused: list[tuple[str, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = f"{self.matched} of {self.total} layers applied"
        if self.unused:
            reasons = Counter(why for _, why in self.unused).most_common(3)
            line += f", {len(self.unused)} keys unused: " + "; ".join(f"{why} ({count})" for why, count in reasons)
        return "; ".join((line, *self.notes))


class Adapter(nn.Module):
    """Adapter layers attached to one or more base models. Made by `attach` and `attach_file`.

    `parameters()` are the tensors of every layer's update (A and B for a LoRA) and nothing else. Move it with the base:
    `adapter.to(device)`. In `train()` mode it acts live, with dropout; in `eval()` mode, and where no gradients are
    needed, its layers are merged (see `layer_adapters`).
    """

    def __init__(
        self,
        name: str,
        bases: dict[str, nn.Module],
        layers: dict[tuple[str, str], Layer],
        strength: float = 1.0,
        report: MatchReport | None = None,
    ):
        """bases: {component: model}; layers: {(component, path in that model): layer}. Raises AdapterError."""
        super().__init__()
        self.name, self.report = name, report
        self.strength = strength  # raises before anything is attached
        self._per_sample_scale: Tensor | None = None
        self.mode_switches = 0  # calls of `train` and `eval`: tensors may have been written uncounted in between
        self._layers = layers  # the same layers as in `layers`, by component and path
        self.layers = nn.ModuleDict({_module_key(*key): layer for key, layer in layers.items()})
        used = {component: base for component, base in bases.items() if any(c == component for c, _ in layers)}
        unique = {id(p): p for base in used.values() for p in base.parameters()}
        self._base_parameters = list(unique.values())
        self._base_size = sum(p.numel() for p in self._base_parameters)
        room = {component: room_for(base) for component, base in used.items()}  # raises before anything is attached
        _freeze(self._base_parameters)
        self._attached: list[LayerAdapters] = []
        for (component, path), layer in layers.items():
            on_layer = LayerAdapters.of(used[component].get_submodule(path))
            on_layer.add(self, layer)
            self._attached.append(on_layer)
        for component, base in used.items():
            share_room(base, room[component])

    @property
    def strength(self) -> float:
        """The factor on the update: 0 is exactly the base, 1 is as trained. Takes effect at the next call."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise AdapterError(f"The strength must be a number (you gave {value!r}).")
        self._strength = float(value)

    @property
    def per_sample_scale(self) -> Tensor | None:
        """A factor on the strength for each sample of a batch, (n,); None where all samples are treated alike.

        Batches must have n samples or a multiple, over which the factors repeat (guidance doubles a batch). The adapter
        then acts live, so that one batch can hold an image at each of several strengths.
        """
        return self._per_sample_scale

    @per_sample_scale.setter
    def per_sample_scale(self, values: Tensor | None) -> None:
        self._per_sample_scale = values

    def set_layer_scales(self, scale: Callable[[str, str], float]) -> None:
        """Set each layer's own factor on the strength, from (component, path). Takes effect at the next call."""
        for place, layer in self._layers.items():
            value = float(scale(*place))
            if not math.isfinite(value):
                raise AdapterError(f"The strength of {place[1]} must be a number.")
            layer.layer_scale = value

    def train(self, mode: bool = True) -> "Adapter":
        """As of any module. Merged weights are forgotten: training may write tensors without torch counting it."""
        super().train(mode)
        self.mode_switches += 1
        for on_layer in self._attached:
            on_layer.cache.clear()
        return self

    def items(self) -> Iterator[tuple[tuple[str, str], Layer, nn.Module]]:
        """((component, path), layer, the base's layer) of everything that is attached."""
        for (place, layer), on_layer in zip(self._layers.items(), self._attached):
            yield place, layer, on_layer.base

    @property
    def updates(self) -> dict[tuple[str, str], Update]:
        """{(component, path): the layer's update}, copied to the CPU. The component is "" after `attach`."""
        return {place: layer.update for place, layer in self._layers.items()}

    def groups(
        self, learning_rate: float, b_ratio: float = 1.0, rates: Mapping[str, float] | None = None
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer. A `b_ratio` above 1 trains B faster than A: LoRA+ (arXiv:2402.12354).

        rates: {regular expression: learning rate} for layers whose rate differs; the first that fits counts.
        """
        sorted_by: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for own in dict.fromkeys((learning_rate, *(rates or {}).values())):
            sorted_by |= {(own, False): [], (own, True): []}
        for (_, path), layer in self._layers.items():
            fits = (rate for pattern, rate in (rates or {}).items() if re.search(pattern, path))
            rate = next(fits, learning_rate)
            for name, parameter in layer.named_parameters():
                sorted_by[rate, name == "B"].append(parameter)
        return [
            {"params": params, "lr": rate * b_ratio if fast else rate}
            for (rate, fast), params in sorted_by.items()
            if params
        ]

    def detach(self) -> None:
        """Remove the adapter. The base is as it was before, `requires_grad` included. A second call does nothing."""
        for on_layer in self._attached:
            on_layer.remove(self)
        if self._attached:
            _thaw(self._base_parameters)
        self._attached, self._base_parameters = [], []

    def save(
        self,
        path: str | Path,
        prefix: str = "unet",
        layout: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Write the adapter to `path` (.safetensors), atomically.

        prefix    the component's name in the file, for layers attached without one (by `attach`)
        layout    "diffusers" or "kohya"; None: diffusers where it has names for the kind
        metadata  more of the file's own, such as {"studio.trigger": "..."}

        Raises AdapterError.
        """
        updates = {(component or prefix, key): update for (component, key), update in self.updates.items()}
        write_adapter(path, updates, layout=layout, metadata=metadata)

    def summary(self) -> str:
        """Trainable parameters / all parameters, base included, such as "444 / 1,045 (42.49%)"."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = self._base_size + sum(p.numel() for p in self.parameters())
        return f"{trainable:,} / {total:,} ({100 * trainable / total:.2f}%)"


def attach(module: nn.Module, spec: AdapterSpec, name: str = "adapter") -> Adapter:
    """Attach a new, trainable adapter to every layer of `module` that `spec` targets, and freeze `module`.

    A new adapter changes nothing: B is zero. Raises AdapterError when no layer is a target.
    """
    found = {path: layer for path, layer in module.named_modules() if path and can_train(layer)}
    chosen = {path: layer for path, layer in found.items() if spec.wants(path)}
    if not chosen:
        example = f"its layers have names like {list(found)[-1]!r}" if found else "it has no layer that can be adapted"
        raise AdapterError(f"No layer of the model matches the targets {spec.targets!r}: {example}.")
    return Adapter(name, {"": module}, {("", path): init_layer(layer, path, spec) for path, layer in chosen.items()})


def attach_file(
    file: AdapterFile, modules: dict[str, nn.Module], strength: float = 1.0, force: bool = False
) -> Adapter:
    """Attach a file's layers to the models they were made for; `adapter.report` says what fitted and what did not.

    modules: {component: model}, such as {"unet": unet, "text_encoder": text_encoder}. Layers that the file gives no
    known component are searched in all of them. Raises AdapterError when nothing fits, or when the file holds NaN or
    infinity and it is not forced; the models are then untouched.
    """
    if not force:
        file.refuse_if_damaged()
    placed, unused = place_layers(file, modules)
    if not placed:
        raise AdapterError(
            f"{file.name} was made for another base model: 0 of its {len(file.layers)} layers fit. Choose that base "
            "model, or remove the adapter."
        )
    report = match_report(file, unused)
    layers = {}
    for (component, path), update in placed.items():
        layers[component, path] = Layer(update).to(device_of(modules[component].get_submodule(path)))
    return Adapter(file.name, modules, layers, strength, report).eval()


def match_report(file: AdapterFile, unused: list[tuple[str, str]]) -> MatchReport:
    """How `file` fits, given the layers that `place_layers` found no place for."""
    words = pluralize(len(file.embeddings), "bundled embedding")
    notes = ((f"{words} not used",) if file.embeddings else ()) + file.notes
    total = len(file.layers)
    return MatchReport(total - len(unused), total, unused + list(file.unknown.items()), notes)


def place_layers(
    file: AdapterFile, modules: dict[str, nn.Module]
) -> tuple[dict[tuple[str, str], Update], list[tuple[str, str]]]:
    """{(component, path): update} of a file's layers among live models, and (key, why) of those that have no place."""
    indexes = {component: names.index_layers(module) for component, module in modules.items()}
    placed: dict[tuple[str, str], Update] = {}
    unused: list[tuple[str, str]] = []
    for (component, key), update in file.layers.items():
        error: AdapterError | None = None
        try:
            candidates = names.find_layers(component, key, indexes)
        except AdapterError as reason:
            candidates, error = [], reason
        for places in candidates:
            try:
                placed |= _fitted(update, places, modules, placed)
            except AdapterError as reason:  # a model's second text encoder has the first one's names
                error = error or reason
            else:
                error = None
                break
        if error is not None:
            unused.append((f"{component}.{key}" if component else key, str(error)))
    return placed, unused


def _fitted(
    update: Update,
    places: tuple[names.Place, ...],
    modules: Mapping[str, nn.Module],
    placed: Mapping[tuple[str, str], Update],
) -> dict[tuple[str, str], Update]:
    """The update on the layers where it goes. Raises AdapterError where it does not fit or the place is taken."""
    found = {}
    for place in places:
        spot = (place.component, place.path)
        if spot in placed:
            raise AdapterError("another layer of the file already fits there")
        shape = shape_of(modules[place.component].get_submodule(place.path))
        found[spot] = update.slice_rows(place.rows, shape).fitted(shape)
    return found


def _module_key(component: str, path: str) -> str:
    """A name that torch accepts for a submodule: it may hold no dot."""
    return "/".join(filter(None, (component, *path.split("."))))


def _freeze(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        entry = _frozen.setdefault(parameter, [parameter.requires_grad, 0])
        entry[1] += 1
        parameter.requires_grad_(False)


def _thaw(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        entry = _frozen.get(parameter)
        if entry is None:  # the parameter of a copied model: it stays as it was copied
            continue
        entry[1] -= 1
        if entry[1] == 0:
            parameter.requires_grad_(entry[0])
            del _frozen[parameter]
