"""transformers and, in `libraries.diffusers`, diffusers: with all that their pieces share, for whoever needs either.

Both put another module in their own place while they are imported, and import their pieces when a name is first asked
of them. A second thread that comes meanwhile holds the module that is replaced, and fails with "cannot import name".
Whoever asks for a library here gets it whole, or waits until another thread has it; only leaves are left to be imported
then. So nothing else in the studio imports these two by themselves.
"""

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

transformers.utils.logging.disable_progress_bar()  # "Loading weights", in the middle of the command line's own lines
