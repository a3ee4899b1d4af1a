"""A vision-language model that is asked in a chat: the Qwen-VL family, LLaVA, JoyCaption and others of their kind."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from studio import devices
from studio.captioning.generators import MODEL_WORDS, Generator, GeneratorSettings, explained
from studio.captioning.models import read_config
from studio.datasets.captions import one_line
from studio.errors import BaseModelError

_THOUGHT = re.compile(r".*</think>", re.DOTALL)
_ENDS = re.compile(r"(?s)(.*[.!?][\"'”’)]?)\s")


class ChatSettings(GeneratorSettings):
    model: str = Field("Qwen/Qwen3-VL-4B-Instruct", min_length=1, max_length=500, description=MODEL_WORDS)
    batch_size: int = Field(2, ge=1, le=64, description="Images at once; fewer are taken when memory runs out")
    prompt: str = Field(
        "Describe this image in one or two plain sentences, as a caption to train an image generator with: what is "
        "shown, what it does, what surrounds it, the light. Begin with the subject. Leave out guesses and opinions.",
        min_length=1,
        max_length=4000,
        description="What it is asked about each image",
    )
    system: str = Field("", max_length=4000, description="The system prompt; empty: none")
    temperature: float = Field(0.6, ge=0, le=2, description="How freely it chooses words; 0: always the likeliest")
    top_p: float = Field(0.9, gt=0, le=1, description="Only the likeliest words with this share together")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="The same seed writes the same captions")
    max_tokens: int = Field(256, ge=4, le=1024, description="Longest caption, in tokens; a word is about 1.3 of them")
    max_side: int = Field(1024, ge=64, le=4096, description="Larger images are shrunk to this before it sees them")


class JoySettings(ChatSettings):
    model: str = Field(
        "fancyfeast/llama-joycaption-beta-one-hf-llava", min_length=1, max_length=500, description=MODEL_WORDS
    )
    prompt: str = Field(
        "Write a short descriptive caption for this image in plain words.",
        min_length=1,
        max_length=4000,
        description="What it is asked about each image",
    )
    system: str = Field(
        "You are a helpful image captioner.",
        max_length=4000,
        description="The system prompt; empty: none",
    )


class ChatCaptioner(Generator):
    """Any model that transformers loads with AutoModelForImageTextToText and that has a chat template."""

    settings: ChatSettings

    def __init__(self, folder: Path, settings: ChatSettings):
        super().__init__(folder, settings)
        self.side = settings.max_side
        kind = str(read_config(folder).get("model_type"))
        with explained(settings.model):
            from studio.libraries import transformers

            known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        self.load(
            {kind: "AutoModelForImageTextToText"} if kind in known else {},
            "take a vision-language model that transformers knows, like Qwen-VL or LLaVA",
        )
        with explained(settings.model):
            self.processor = load_processor(folder)
            self.processor.tokenizer.padding_side = "left"  # answers begin where the prompt ends
            if self.processor.tokenizer.pad_token is None:
                self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
            _complete(self.processor, self.model.config)
            self.text = self.render(settings.prompt, settings.system)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        if not images:
            return []
        inputs = self.processor(
            images=[shrunk(image, self.settings.max_side) for image in images],
            text=[self.text] * len(images),
            padding=True,
            return_tensors="pt",
            add_special_tokens=not self._begun(),
        )
        heat = self.settings.temperature
        how = {"temperature": heat, "top_p": self.settings.top_p} if heat else {"temperature": None, "top_p": None}
        with devices.seeded(self.settings.seed):
            ids = self.generate(inputs, max_new_tokens=self.settings.max_tokens, do_sample=heat > 0, top_k=None, **how)
        new = ids[:, inputs["input_ids"].shape[1] :]
        lines = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        ended = {self.processor.tokenizer.pad_token_id, *_ids(self.model.generation_config.eos_token_id)}
        return [
            tidy(line, cut=len(row) >= self.settings.max_tokens and row[-1] not in ended)
            for line, row in zip(lines, new.tolist(), strict=True)
        ]

    def render(self, prompt: str, system: str = "") -> str:
        """The chat as the model's template writes it, with one place for the image.

        Most templates take a list of parts. Those of JoyCaption and of older LLaVA take plain text, and some of them
        set the image's place themselves. Which it is shows in what they write. Raises BaseModelError.
        """
        token = getattr(self.processor, "image_token", None) or "<image>"
        template = self.processor if self.processor.chat_template else self.processor.tokenizer
        for parts, before in ((True, ""), (False, ""), (False, f"{token}\n")):

            def as_content(text: str, parts: bool = parts) -> str | list[dict]:
                return [{"type": "text", "text": text}] if parts else text

            asked = [{"type": "image"}, *as_content(prompt)] if parts else before + prompt
            chat = [{"role": "system", "content": as_content(system)}] if system else []
            try:
                chat.append({"role": "user", "content": asked})
                text = template.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            except Exception:  # a template may refuse a form in any way; one that refuses all is told below
                continue
            if text.count(token) == 1 and prompt in text and (not system or system in text) and "'type':" not in text:
                return text
        raise BaseModelError(
            f"{self.settings.model} has no chat template that takes an image"
            + (" and a system prompt: leave that empty, or take another model." if system else ": take another model.")
        )

    def _begun(self) -> bool:
        """Whether the template wrote the token that begins a text; the tokenizer would add a second one."""
        begin = self.processor.tokenizer.bos_token
        return bool(begin) and self.text.startswith(begin)


def load_processor(folder: Path):
    """The model's processor. Without torchvision, which only its video part needs, one without that part."""
    from studio.libraries import AutoConfig, AutoProcessor, transformers

    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError:
        if importlib.util.find_spec("torchvision") is not None:
            raise
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind: Any = transformers.models.auto.processing_auto.PROCESSOR_MAPPING[type(config)]
    parts = classmethod(lambda cls: ["image_processor", "tokenizer"])
    still: Any = type(kind.__name__, (kind,), {"get_attributes": parts})
    return still.from_pretrained(folder, local_files_only=True)


def tidy(text: str, cut: bool = False) -> str:
    """One line without what the model thought aloud; when it was `cut` off, without its last broken sentence."""
    text = _THOUGHT.sub("", text).strip()
    if cut and (whole := _ENDS.match(text)):
        text = whole[1]
    return one_line(text)


def _complete(processor, config) -> None:
    """Old LLaVA folders don't tell the processor what the model's own settings say."""
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = config.vision_config.patch_size
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """With no side above `side` pixels."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _ids(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
