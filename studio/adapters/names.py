"""What files call a layer, and which layer of a live model that is.

| program            | a key                                                                        |
| ------------------ | ---------------------------------------------------------------------------- |
| diffusers, PEFT    | unet.mid_block.….to_q.lora_A.weight (B: lora_B)                               |
| PEFT alone         | base_model.model.….to_q.lora_A.weight, also lora_A.default.weight and lora_A  |
| kohya              | lora_unet_mid_block_…_to_q.lora_down.weight (B: lora_up), ….alpha             |
| older diffusers    | unet.mid_block.….processor.to_q_lora.down.weight, ….to_q.lora.down.weight,    |
|                    | text_encoder.….q_proj.lora_linear_layer.down.weight                           |

A flattened name such as `mid_block_to_q` can't be un-flattened by rules, since paths hold underscores of their own.
Instead, every path of the live model is flattened, and the file's name is searched among them.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from torch import nn

from studio.adapters.layers import can_carry, shape_of
from studio.adapters.original_names import original_names
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
EMBEDDING = "embedding"  # the component of a bundled word
# Transformers 5 dropped this level of CLIP's text model; files keep it, and older programs need it.
_TEXT_LEVEL = "text_model."

_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"  # PEFT's name of the adapter, and what it puts after it
_KEY = re.compile(
    r"(?P<path>.+?)(?:"
    rf"\.lora_(?P<letter>[AB]){_ADAPTER}"
    r"|[._]lora(?P<side>[12])?(?:_linear_layer)?[._](?P<way>down|up)\.weight"  # XLabs: 1 the image's, 2 the text's
    rf"|\.(?P<magnitude>lora_magnitude_vector){_ADAPTER}"
    r"|\.lora_(?P<mid>mid)\.weight"
    r"|\.lora_B(?:\.(?!weight\.)[^.]+)?\.(?P<bias>bias)"
    rf"|\.(?P<lycoris>hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t[12]){_ADAPTER}"
    rf"|\.(?P<peft>oft_R){_ADAPTER}"
    r"|\.(?P<glora>[ab][12])\.weight"
    r"|\.(?P<plain>alpha|dora_scale|diff|diff_b|w_norm|b_norm|weight|on_input|oft_blocks|rescale|neumann)"
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


_DENOISER = ("model.diffusion_model.", "diffusion_model.")  # ComfyUI's way to say "the denoiser, whichever it is"
_BUNDLED = re.compile(
    r"bundle_emb\.(?P<token>[^.]+)\.(?P<part>.+)"
)  # as A1111 splits it: "…clip_l", "…string_to_param.*"
_OMI = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5": "text_encoder_3"}
_OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@lru_cache(20_000)  # a file's keys are asked for several times while it is read
def parse_key(key: str) -> Key | None:
    """A file's key taken apart, or None when it is not an adapter's."""
    if bundled := _BUNDLED.fullmatch(key):
        return Key(EMBEDDING, bundled["token"], bundled["part"])
    match = _KEY.fullmatch(key)
    if not match:
        return None
    found = {name: value for name, value in match.groupdict().items() if value and name not in ("path", "side")}
    (part,) = found.values()
    part = {"down": "A", "up": "B", "lora_magnitude_vector": "magnitude", "weight": "ia3"}.get(part, part)
    path = match["path"] + (match["side"] or "")
    for prefix, component in KOHYA_PREFIXES.items():
        if path.startswith(prefix):
            # Some programs flatten the paths of A and B and leave dots in others of the same layer (ComfyUI 3494).
            return Key(component, path.removeprefix(prefix).lstrip("_").replace(".", "_"), part)
    if part == "ia3":  # a model's own weight
        return None
    for prefix in _DENOISER:
        path = path.removeprefix(prefix)
    component, _, rest = path.partition(".")
    component = _OMI.get(component, component)
    if component not in COMPONENTS or not rest:
        component, rest = "", path
    return Key(component, _modern(rest.removeprefix("base_model.model.")), part)


_UNREAD = {
    "boft_": "PEFT's BOFT is not read",
    "ia3_l": "PEFT's IA3 is not read",
    "glora_": "PEFT's GLoRA is not read",
    "lora_embedding_": "PEFT's LoRA on embeddings is not read",
}


def why_not(key: str) -> str:
    """Why `parse_key` gives None."""
    return next((why for mark, why in _UNREAD.items() if mark in key), "not an adapter's key")


def _modern(path: str) -> str:
    """Today's path of a layer that older diffusers named after its attention processor."""
    parent, _, leaf = path.rpartition(".")
    if parent.endswith(".self_attn") and leaf in _OLD_TEXT_NAMES:
        return f"{parent}.{_OLD_TEXT_NAMES[leaf]}"
    if parent.endswith(".processor"):
        parent = parent.removesuffix(".processor")
        return f"{parent}.to_out.0" if leaf == "to_out" else f"{parent}.{leaf}"
    return path


Index = dict[str, tuple[tuple[str, tuple[int, int] | None], ...] | None]


def index_layers(module: nn.Module) -> Index:
    """{every name a file may use: its (path, rows)} of the layers that can carry an update.

    Several paths where the name means several layers held as one; None where it could mean two different ones.
    """
    sizes = {path: shape_of(m)[0] for path, m in module.named_modules() if path and can_carry(m)}
    index: Index = {}

    def add(name: str, places: tuple[tuple[str, tuple[int, int] | None], ...]) -> None:
        for spelled in {name, name.replace(".", "_")}:
            index[spelled] = places if index.get(spelled, places) == places else None

    for path in sizes:
        for name in {path, _TEXT_LEVEL + path, path.removeprefix(_TEXT_LEVEL)}:
            add(name, ((path, None),))
    held: dict[str, list[tuple[str, tuple[int, int] | None]]] = {}
    for name, path, rows in original_names(sizes):
        held.setdefault(name, []).append((path, rows))
    for name, places in held.items():
        add(name, tuple(places))
    index.update({path: ((path, None),) for path in sizes})  # an exact path means itself, whatever else is called so
    return index


def find_layer(component: str, key: str, indexes: dict[str, Index]) -> tuple[Place, ...]:
    """The places of a file's layer among live models, given `index_layers` of each: the first of `find_layers`."""
    return find_layers(component, key, indexes)[0]


def find_layers(component: str, key: str, indexes: dict[str, Index]) -> list[tuple[Place, ...]]:
    """As `find_layer`, in each model that has such a layer: several where the file names no component.

    Raises AdapterError that says why there is none.
    """
    out = []
    component = _loaded(component, indexes)
    if component in indexes:
        places = [(component, key)]
    else:  # the file names no component, or one that is the model's own first level
        full = f"{component}.{key}" if component else key
        places = [(name, full) for name in indexes]
    for name, wanted in places:
        found = indexes[name].get(wanted)
        if found:
            out.append(tuple(Place(name, path, rows) for path, rows in found))
        elif wanted in indexes[name]:
            raise AdapterError("its name fits two layers of the base model")
    if out:
        return out
    if component and component not in indexes:
        raise AdapterError(f"there is no {component} to put it on")
    raise AdapterError("the base model has no such layer")


def _loaded(component: str, indexes: dict[str, Index]) -> str:
    """Programs say "unet" of any denoiser; and FLUX's T5 is its second text encoder, SD3's its third."""
    for one, other in (("unet", "transformer"), ("text_encoder_3", "text_encoder_2")):
        if component in (one, other) and component not in indexes:
            return other if component == one else one
    return component


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
