"""Put the trained parts together as a diffusers folder, in fp16."""

from pathlib import Path

import torch
import unet
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection


def load_parts(parts: Path) -> StableDiffusionPipeline:
    """The pipeline of the parts as trained (fp32)."""
    return StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(parts / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(parts / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(parts / "unet"),
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=CLIPImageProcessorPil.from_pretrained(parts / "feature_extractor"),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(parts / "image_encoder"),
        requires_safety_checker=False,
    )


def export(parts: Path, out: Path) -> None:
    load_parts(parts).to(torch.float16).save_pretrained(out)
