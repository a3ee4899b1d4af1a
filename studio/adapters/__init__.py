"""LoRA itself: the mathematics, the attachment to a model, and the files. A base model is any module here; only names
in files are known to belong to some family.

Read in this order: `formulas` (what each kind adds to a weight), `layers` (one adapted layer that trains), `spec`
(which layers, which rank), `stack` (several on one layer, live or merged), `attach` (putting them on a model); then
`update` (one layer as plain tensors), `names`, `original_names` and `kohya_names` (what files call a layer), `header`,
`files` and `outline` (reading with care, writing whole, looking only at the head), `family` (which base it is for),
`reshape` (resize and merge), `baking` (a whole stack as one LoRA), `insight`, `block_map` and `examine` (what its
numbers say), `report` and `advice` (what to tell).
"""

from studio.adapters.attach import Adapter, MatchReport, attach, attach_file, place_layers
from studio.adapters.files import AdapterFile, autov3_hash, read_adapter, read_outline
from studio.adapters.insight import block_of
from studio.adapters.report import describe, describe_text
from studio.adapters.reshape import merge, resize
from studio.adapters.spec import KINDS, PRESETS, AdapterSpec
from studio.adapters.update import Update
from studio.adapters.writing import write_adapter

__all__ = [
    "KINDS",
    "PRESETS",
    "Adapter",
    "AdapterFile",
    "AdapterSpec",
    "MatchReport",
    "Update",
    "attach",
    "attach_file",
    "autov3_hash",
    "block_of",
    "describe",
    "describe_text",
    "merge",
    "place_layers",
    "read_adapter",
    "read_outline",
    "resize",
    "write_adapter",
]
