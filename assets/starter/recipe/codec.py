"""The picture codec (Stable Diffusion's "vae"): AutoencoderTiny, the TAESD architecture, f8, 4 latent channels.

No GroupNorm anywhere, which is what lets so small a codec keep flat colour. Trained on random crops with an L1
loss; the latents are held near zero mean and unit spread per channel, because the pipeline only knows one factor.
"""

import time
from pathlib import Path

import art
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock

CHANNELS = 32
LATENT_GAIN = 3.0
RATE = 1.5e-3
EDGE = 0.25  # weight of the error on edges


def build() -> AutoencoderTiny:
    vae = AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(CHANNELS,) * 4,
        decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(3, 3, 3, 1),
        scaling_factor=1.0,
    )
    # Without norms, the usual initialisation spends minutes at one constant colour. So it starts as something that
    # already works, "shrink the colours by 8 and grow them back" on three channels, with residual branches that start
    # at zero (as in Fixup, arXiv:1901.09321), and has only the detail left to learn.
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            torch.nn.init.zeros_(module.conv[-1].weight)
    blur = torch.tensor([1.0, 2.0, 1.0])
    for half in (vae.encoder.layers, vae.decoder.layers):
        for conv in (m for m in half if isinstance(m, torch.nn.Conv2d)):
            conv.weight.data[:3] = 0
            for c in range(3):
                conv.weight.data[c, c, 1, 1] = 1
                if conv.stride == (2, 2):
                    conv.weight.data[c, c] = blur[:, None] * blur / 16
    to_latent, from_latent = (
        vae.encoder.layers[-1],
        [m for m in vae.decoder.layers if isinstance(m, torch.nn.Conv2d)][0],
    )
    to_latent.weight.data[:3] *= LATENT_GAIN  # colours 0..1 to about zero mean and unit spread
    to_latent.bias.data[:3] = -0.5 * LATENT_GAIN
    from_latent.weight.data[:3] /= LATENT_GAIN
    from_latent.bias.data[:3] = 0.5
    return vae


def _batch(glyphs: torch.Tensor, size: int, side: int, draw: torch.Generator) -> torch.Tensor:
    """(size, 3, side, side) crops, -1..1, of composed pictures."""
    pick = torch.randint(len(glyphs), (size,), generator=draw)
    palette = art.colours_tensor()
    backgrounds = palette[torch.randint(len(palette), (size,), generator=draw)]
    odd = torch.rand(size, generator=draw) < 0.3  # other colours too: people draw on anything
    backgrounds[odd] = torch.rand(int(odd.sum()), 3, generator=draw) * 255
    scale = 0.6 + 0.5 * torch.rand(size, generator=draw)
    whole = art.compose(glyphs[pick], backgrounds, scale=scale)
    top, left = (torch.randint(art.SIZE - side + 1, (2,), generator=draw) // 8 * 8).tolist()
    return whole[:, :, top : top + side, left : left + side]


def train(glyphs: torch.Tensor, out: Path, steps: int, decoder_only: bool = False, batch: int = 16, side: int = 48):
    """Train and save to `out`, resuming from what is there. decoder_only keeps the latents as they are."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1 if decoder_only else 0)
    vae = AutoencoderTiny.from_pretrained(out) if decoder_only else build()
    vae = vae.to(memory_format=torch.channels_last).train()
    vae.encoder.requires_grad_(not decoder_only)
    parameters = [p for p in vae.parameters() if p.requires_grad]
    rate = 5e-4 if decoder_only else RATE
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=150 / steps)
    began = time.time()
    for step in range(1, steps + 1):
        x = _batch(glyphs, batch, side, draw).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.set_grad_enabled(not decoder_only):
                z = vae.encoder(x)
            noisy = z + 0.05 * torch.randn(z.shape, generator=draw)  # the UNet's latents will not be perfect either
            y = vae.decoder(noisy)
        error = F.l1_loss(y.float(), x)
        # Edges: the same error on neighbour differences keeps outlines crisp.
        edges = sum(F.l1_loss(y.float().diff(dim=d), x.diff(dim=d)) for d in (2, 3))
        z = z.float()
        spread = (z.mean((0, 2, 3)) ** 2).mean() + ((z.std((0, 2, 3)) - 1) ** 2).mean()
        loss = error + EDGE * edges + (0.0 if decoder_only else 0.02) * spread
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 200 == 0 or step == steps:
            print(
                f"codec {step}/{steps} L1 {error:.4f} edges {edges:.4f} spread {spread:.3f} {time.time() - began:.0f}s",
                flush=True,
            )
        if step % 500 == 0 or step == steps:
            vae.save_pretrained(out)


@torch.no_grad()
def encode(vae: AutoencoderTiny, pictures: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """(N, 3, SIZE, SIZE) pictures, -1..1, to (N, 4, SIZE/8, SIZE/8) float32 latents as the pipeline scales them."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.cat([vae.encode(chunk).latents.float() for chunk in pictures.split(batch)])
