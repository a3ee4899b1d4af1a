"""`from studio.libraries.transformers import transformers`, or a name that some thread may be the first to ask for."""

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoProcessor",
    "AutoTokenizer",
    "CLIPImageProcessorPil",
    "CLIPModel",
    "CLIPTextModel",
    "CLIPTokenizer",
    "CLIPVisionModelWithProjection",
    "transformers",
]
