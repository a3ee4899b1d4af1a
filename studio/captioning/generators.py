"""What the captioners built on transformers share: settings, loading, generating, and giving the memory back."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from studio import devices
from studio.captioning.batching import free_memory
from studio.captioning.models import read_config
from studio.errors import BaseModelError, out_of_memory

MODEL_WORDS = "A name from huggingface.co, or a folder on this machine"


class Stopped(Exception):
    """The person stopped it while it wrote; what was written is cut off and of no use."""


class NoCaption(Exception):
    """One image got no caption, for the reason that the message says; the others go on."""


class ModelSettings(BaseModel):
    """What every captioner with a model of its own can be told."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("", min_length=1, max_length=500, description=MODEL_WORDS)
    batch_size: int = Field(4, ge=1, le=64, description="Images at once; fewer are taken when memory runs out")


class GeneratorSettings(ModelSettings):
    device: devices.Choice = Field("auto", description="Where it runs; auto: a GPU if there is")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Of its weights; auto: bf16 on a GPU that has it, else fp16 there, and fp32 on a CPU"
    )
    max_tokens: int = Field(64, ge=4, le=1024, description="Longest caption, in tokens; a word is about 1.3 of them")


class Generator:
    """A model that writes. Subclasses load it in __init__ and say in `caption` what it is asked.

    side  images may come smaller than they are, but with no side below this, in pixels; 0: whole
    stop  when set, `generate` ends at the next word and raises Stopped
    """

    side = 0

    def __init__(self, folder: Path, settings: GeneratorSettings):
        self.folder, self.settings = folder, settings
        self.batch_size = settings.batch_size
        self.stop: threading.Event | None = None
        self.model: Any = None
        self.processor: Any = None

    def load(self, kinds: dict[str, str], other: str) -> dict:
        """Load the model; `kinds` maps its `model_type` to the transformers class. Returns its config.json.

        other: what to say when it is another type of model. Raises BaseModelError.
        """
        from studio.libraries import transformers

        config, name = read_config(self.folder), self.settings.model
        kind = config.get("model_type")
        if kind not in kinds:
            raise BaseModelError(f"{name} is a model of type {str(kind)[:40]!r}: {other}.")
        with explained(name):
            device, dtype = place(self.settings.device, self.settings.precision)
            model, info = getattr(transformers, kinds[kind]).from_pretrained(
                self.folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            missing = len(info["missing_keys"])
            if 2 * missing > len(model.state_dict()):
                raise BaseModelError(f"{name} doesn't hold the weights of a {kind} model: {missing} are missing.")
            self.model, self.device, self.dtype = model.to(device).eval(), device, dtype
        return config

    def generate(self, inputs, **options):
        """(images, tokens) of ids: `model.generate` on the processor's answer. Raises Stopped."""
        import torch

        from studio.libraries import transformers

        def asked(ids, scores, **_):
            return torch.full((ids.shape[0],), self.stop is not None and self.stop.is_set(), device=ids.device)

        inputs = inputs.to(self.device, dtype=self.dtype)  # only what is floating becomes dtype
        with torch.inference_mode():
            ids = self.model.generate(**inputs, stopping_criteria=transformers.StoppingCriteriaList([asked]), **options)
        if self.stop is not None and self.stop.is_set():
            raise Stopped
        return ids

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        raise NotImplementedError

    def close(self) -> None:
        self.model = self.processor = None
        free_memory()


def place(device: str, precision: str):
    """(torch.device, torch.dtype) for these settings. Raises BaseModelError when there is no such device here."""
    import torch

    chosen = devices.choose(device)
    if precision == "auto":  # a captioner works in fp16 on Apple's as well
        fits = not devices.is_accelerator(chosen) or devices.default_precision(chosen) != "fp32"
        precision = devices.default_precision(chosen) if fits else "fp16"
    return chosen, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever a damaged or unfit model makes the loading raise, as a BaseModelError in one line."""
    try:
        yield
    except BaseModelError:
        raise
    except Exception as error:  # transformers raises nearly anything on files that are not what they should be
        if out_of_memory(error):
            line = f"{name} doesn't fit into memory: take a smaller model, or another device or precision."
            raise BaseModelError(line) from error
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BaseModelError(f"{name} can't be loaded: {why[:200].rstrip('.')}.") from error
