"""LoRA itself: the mathematics, the attachment to a model, and the files. Nothing here knows of any base model.

Read in this order: `formulas` (what each kind adds to a weight), `layers` (one adapted layer that trains), `spec`
(which layers, which rank), `stack` (several on one layer, live or merged), `attach` (putting them on a model); then
`update` (one layer as plain tensors), `names` (what files call a layer), `header` and `files` (reading with care,
writing whole), `reshape` (resize and merge), `insight` and `report` (what to tell).
"""

from studio.adapters.attach import Adapter, MatchReport, attach, attach_file, place_layers
from studio.adapters.files import AdapterFile, read_adapter, write_adapter
from studio.adapters.insight import block_of, energy_by_block, overlap
from studio.adapters.report import describe, describe_text
from studio.adapters.reshape import merge, resize
from studio.adapters.spec import KINDS, PRESETS, AdapterSpec
from studio.adapters.update import Update

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
    "block_of",
    "describe",
    "describe_text",
    "energy_by_block",
    "merge",
    "overlap",
    "place_layers",
    "read_adapter",
    "resize",
    "write_adapter",
]
