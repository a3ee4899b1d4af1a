"""Put the trained parts together as a diffusers folder, in fp16."""

import json
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
    # fp16 is how the files are stored; without a dtype asked for, each part must load as fp32, as the UNet does.
    for part in ("text_encoder", "image_encoder"):
        _edit(out / part / "config.json", dtype="float32")
    # diffusers notes where the parts lay on this machine, and writes block_out_channels to complain of it when reading.
    _edit(out / "unet" / "config.json", _name_or_path=None)
    _edit(out / "vae" / "config.json", _name_or_path=None, block_out_channels=None)


def write_text_encoder(text: CLIPTextModel, out: Path) -> None:
    """Put another text encoder of the same shape into a starter."""
    text.half().save_pretrained(out / "text_encoder")
    _edit(out / "text_encoder" / "config.json", dtype="float32")


def _edit(file: Path, **changes) -> None:
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}, indent=2) + "\n")
