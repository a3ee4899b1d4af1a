"""The denoiser: a small UNet2DConditionModel trained on cached latents and dressed captions.

v-prediction (arXiv:2202.00512) with zero terminal signal-to-noise and trailing timesteps (arXiv:2305.08891), because
flat backgrounds need the last step to start from pure noise.
"""

import copy
import random
from pathlib import Path

import art
import autoencoder
import captions
import clip
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from resuming import Loop, precision, warm
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

Tensors = dict[str, torch.Tensor]

WIDTHS = (64, 128, 256)
NO_TEXT = 0.1  # share of images trained without a caption, for classifier-free guidance (arXiv:2207.12598)


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip


def build(channels: int = autoencoder.LATENTS, widths: tuple[int, ...] = WIDTHS) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=art.SIZE // 8, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=clip.WIDTH, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


@torch.no_grad()
def encode_texts(text: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, 77, WIDTH) text states, padded as the pipeline pads."""
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return text(input_ids=ids.to(text.device)).last_hidden_state


@torch.no_grad()
def cache(images: dict[str, torch.Tensor], vae: AutoencoderTiny, file: Path, variants: int = 12) -> Tensors:
    """Every latent, once: latents (M, C, 16, 16) float16; concept, style and colour (M,), indices of each."""
    if file.exists():
        return torch.load(file, weights_only=True)
    draw, palette = torch.Generator().manual_seed(0), art.colours_tensor()
    latents, rows = [], []
    for number, (style, glyphs) in enumerate(images.items()):
        for _ in range(variants):
            colour = torch.randint(len(palette), (len(glyphs),), generator=draw)
            shift = 0.1 * (torch.rand(len(glyphs), 2, generator=draw) - 0.5)
            for part in torch.arange(len(glyphs)).split(256):
                x = art.compose(glyphs[part], palette[colour[part]], shift=shift[part])
                latents.append(autoencoder.encode(vae, x))
            rows.append(torch.stack([torch.arange(len(glyphs)), torch.full((len(glyphs),), number), colour], 1))
        print(f"cached {style}", flush=True)
    concept, style, colour = torch.cat(rows).unbind(1)
    out = {"latents": torch.cat(latents), "concept": concept, "style": style, "colour": colour}
    torch.save(out, file)
    return out


class Average:
    """Exponential moving average of parameters, with the usual warm-up of its decay."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.module, self.decay, self.count = copy.deepcopy(module).eval(), decay, 0

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - decay)

    def state_dict(self) -> dict:
        return {"module": self.module.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.module.load_state_dict(state["module"])
        self.count = state["count"]


def train(
    data: Tensors, known: list[art.Concept], others: list[str], text: CLIPTextModel, tokenizer: CLIPTokenizer,
    out: Path, work: Path, minutes: float, batch: int = 24, peak: float = 5e-4, device: str = "cpu",
    widths: tuple[int, ...] = WIDTHS, begin: Path | None = None,
) -> None:  # fmt: skip
    """Train on dressed captions and save the averaged U-Net to out/unet; goes on from work/unet.pt.

    begin: a starter whose U-Net it begins from, as far as the shapes are the same.
    """
    torch.manual_seed(0)
    latents = data["latents"].to(device)
    model = build(latents.shape[1], widths)
    if begin:
        warm(model, load_file(begin / "unet" / "diffusion_pytorch_model.safetensors"))
    model, text = model.to(device, memory_format=torch.channels_last), text.eval().to(device)
    if device == "cpu":
        model.set_attn_processor(AttnProcessor())  # plain bmm: the fused attention is slower backwards on a CPU
    average, parameters = Average(model, 0.9985), list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    loop = Loop("unet", work / "unet.pt", minutes, model=model, average=average, optimizer=optimizer)
    alpha = scheduler().alphas_cumprod.to(device)
    synonyms, words = captions.vocabulary(known, others)
    for draw in loop:
        pick = torch.randint(len(latents), (batch,), generator=draw)
        said = _captions(data, pick, known, synonyms, words, random.Random(loop.step))
        x = latents[pick.to(device)].float()
        noise = torch.randn(x.shape, generator=draw).to(device)
        t = ((torch.arange(batch) + torch.rand(batch, generator=draw)) * (1000 / batch)).long().to(device)  # stratified
        a, s = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
        with precision(device):
            states = encode_texts(text, tokenizer, said)
            noisy = (a * x + s * noise).contiguous(memory_format=torch.channels_last)
            v = model(noisy, t, states).sample
        loss = (v.float() - (a * noise - s * x)).square().mean()
        loop.learn(loss, optimizer, loop.rate(peak, warm_up=200, hold=0.75), parameters)
        average.update(model)
        loop.note(loss=loss.item())
        if loop.step % 1000 == 0:
            average.module.save_pretrained(out / "unet")
    average.module.cpu().save_pretrained(out / "unet")


def _captions(data: Tensors, pick: torch.Tensor, known, synonyms, words, chance: random.Random) -> list[str]:
    """A caption of each latent: mostly whole, sometimes without style or background, sometimes none at all."""
    styles, colours, said = list(art.BASE_STYLES), list(art.COLOURS), []
    for concept, style, colour in zip(*(data[key][pick].tolist() for key in ("concept", "style", "colour"))):
        if chance.random() < NO_TEXT:
            said.append("")
            continue
        way = chance.random()
        meaning = captions.Meaning(
            known[concept], styles[style] if way < 0.8 else None, colours[colour] if way < 0.65 or way > 0.8 else None
        )
        said.append(captions.draw_caption(meaning, chance, synonyms, words))
    return said
