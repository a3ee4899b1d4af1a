"""CLIP, small: a text encoder and an image encoder that agree on what an image shows (arXiv:2103.00020).

The text encoder becomes Stable Diffusion's own. There is no text projection: the pooled text state is the text's
embedding, and the image encoder projects into the same space, so that neither half needs a third file.
"""

import random
from pathlib import Path

import art
import captions
import torch
import torch.nn.functional as F
from resuming import Loop, precision, warm
from safetensors.torch import load_file
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)  # fmt: skip

WIDTH = 192  # of the text states, and of the shared space
IMAGE_SIDE = 64  # pixels that the image encoder sees
LOGIT_SCALE = 20.0


def build(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPVisionModelWithProjection]:
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH * 4, num_hidden_layers=4,
            num_attention_heads=3, max_position_embeddings=77, projection_dim=WIDTH, hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    image = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH, intermediate_size=WIDTH * 4, num_hidden_layers=5, num_attention_heads=3,
            image_size=IMAGE_SIDE, patch_size=8, projection_dim=WIDTH, hidden_act="quick_gelu",
        )
    )  # fmt: skip
    return text, image


def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIDE}, crop_size=IMAGE_SIDE, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def _augment(x: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Change what a name does not depend on: hue, contrast, greyness, polarity, blur. x: (B, 3, s, s), -1..1."""
    b = len(x)
    chance = torch.rand(b, 4, generator=draw)
    grey = x.mean(1, keepdim=True).expand_as(x)
    x = torch.where((chance[:, 0] < 0.15)[:, None, None, None], grey, x)
    high = torch.sigmoid((grey - grey.mean((1, 2, 3), keepdim=True)) * 12) * 2 - 1  # towards two tones
    x = torch.where((chance[:, 1] < 0.1)[:, None, None, None], high, x)
    gain = 0.75 + 0.5 * torch.rand(b, 3, 1, 1, generator=draw)
    lift = 0.3 * (torch.rand(b, 1, 1, 1, generator=draw) - 0.5)
    x = x * gain + lift
    soft = F.avg_pool2d(x, 3, 1, 1)
    return torch.where((chance[:, 2] < 0.2)[:, None, None, None], soft, x).clamp(-1, 1)


def train(
    known: list[art.Concept], images: dict[str, torch.Tensor], others: list[str], tokenizer: CLIPTokenizer, out: Path,
    work: Path, minutes: float, batch: int = 96, peak: float = 1e-3, device: str = "cpu", begin: Path | None = None,
) -> None:  # fmt: skip
    """Train on dressed captions (captions.py); saves out/text_encoder, out/image_encoder and out/feature_extractor.

    images: {style: (N, 4, SIZE, SIZE) uint8}. others: words outside the vocabulary. begin: a starter to begin from.
    """
    torch.manual_seed(0)
    text, image = build(tokenizer)
    if begin:
        warm(text, load_file(begin / "text_encoder" / "model.safetensors"))
        warm(image, load_file(begin / "image_encoder" / "model.safetensors"))
    text, image = text.to(device), image.to(device)
    small = {s: F.interpolate(g.float(), size=(96, 96), mode="area").round().byte() for s, g in images.items()}
    styles, palette, colours = list(small), art.colours_tensor(), list(art.COLOURS)
    synonyms, words = captions.vocabulary(known, others)
    parameters = [*text.parameters(), *image.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    loop = Loop("clip", work / "clip.pt", minutes, text=text, image=image, optimizer=optimizer)
    for draw in loop:
        pick = torch.randperm(len(known), generator=draw)[:batch].tolist()  # no name twice: no false negatives
        style = [styles[i] for i in torch.randint(len(styles), (len(pick),), generator=draw).tolist()]
        colour = torch.randint(len(palette), (len(pick),), generator=draw)
        glyphs = torch.stack([small[s][i] for s, i in zip(style, pick)])
        flip = torch.rand(len(pick), generator=draw) < 0.5
        glyphs[flip] = glyphs[flip].flip(-1)
        drawn = torch.rand(len(pick), generator=draw) < 0.2
        if drawn.any():
            glyphs[drawn] = art.contours(glyphs[drawn], draw)
        x = art.compose(
            glyphs, palette[colour], IMAGE_SIDE, 0.65 + 0.4 * torch.rand(len(pick), generator=draw),
            0.3 * (torch.rand(len(pick), 2, generator=draw) - 0.5),
        )  # fmt: skip
        chance = random.Random(loop.step)
        meanings = [
            captions.Meaning(
                known[i], s if chance.random() < 0.6 else None, colours[c] if chance.random() < 0.65 else None
            )
            for i, s, c in zip(pick, style, colour.tolist())
        ]
        said = [captions.draw_caption(meaning, chance, synonyms, words) for meaning in meanings]
        tokens = tokenizer(said, padding=True, truncation=True, return_tensors="pt")  # causal: padding is inert
        with precision(device):
            seen = image(pixel_values=_augment(x, draw).to(device)).image_embeds
            told = text(input_ids=tokens.input_ids.to(device)).pooler_output
        logits = LOGIT_SCALE * F.normalize(seen.float(), dim=-1) @ F.normalize(told.float(), dim=-1).T
        target = torch.arange(len(pick), device=device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loop.learn(loss, optimizer, loop.rate(peak), parameters)
        loop.note(loss=loss.item(), right=(logits.argmax(1) == target).float().mean().item())
    text.cpu().save_pretrained(out / "text_encoder")
    image.cpu().save_pretrained(out / "image_encoder")
    image_processor().save_pretrained(out / "feature_extractor")


@torch.no_grad()
def embed_images(image: CLIPVisionModelWithProjection, images: torch.Tensor) -> torch.Tensor:
    """(N, 3, side, side), -1..1, to (N, WIDTH) unit vectors."""
    small = F.interpolate(images, size=(IMAGE_SIDE, IMAGE_SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
    return F.normalize(torch.cat([image(pixel_values=c).image_embeds for c in small.split(128)]).float(), dim=-1)


@torch.no_grad()
def embed_texts(text: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Unit vectors (N, WIDTH) of the pooled text states."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return F.normalize(text(input_ids=tokens.input_ids).pooler_output.float(), dim=-1)


def rank_of_names(seen: torch.Tensor, said: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Where the true name stands (0 = first) among all names, for each image."""
    scores = seen @ said.T
    return (scores > scores.gather(1, truth[:, None])).sum(1)
