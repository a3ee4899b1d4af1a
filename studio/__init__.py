"""LoRA Studio: teach Stable Diffusion something new with LoRA, and find out whether it worked."""

__version__ = "0.1.0"
