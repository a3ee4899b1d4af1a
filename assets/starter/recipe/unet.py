"""The denoiser: a small UNet2DConditionModel trained on cached latents and cached text states.

v-prediction (arXiv:2202.00512) with zero terminal signal-to-noise and trailing timesteps (arXiv:2305.08891), because
flat backgrounds need the last step to start from pure noise.
"""

import copy
import time
from pathlib import Path

import art
import clip
import codec
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

WIDTHS = (64, 128, 256)
NO_TEXT = 0.1  # share of pictures trained without a caption, for classifier-free guidance (arXiv:2207.12598)


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=art.SIZE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=clip.WIDTH, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


@torch.no_grad()
def encode_texts(text: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, 77, WIDTH) bfloat16 text states, padded as the pipeline pads."""
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.cat([text(input_ids=chunk).last_hidden_state.bfloat16() for chunk in ids.split(256)])


@torch.no_grad()
def cache(
    known: list[art.Concept], pictures: dict[str, torch.Tensor], vae: AutoencoderTiny, text: CLIPTextModel,
    tokenizer: CLIPTokenizer, file: Path, per_picture: int = 10,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Every latent and every caption's states, once.

    Returns latents (M, 4, 16, 16), caption (M, 3): for each latent the rows of `states` of its whole, its shorter and
    its shortest caption; states (K, 77, WIDTH) bfloat16, of which row 0 is the empty caption.
    """
    if file.exists():
        return torch.load(file, weights_only=True)
    draw = torch.Generator().manual_seed(0)
    palette, names = art.colours_tensor(), list(art.COLOURS)
    latents, rows, index = [], [], {"": 0}
    for style, glyphs in pictures.items():
        for _ in range(per_picture):
            colour = torch.randint(len(palette), (len(glyphs),), generator=draw)
            shift = 0.1 * (torch.rand(len(glyphs), 2, generator=draw) - 0.5)
            latents.append(codec.encode(vae, art.compose(glyphs, palette[colour], shift=shift)))
            for concept, c in zip(known, colour.tolist()):
                whole = art.caption(concept.name, style, names[c])
                part = art.caption(concept.name, None, names[c])
                short = art.caption(concept.name, style)
                rows.append([index.setdefault(t, len(index)) for t in (whole, part, short)])
        print(f"cached {style}: {len(rows)} latents, {len(index)} captions", flush=True)
    out = {
        "latents": torch.cat(latents),
        "caption": torch.tensor(rows),
        "states": encode_texts(text, tokenizer, list(index)),
    }
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


def rate_at(step: int, steps: int, peak: float) -> float:
    """Warm up over 200 steps, hold, and fall to zero over the last fifth (so a run can be extended from its hold)."""
    return peak * min(1, step / 200, max(0.02, (steps - step) / (steps * 0.2)))


def train(data: dict[str, torch.Tensor], out: Path, work: Path, steps: int, batch: int = 24, peak: float = 5e-4):
    """Train to `steps`, resuming from work/unet.pt, and save the averaged UNet to out/unet."""
    torch.manual_seed(0)
    model = build().to(memory_format=torch.channels_last)
    model.set_attn_processor(AttnProcessor())  # plain bmm: the fused bf16 attention is slower backwards on a CPU
    average = Average(model, 0.9985)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    noise_schedule, first, mean = scheduler(), 1, 0.0
    file = work / "unet.pt"
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        average.module.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, average.count = state["step"] + 1, state["step"]
    alpha = noise_schedule.alphas_cumprod
    latents, caption, states = data["latents"], data["caption"], data["states"]
    began = time.time()
    for step in range(first, steps + 1):
        draw = torch.Generator().manual_seed(step)  # every step draws its own: resuming needs no sampler state
        pick = torch.randint(len(latents), (batch,), generator=draw)
        which = torch.multinomial(torch.tensor([0.7, 0.15, 0.15]), batch, replacement=True, generator=draw)
        rows = caption[pick, which]
        rows[torch.rand(batch, generator=draw) < NO_TEXT] = 0
        x, noise = latents[pick], torch.randn((batch, *latents.shape[1:]), generator=draw)
        t = ((torch.arange(batch) + torch.rand(batch, generator=draw)) * (1000 / batch)).long()  # stratified
        a, s = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, peak)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            noisy = (a * x + s * noise).contiguous(memory_format=torch.channels_last)
            v = model(noisy, t, states[rows]).sample
        loss = (v.float() - (a * noise - s * x)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model)
        mean = loss.item() if step == first else 0.99 * mean + 0.01 * loss.item()
        if step % 100 == 0 or step == steps:
            print(
                f"unet {step}/{steps} loss {mean:.4f} {(time.time() - began) / (step - first + 1):.3f} s/step",
                flush=True,
            )
        if step % 500 == 0 or step == steps:
            state = {
                "model": model.state_dict(), "average": average.module.state_dict(),
                "optimizer": optimizer.state_dict(), "step": step,
            }  # fmt: skip
            torch.save(state, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").rename(file)
            average.module.save_pretrained(out / "unet")
