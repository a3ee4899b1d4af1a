"""`from studio.libraries.diffusers import diffusers`, after transformers, which its pipelines ask for names."""

import diffusers
from diffusers import DDPMScheduler, StableDiffusionPipeline

__all__ = ["DDPMScheduler", "StableDiffusionPipeline", "diffusers"]

diffusers.utils.logging.disable_progress_bar()
