"""Putting adapters on a model and taking them off.

An adapter hangs on the base model's layers by forward hooks: the base's weights, state dict and class stay as they
were, any number of adapters can hang on one layer, and each has its own strength that can move between two calls.
"""

import math
from pathlib import Path

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from studio.adapters import names
from studio.adapters.files import AdapterFile, write_adapter
from studio.adapters.layers import KINDS, Base, Factors, LoraLayer, can_adapt, fit
from studio.adapters.report import MatchReport
from studio.adapters.spec import AdapterSpec
from studio.errors import AdapterError

# Base parameter -> [its requires_grad before the first adapter, how many adapters hold it frozen]. Shared by all
# adapters, so that they can be detached in any order.
_frozen = WeakTensorKeyDictionary()


class Adapter(nn.Module):
    """Adapter layers hanging on one or more base models. Made by `attach` and `attach_file`.

    `parameters()` are the A and B of every layer and nothing else. Move it with the base: `adapter.to(device)`.
    Attach to a copy rather than copy what is attached: `copy.deepcopy(base)` keeps the hooks, also after `detach()`.
    It trains in `train()` mode (dropout) and is deterministic in `eval()` mode, whatever mode the base is in.
    """

    def __init__(
        self,
        name: str,
        bases: dict[str, nn.Module],
        layers: dict[tuple[str, str], LoraLayer],
        strength: float = 1.0,
        report: MatchReport | None = None,
    ):
        """bases: {component: model}; layers: {(component, path in that model): layer}."""
        super().__init__()
        self.name, self.report = name, report
        self.strength = strength  # refuses what is not a number before anything is hung
        self._placed = layers  # the same layers as in `layers`, by place
        self.layers = nn.ModuleDict({_module_key(*key): layer for key, layer in layers.items()})
        used = {component: base for component, base in bases.items() if any(c == component for c, _ in layers)}
        unique = {id(p): p for base in used.values() for p in base.parameters()}
        self._base_parameters = list(unique.values())
        self._base_size = sum(p.numel() for p in self._base_parameters)
        _freeze(self._base_parameters)
        self._hooks = [
            used[component].get_submodule(path).register_forward_hook(self._hook(layer), with_kwargs=True)
            for (component, path), layer in layers.items()
        ]

    def _hook(self, layer: LoraLayer):
        def add(base: Base, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
            if self._strength == 0:
                return output  # the very tensor the base made: bit for bit
            x = args[0] if args else kwargs["input"]
            return output + layer(base, x, self._strength).to(output.dtype)

        return add

    @property
    def strength(self) -> float:
        """How much of the update is added: 0 is exactly the base, 1 is as trained. Takes effect at the next call."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise AdapterError(f"The strength must be a number (you gave {value!r}).")
        self._strength = float(value)

    @property
    def factors(self) -> dict[tuple[str, str], Factors]:
        """{(component, path): A, B and alpha}, copied to the CPU. The component is "" after `attach`."""
        return {place: layer.factors for place, layer in self._placed.items()}

    def detach(self) -> None:
        """Take the adapter off. The base is as it was before, `requires_grad` included. Twice does nothing."""
        for hook in self._hooks:
            hook.remove()
        if self._hooks:
            _thaw(self._base_parameters)
        self._hooks, self._base_parameters = [], []

    def save(
        self,
        path: str | Path,
        prefix: str = "unet",
        layout: str = "diffusers",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Write the adapter to `path` (.safetensors), whole or not at all.

        prefix    the component's name in the file, for layers attached without one (by `attach`)
        layout    "diffusers" or "kohya"
        metadata  more of the file's own, such as {"studio.trigger": "..."}

        Raises AdapterError.
        """
        factors = {(component or prefix, key): f for (component, key), f in self.factors.items()}
        write_adapter(path, factors, layout=layout, metadata=metadata)

    def summary(self) -> str:
        """Trainable parameters / all parameters, base included, such as "444 / 1,045 (42.49%)"."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = self._base_size + sum(p.numel() for p in self.parameters())
        return f"{trainable:,} / {total:,} ({100 * trainable / total:.2f}%)"


def attach(module: nn.Module, spec: AdapterSpec, name: str = "adapter") -> Adapter:
    """Hang a fresh, trainable adapter on every layer of `module` that `spec` targets, and freeze `module`.

    The fresh adapter changes nothing: B is zero. Raises AdapterError when no layer is a target.
    """
    found = {path: layer for path, layer in module.named_modules() if path and can_adapt(layer)}
    chosen = {path: layer for path, layer in found.items() if spec.wants(path)}
    if not chosen:
        example = f"its layers have names like {list(found)[-1]!r}" if found else "it has no Linear or Conv2d layer"
        raise AdapterError(f"No layer of the model matches the targets {spec.targets!r}: {example}.")
    kind = KINDS[spec.kind]
    layers = {
        ("", path): kind.fresh(layer, spec.rank, spec.scaled_alpha, spec.dropout) for path, layer in chosen.items()
    }
    return Adapter(name, {"": module}, layers)


def attach_file(file: AdapterFile, modules: dict[str, nn.Module], strength: float = 1.0) -> Adapter:
    """Hang a file's layers on the models they were made for; `adapter.report` says what fitted and what did not.

    modules: {component: model}, such as {"unet": unet, "text_encoder": text_encoder}. Layers that the file gives no
    known component are looked for in all of them. Raises AdapterError when nothing fits; the models are then untouched.
    """
    indexes = {component: names.index_layers(module) for component, module in modules.items()}
    layers: dict[tuple[str, str], LoraLayer] = {}
    unused: list[tuple[str, str]] = []
    for (component, key), factors in file.layers.items():
        try:
            place = names.find_layer(component, key, indexes)
            if place in layers:
                raise AdapterError("another layer of the file already fits there")
            base = modules[place[0]].get_submodule(place[1])
            assert can_adapt(base)  # names indexes no other
            layers[place] = LoraLayer(fit(factors, base)).to(base.weight.device)
        except AdapterError as error:
            unused.append((f"{component}.{key}" if component else key, str(error)))
    if not layers:
        raise AdapterError(f"This adapter was made for another base model: 0 of {len(file.layers)} layers fit.")
    report = MatchReport(len(layers), len(file.layers), unused + list(file.unknown.items()))
    return Adapter(file.name, modules, layers, strength, report).eval()


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
        entry = _frozen[parameter]
        entry[1] -= 1
        if entry[1] == 0:
            parameter.requires_grad_(entry[0])
            del _frozen[parameter]
