"""LoRA itself: the mathematics, the attachment to a model, and the files. A base model is any `nn.Module` here.

Where to find what:

formulas, update                what each kind adds to a weight; one layer's update as plain tensors
spec, layers                    settings of a new adapter; one adapted layer that trains
layer_adapters, attach          several adapters on one layer, live or merged; attaching them to a model
names, original_names,          what files call a layer: diffusers, PEFT and kohya; the original authors of UNets, FLUX
original_dit_names, kohya_names and SD 3; those of other transformers; writing kohya's names
header, peft_config, files      reading a file: its header, PEFT's configuration, the whole
writing                         writing a file
architectures, family           the layers of known models; which one a file is for
reshape, baking, rewrite        arithmetic of resize and merge; adapters on a base as one LoRA; new files out of files
insight, block_map, examine     effective rank, strength by block, a report on a base
report, advice                  what to tell a person
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
