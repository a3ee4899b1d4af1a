"""LoRA itself: the mathematics, the attachment to a model, and the files. Nothing here knows of any base model.

Read in this order: `layers` (what one adapted layer computes), `spec` (which layers, which rank), `attach` (hooks),
`names` (what files call a layer), `header` and `files` (reading with care, writing whole), `report` (what to tell).
"""

from studio.adapters.attach import Adapter, attach, attach_file
from studio.adapters.files import AdapterFile, read_adapter, write_adapter
from studio.adapters.layers import Factors
from studio.adapters.report import MatchReport, describe, describe_text
from studio.adapters.spec import PRESETS, AdapterSpec

__all__ = [
    "PRESETS",
    "Adapter",
    "AdapterFile",
    "AdapterSpec",
    "Factors",
    "MatchReport",
    "attach",
    "attach_file",
    "describe",
    "describe_text",
    "read_adapter",
    "write_adapter",
]
