"""LoRA Studio: teach Stable Diffusion something new with LoRA, and find out whether it worked."""

import os

# Before either is imported: their advice ("requires torchvision", "Expected types for vae") is not for our users.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

__version__ = "0.1.0"
