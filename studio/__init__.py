"""LoRA Studio: teach Stable Diffusion something new with LoRA, and find out whether it worked."""

import logging
import os

# Before any is imported: their advice ("requires torchvision", "Could not load this library") is not for our users.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
for chatty in ("torchao", "torch.utils._pytree"):
    logging.getLogger(chatty).setLevel(logging.ERROR)

__version__ = "0.2.0.dev0"
