"""BLIP (arXiv:2201.12086) and BLIP-2 (arXiv:2301.12597): one short sentence an image, small and fast."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pydantic import Field

from studio.captioning.generators import MODEL_WORDS, Generator, GeneratorSettings, explained
from studio.datasets.captions import one_line


class BlipSettings(GeneratorSettings):
    model: str = Field("Salesforce/blip-image-captioning-large", min_length=1, max_length=500, description=MODEL_WORDS)
    batch_size: int = Field(8, ge=1, le=64, description="Images at once; fewer are taken when memory runs out")
    prompt: str = Field(
        "", max_length=300, description="What it goes on from, like 'a painting of'; left out of the caption"
    )
    beams: int = Field(3, ge=1, le=10, description="Sentences followed at once; more is slower and a little better")


class Blip2Settings(BlipSettings):
    model: str = Field("Salesforce/blip2-opt-2.7b", min_length=1, max_length=500, description=MODEL_WORDS)


class BlipCaptioner(Generator):
    """Which of the two it is, the folder's config.json says."""

    settings: BlipSettings
    side = 512  # they look at 224 to 384

    def __init__(self, folder: Path, settings: BlipSettings):
        super().__init__(folder, settings)
        kinds = {"blip": "BlipForConditionalGeneration", "blip-2": "Blip2ForConditionalGeneration"}
        config = self.load(kinds, "take a BLIP or BLIP-2 that writes captions, or another captioner")
        self._second = config["model_type"] == "blip-2"
        with explained(settings.model):
            from studio.libraries import transformers

            kind = transformers.Blip2Processor if self._second else transformers.BlipProcessor
            self.processor = kind.from_pretrained(folder, local_files_only=True)
            self.processor.tokenizer.padding_side = "left"  # of prompts; they are equally long
            if self._second and self.processor.num_query_tokens is None:  # older copies don't say
                self.processor.num_query_tokens = self.model.config.num_query_tokens

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """A line for each image, in lower case as these models write."""
        if not images:
            return []
        prompt = one_line(self.settings.prompt)
        texts = {"text": [prompt] * len(images), "padding": True} if prompt else {}
        inputs = self.processor(images=list(images), return_tensors="pt", **texts)
        ids = self.generate(inputs, max_new_tokens=self.settings.max_tokens, num_beams=self.settings.beams)
        if self._second and "input_ids" in inputs and ids.shape[1] > inputs["input_ids"].shape[1]:
            ids = ids[:, inputs["input_ids"].shape[1] :]
        lines = [one_line(text) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]
        return [_after(line, prompt) for line in lines]


def _after(line: str, prompt: str) -> str:
    """The line without the prompt in front, which BLIP repeats (and its tokenizer has put in lower case)."""
    squeezed = "".join(prompt.lower().split())
    at = 0
    while squeezed and at < len(line):
        if not line[at].isspace():
            if line[at].lower() != squeezed[0]:
                return line
            squeezed = squeezed[1:]
        at += 1
    return line[at:].strip() if not squeezed else line
