"""What files call a layer, and which layer of a live model that is.

| program            | a key                                                                        |
| ------------------ | ---------------------------------------------------------------------------- |
| diffusers, PEFT    | unet.mid_block.….to_q.lora_A.weight (B: lora_B)                               |
| PEFT alone         | base_model.model.….to_q.lora_A.weight, also lora_A.default.weight and lora_A  |
| kohya              | lora_unet_mid_block_…_to_q.lora_down.weight (B: lora_up), ….alpha             |
| older diffusers    | unet.mid_block.….processor.to_q_lora.down.weight, ….to_q.lora.down.weight,    |
|                    | text_encoder.….q_proj.lora_linear_layer.down.weight                           |

A flattened name such as `mid_block_to_q` can't be un-flattened by rules, since paths hold underscores of their own.
So the way is the other one: flatten every path of the live model, and look the file's name up there.
"""

import re
from typing import NamedTuple

from torch import nn

from studio.adapters.layers import can_carry
from studio.errors import AdapterError

COMPONENTS = ("unet", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer")
KOHYA_PREFIXES = {  # the first prefix of a component is the one written
    "lora_unet_": "unet",
    "oft_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "lora_transformer_": "transformer",
    "lycoris_": "",  # whatever module LyCORIS was put on
}
# Transformers 5 dropped this level of CLIP's text model; files keep it, and older programs need it.
_TEXT_LEVEL = "text_model."

_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"  # PEFT's name of the adapter, and what it puts after it
_KEY = re.compile(
    r"(?P<path>.+?)(?:"
    rf"\.lora_(?P<letter>[AB]){_ADAPTER}"
    r"|[._]lora(?:_linear_layer)?[._](?P<way>down|up)\.weight"
    rf"|\.(?P<magnitude>lora_magnitude_vector){_ADAPTER}"
    r"|\.lora_(?P<mid>mid)\.weight"
    r"|\.lora_B\.(?P<bias>bias)"
    rf"|\.(?P<lycoris>hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t[12]){_ADAPTER}"
    r"|\.(?P<glora>[ab][12])\.weight"
    r"|\.(?P<plain>alpha|dora_scale|diff|diff_b|w_norm|b_norm|weight|on_input|oft_blocks|rescale)"
    r")"
)


class Key(NamedTuple):
    """component: "" when the key names none. layer: a dotted path, or kohya's flattened one. part: as in `Update`."""

    component: str
    layer: str
    part: str


class Place(NamedTuple):
    """Where a file's layer goes; rows is the range of its outputs that goes there, None for all of them."""

    component: str
    path: str
    rows: tuple[int, int] | None = None


_OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def parse_key(key: str) -> Key | None:
    """A file's key taken apart, or None when it is not an adapter's."""
    match = _KEY.fullmatch(key)
    if not match:
        return None
    found = {name: value for name, value in match.groupdict().items() if value and name != "path"}
    (part,) = found.values()
    part = {"down": "A", "up": "B", "lora_magnitude_vector": "magnitude", "weight": "ia3"}.get(part, part)
    path = match["path"]
    for prefix, component in KOHYA_PREFIXES.items():
        if path.startswith(prefix):
            return Key(component, path.removeprefix(prefix).lstrip("_"), part)
    if part == "ia3":  # a model's own weight
        return None
    component, _, rest = path.partition(".")
    if component not in COMPONENTS or not rest:
        component, rest = "", path
    return Key(component, _modern(rest.removeprefix("base_model.model.")), part)


def _modern(path: str) -> str:
    """Today's path of a layer that older diffusers named after its attention processor."""
    parent, _, leaf = path.rpartition(".")
    if parent.endswith(".self_attn") and leaf in _OLD_TEXT_NAMES:
        return f"{parent}.{_OLD_TEXT_NAMES[leaf]}"
    if parent.endswith(".processor"):
        parent = parent.removesuffix(".processor")
        return f"{parent}.to_out.0" if leaf == "to_out" else f"{parent}.{leaf}"
    return path


def index_layers(module: nn.Module) -> dict[str, str | None]:
    """{every name a file may use: path} of the layers that can carry an update; None where a name fits two layers."""
    paths = [path for path, layer in module.named_modules() if path and can_carry(layer)]
    index: dict[str, str | None] = {}
    for path in paths:
        dotted = {path, _TEXT_LEVEL + path, path.removeprefix(_TEXT_LEVEL)}
        for name in dotted | {name.replace(".", "_") for name in dotted}:
            index[name] = path if index.get(name, path) == path else None
    index.update({path: path for path in paths})  # an exact path means itself, whatever else flattens to it
    return index


def find_layer(component: str, key: str, indexes: dict[str, dict[str, str | None]]) -> tuple[Place, ...]:
    """The places of a file's layer among live models, given `index_layers` of each.

    Raises AdapterError that says why there is none.
    """
    if component in indexes:
        places = [(component, key)]
    else:  # the file names no component, or one that is the model's own first level
        full = f"{component}.{key}" if component else key
        places = [(name, full) for name in indexes]
    for name, wanted in places:
        path = indexes[name].get(wanted)
        if path:
            return (Place(name, path),)
        if wanted in indexes[name]:
            raise AdapterError("its name fits two layers of the base model")
    if component and component not in indexes:
        raise AdapterError(f"there is no {component} to put it on")
    raise AdapterError("the base model has no such layer")


def diffusers_path(component: str, path: str) -> str:
    """The path that a diffusers or kohya file uses for a live model's layer."""
    if component.startswith("text_encoder") and path.startswith("encoder.layers."):
        return _TEXT_LEVEL + path
    return path


def kohya_name(component: str, path: str, with_second_text_encoder: bool = False) -> str:
    """The flattened name, `lora_te1_` instead of `lora_te_` when the base has a second text encoder.

    Raises AdapterError for a component that this layout has no name for.
    """
    written = {name: prefix for prefix, name in reversed(KOHYA_PREFIXES.items())}
    if component not in written:
        raise AdapterError(
            f"The kohya layout has no name for {component!r}: use {', '.join(COMPONENTS)}, or diffusers."
        )
    prefix = "lora_te1_" if component == "text_encoder" and with_second_text_encoder else written[component]
    return prefix + diffusers_path(component, path).replace(".", "_")
