"""`from studio.libraries.diffusers import diffusers`, or a name that some thread may be the first to ask for."""

import diffusers
from diffusers import DDPMScheduler, StableDiffusionPipeline

__all__ = ["DDPMScheduler", "StableDiffusionPipeline", "diffusers"]
