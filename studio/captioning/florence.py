"""Florence-2 (arXiv:2311.06242): captions in three lengths from one small model.

Its own code in the first checkpoints (microsoft/Florence-2-…) is not run; the converted ones are under
florence-community/ on huggingface.co.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import Field

from studio.captioning.generators import MODEL_WORDS, Generator, GeneratorSettings, explained
from studio.datasets.captions import one_line

TASKS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "very detailed": "<MORE_DETAILED_CAPTION>"}


class FlorenceSettings(GeneratorSettings):
    model: str = Field("florence-community/Florence-2-large", min_length=1, max_length=500, description=MODEL_WORDS)
    detail: Literal["short", "detailed", "very detailed"] = Field(
        "detailed", description="A sentence, a few, or a paragraph"
    )
    max_tokens: int = Field(256, ge=4, le=1024, description="Longest caption, in tokens; a word is about 1.3 of them")
    beams: int = Field(3, ge=1, le=10, description="Sentences followed at once; more is slower and a little better")


class FlorenceCaptioner(Generator):
    settings: FlorenceSettings
    side = 1024  # it looks at 768

    def __init__(self, folder: Path, settings: FlorenceSettings):
        super().__init__(folder, settings)
        self.load(
            {"florence2": "Florence2ForConditionalGeneration"},
            "take one in transformers' own form, like those of florence-community, or another captioner",
        )
        with explained(settings.model):
            from studio.libraries import transformers

            self.processor = transformers.Florence2Processor.from_pretrained(folder, local_files_only=True)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        if not images:
            return []
        task = TASKS[self.settings.detail]
        inputs = self.processor(images=list(images), text=[task] * len(images), return_tensors="pt", padding=True)
        ids = self.generate(
            inputs, max_new_tokens=self.settings.max_tokens, num_beams=self.settings.beams, do_sample=False
        )
        lines = self.processor.batch_decode(ids, skip_special_tokens=False)
        pad = self.processor.tokenizer.pad_token or "<pad>"
        found = [
            self.processor.post_process_generation(text=line.replace(pad, ""), task=task, image_size=image.size)[task]
            for line, image in zip(lines, images, strict=True)
        ]
        return [one_line(text) for text in found]
