"""The VAE: AutoencoderTiny, the TAESD architecture, f8, 16 latent channels, 32 wide.

No GroupNorm anywhere, which is what lets so small a VAE keep flat colour. Trained on random crops with an L1 loss; the
latents are held near zero mean and unit spread per channel, because the pipeline only knows one factor. Half of the
glyphs have dark contours drawn round them and a quarter of the images are made of blocks: the base's art has next to
none, and what the VAE can't carry no adapter can bring back.
"""

from pathlib import Path

import art
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from resuming import Loop, precision

CHANNELS, LATENTS = 32, 16
LATENT_GAIN = 3.0
RATE = 1.5e-3
EDGE = 0.25  # weight of the error on edges


def build(latents: int = LATENTS) -> AutoencoderTiny:
    vae = AutoencoderTiny(
        latent_channels=latents,
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


@torch.no_grad()
def widen(vae: AutoencoderTiny, other: AutoencoderTiny) -> None:
    """Begin from `other`, of the same width, with fewer latent channels: its own come first, the rest are new."""
    theirs = other.state_dict()
    for name, value in vae.state_dict().items():
        rows, columns = theirs[name].shape[0], theirs[name].shape[1] if value.dim() > 1 else None
        if value.shape == theirs[name].shape:
            value.copy_(theirs[name])
        elif value.dim() == 1:
            value[:rows] = theirs[name]
        else:
            if value.shape[1] != columns:
                value.zero_()  # the decoder's, which hears nothing from the new channels
            value[:rows, :columns] = theirs[name]


def crops(glyphs: torch.Tensor, size: int, side: int, draw: torch.Generator) -> torch.Tensor:
    """(size, 3, side, side) crops, -1..1, of composed images; half have contours, a quarter is pixel art."""
    picked = glyphs[torch.randint(len(glyphs), (size,), generator=draw)]
    picked = torch.cat([art.contours(picked[: size // 2], draw), picked[size // 2 :]])
    palette = art.colours_tensor()
    backgrounds = palette[torch.randint(len(palette), (size,), generator=draw)]
    odd = torch.rand(size, generator=draw) < 0.3  # other colours too: people draw on anything
    backgrounds[odd] = torch.rand(int(odd.sum()), 3, generator=draw) * 255
    whole = art.compose(picked, backgrounds, scale=0.6 + 0.5 * torch.rand(size, generator=draw))
    top, left = (torch.randint(art.SIZE - side + 1, (2,), generator=draw) // 8 * 8).tolist()
    whole = whole[:, :, top : top + side, left : left + side]
    return torch.cat(
        [blocks(whole[: size // 8], draw), whole[size // 8 : -(size // 8)], blocks(whole[-(size // 8) :], draw)]
    )


def blocks(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """The images as pixel art, in squares of 4, 8 or 16 pixels of one colour, their mean."""
    side = int(torch.tensor([4, 8, 8, 16])[torch.randint(4, (1,), generator=draw)])
    return F.avg_pool2d(images, side).repeat_interleave(side, 2).repeat_interleave(side, 3)


def train(
    glyphs: torch.Tensor, out: Path, work: Path, minutes: float, decoder_only: bool = False, batch: int = 16,
    side: int = 48, device: str = "cpu", begin: Path | None = None,
) -> AutoencoderTiny:  # fmt: skip
    """Train and save to `out`; goes on from its checkpoint in `work`. decoder_only keeps the latents as they are.

    begin: a starter whose VAE it begins from.
    """
    torch.manual_seed(0)
    vae = AutoencoderTiny.from_pretrained(out) if decoder_only else build()
    if begin and not decoder_only:
        widen(vae, AutoencoderTiny.from_pretrained(begin / "vae", torch_dtype=torch.float32))
    vae = vae.to(device, memory_format=torch.channels_last).train()
    vae.encoder.requires_grad_(not decoder_only)
    parameters = [p for p in vae.parameters() if p.requires_grad]
    peak = RATE / 3 if decoder_only else RATE / 2 if begin else RATE
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    name = "decoder" if decoder_only else "vae"
    loop = Loop(name, work / f"{name}.pt", minutes, model=vae, optimizer=optimizer)
    for draw in loop:
        x = crops(glyphs, batch, side, draw).to(device, memory_format=torch.channels_last)
        with precision(device):
            with torch.set_grad_enabled(not decoder_only):
                z = vae.encoder(x)
            noise = torch.randn(z.shape, generator=draw).to(device)
            y = vae.decoder(z + 0.05 * noise)  # the U-Net's latents will not be perfect either
        y, z = y.float(), z.float()
        error = F.l1_loss(y, x)
        # Edges: the same error on neighbour differences keeps outlines crisp.
        edges = sum(F.l1_loss(y.diff(dim=d), x.diff(dim=d)) for d in (2, 3))
        spread = (z.mean((0, 2, 3)) ** 2).mean() + ((z.std((0, 2, 3)) - 1) ** 2).mean()
        loss = error + EDGE * edges + (0.0 if decoder_only else 0.02) * spread
        loop.learn(loss, optimizer, loop.rate(peak, hold=0.2), parameters)
        loop.note(L1=error.item(), spread=spread.item())
    vae.cpu().save_pretrained(out)
    return vae.eval()


@torch.no_grad()
def encode(vae: AutoencoderTiny, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """(N, 3, SIZE, SIZE) images, -1..1, to (N, LATENTS, SIZE/8, SIZE/8) float16 latents as the pipeline scales them."""
    return torch.cat([vae.encode(chunk.to(vae.device)).latents.half().cpu() for chunk in images.split(batch)])
