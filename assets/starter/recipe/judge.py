"""Two classifiers of names by shape (studio.captioning.shapes), neither of which has a part in the base's images.

The judge says what an image shows. The base's own CLIP can't: what was trained with it pleases it. The judge is trained
on renders alone, in seven art styles of which the base knows three, with rotations, noise, blocks and outlines that the
base's training never had. For each name one style is held out, and its accuracy there is what its word is worth.

The namer is the built-in captioner's. It is trained on four of the styles, so that the other four measure it. OpenMoji,
whose licence asks for its own name on what is made of it, only measures.
"""

from collections.abc import Collection
from pathlib import Path

import art
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from studio.captioning.shapes import IMAGE_SIZE, Shapes, features

STYLES = {
    "noto": "noto", "flat": "fluent-emoji-flat", "twemoji": "twemoji", "emojione": "emojione",
    "shaded": "fluent-emoji", "silhouette": "fluent-emoji-high-contrast", "openmoji": "openmoji",
    "streamline": "streamline-emojis",
}  # fmt: skip
JUDGES = tuple(style for style in STYLES if style != "openmoji")
NAMERS = ("noto", "flat", "twemoji", "emojione")  # what the namer is trained on


def ranks(judge: Shapes, images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Where the true name stands (0 = first) for each image."""
    with torch.no_grad():
        logits = torch.cat([judge(chunk) for chunk in images.split(64)])
    return (logits > logits.gather(1, truth[:, None])).sum(1)


def renders(known: list[art.Concept], modules: Path, cache: Path, styles: Collection[str] = tuple(STYLES)):
    """glyphs (N, 4, SIZE, SIZE) uint8, their names (N,) and styles (N,), as indices."""
    glyphs, names, numbers = [], [], []
    for number, (style, package) in enumerate(STYLES.items()):
        if style not in styles:
            continue
        icons = art.Icons(modules, package)
        have = [i for i, concept in enumerate(known) if concept.slug in icons]
        glyphs.append(art.render_styles(modules, [known[i].slug for i in have], {style: package}, cache)[style])
        names += have
        numbers += [number] * len(have)
    return torch.cat(glyphs), torch.tensor(names), torch.tensor(numbers)


def held_out(truth: torch.Tensor) -> torch.Tensor:
    """(N,) True for one render of each name."""
    draw, held = torch.Generator().manual_seed(11), torch.zeros(len(truth), dtype=torch.bool)
    for name in truth.unique().tolist():
        rows = (truth == name).nonzero()[:, 0]
        held[rows[torch.randint(len(rows), (1,), generator=draw)]] = True
    return held


def augment(glyphs: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """(B, 4, h, w) uint8 glyphs to (B, 3, IMAGE_SIZE, IMAGE_SIZE) images, -1..1, in every style of an adapter."""
    b = len(glyphs)

    def chance(share: float) -> torch.Tensor:
        return (torch.rand(b, generator=draw) < share)[:, None, None, None]

    drawn = torch.rand(b, generator=draw) < 0.25
    glyphs = glyphs.clone()
    if drawn.any():
        glyphs[drawn] = line_art(glyphs[drawn], draw)
    rgba = glyphs.float() / 255
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    rgba = F.interpolate(rgba, size=(IMAGE_SIZE, IMAGE_SIZE), mode="area")
    grid = F.affine_grid(_turned(b, draw), [b, 4, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    rgba = F.grid_sample(rgba, grid, align_corners=False)
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    colour = torch.where(chance(0.15), colour.mean(1, keepdim=True).expand(-1, 3, -1, -1), colour)
    colour = torch.where(chance(0.12), colour * 0.15, colour)  # a dark silhouette with faint inside
    mix = torch.eye(3) + 0.25 * torch.randn(b, 3, 3, generator=draw)
    colour = torch.where(chance(0.5), torch.einsum("bij,bjhw->bihw", mix, colour), colour)
    palette = art.colours_tensor()
    background = palette[torch.randint(len(palette), (b,), generator=draw)] / 255
    odd = torch.rand(b, generator=draw) < 0.3
    background[odd] = torch.rand(int(odd.sum()), 3, generator=draw)
    x = colour + (1 - alpha) * background[:, :, None, None]
    x = torch.where(chance(0.15), F.interpolate(F.avg_pool2d(x, 4), scale_factor=4.0), x)
    x = torch.where(chance(0.35), F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1), x)
    x = x + 0.06 * torch.rand(b, 1, 1, 1, generator=draw) * torch.randn(x.shape, generator=draw)
    return x.clamp(0, 1) * 2 - 1


def line_art(glyphs: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Lines of each glyph's own width round it and along its inner edges: filled, pale, on white, or the lines alone.

    glyphs: (B, 4, h, w) uint8, straight alpha. Returns the same kind.
    """
    b, rgba = len(glyphs), glyphs.float() / 255
    colour, alpha = rgba[:, :3], rgba[:, 3:]

    def chance(share: float) -> torch.Tensor:
        return torch.rand(b, 1, 1, 1, generator=draw) < share

    widths, rim = torch.randint(1, 4, (b,), generator=draw), torch.zeros_like(alpha)  # pixels beside the edge
    for width in (1, 2, 3):
        rim[widths == width] = art.steps(alpha[widths == width], width)
    inner = ((art.steps(colour * alpha).amax(1, keepdim=True) - 0.12) * 8).clamp(0, 1) * alpha
    inner = torch.where(chance(0.5), F.max_pool2d(inner, 3, 1, 1), inner)
    ink = torch.maximum(rim.clamp(0, 1), inner * chance(0.8))
    darkness = torch.where(chance(0.85), 0.12, 1.0)
    pen = darkness * torch.rand(b, 3, 1, 1, generator=draw)
    body = torch.where(chance(0.2), (colour + torch.rand(b, 3, 1, 1, generator=draw)) / 2, colour)
    body = torch.where(chance(0.15), torch.ones_like(colour), body)
    alone = chance(0.25)
    body = torch.where(alone, pen, body * (1 - ink) + pen * ink)
    out = torch.cat([body, torch.where(alone, ink, torch.maximum(alpha, ink))], 1)
    return (out * 255).round().clamp(0, 255).byte()


def _turned(b: int, draw: torch.Generator) -> torch.Tensor:
    """(b, 2, 3) small rotations, scales, shifts, half of them mirrored."""
    angle = 0.35 * (torch.rand(b, generator=draw) - 0.5)
    size = 1 / (0.6 + 0.5 * torch.rand(b, generator=draw))
    mirror = torch.where(torch.rand(b, generator=draw) < 0.5, -1.0, 1.0)
    across = torch.stack([angle.cos() * size * mirror, -angle.sin() * size], 1)
    down = torch.stack([angle.sin() * size * mirror, angle.cos() * size], 1)
    shift = 0.4 * (torch.rand(b, 2, 1, generator=draw) - 0.5)
    return torch.cat([torch.stack([across, down], 1), shift], 2)


def looks(glyphs: torch.Tensor, rounds: int) -> torch.Tensor:
    """(rounds, N, FEATURES) float16, each glyph augmented `rounds` times."""
    draw = torch.Generator().manual_seed(0)
    return torch.stack([
        torch.cat([features(augment(chunk, draw)).half() for chunk in glyphs.split(128)]) for _ in range(rounds)
    ])  # fmt: skip


def outliers_of(known: list[art.Concept], modules: Path, count: int = 600) -> torch.Tensor:
    """(M, FEATURES) of what has no name here: other glyphs of the namer's styles, gradients, noise."""
    draw, palette = torch.Generator().manual_seed(5), art.colours_tensor() / 127.5 - 1
    glyphs = torch.cat([foreign(known, modules, STYLES[style], count, draw) for style in NAMERS])
    seen = [features(augment(chunk, draw)) for chunk in glyphs.split(128)]
    x, y = torch.meshgrid(torch.linspace(-1, 1, IMAGE_SIZE), torch.linspace(-1, 1, IMAGE_SIZE), indexing="ij")
    angle = 2 * torch.pi * torch.rand(count, 1, 1, generator=draw)
    share = torch.where(
        torch.rand(count, 1, 1, generator=draw) < 0.6,
        (angle.cos() * x + angle.sin() * y) / 2 + 0.5,
        (x.square() + y.square()).sqrt() * (0.7 + 0.6 * torch.rand(count, 1, 1, generator=draw)),
    ).clamp(0, 1)[:, None]
    pair = palette[torch.randint(len(palette), (2, count), generator=draw)][..., None, None]
    seen.append(features(pair[0] * share + pair[1] * (1 - share)))
    for side in (4, 8, 16, IMAGE_SIZE):
        noise = torch.randn(count // 4, 3, side, side, generator=draw)
        seen.append(features(F.interpolate(noise, size=(IMAGE_SIZE,) * 2, mode="bicubic").clamp(-1, 1)))
    return torch.cat(seen)


def foreign(
    known: list[art.Concept], modules: Path, package: str, count: int, draw: torch.Generator
) -> torch.Tensor:  # fmt: skip
    """(up to `count`, 4, SIZE, SIZE) uint8 glyphs of things that share no word with the vocabulary."""
    icons = art.Icons(modules, package)
    taken = {piece for concept in known for piece in concept.slug.split("-")} | {"skin", "tone", "flag"}
    others = [slug for slug in sorted(icons.icons) if not set(slug.split("-")) & taken]
    pick = torch.randperm(len(others), generator=draw)[:count].tolist()
    return torch.stack([torch.from_numpy(icons.render(others[i]).copy()) for i in pick])


def train(
    seen: torch.Tensor, truth: torch.Tensor, names: int, steps: int = 2500, batch: int = 256, peak: float = 1.5e-3,
    outliers: torch.Tensor | None = None,
) -> Shapes:  # fmt: skip
    """seen: (rounds, N, FEATURES) of renders whose names are `truth` (N,). Minutes on one core.

    outliers: (M, FEATURES) of things without a name, for which every name is to be as likely as the others ("outlier
    exposure", arXiv:1812.04606).
    """
    torch.manual_seed(0)
    draw, model = torch.Generator().manual_seed(0), Shapes(names).train()
    rows, names_of = seen.flatten(0, 1), truth.repeat(len(seen))
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
    for _ in range(steps):
        pick = torch.randint(len(rows), (batch,), generator=draw)
        loss = F.cross_entropy(model.layers(rows[pick].float()), names_of[pick], label_smoothing=0.1)
        if outliers is not None:
            pick = torch.randint(len(outliers), (batch // 4,), generator=draw)
            loss = loss - 0.5 * model.layers(outliers[pick].float()).log_softmax(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return model.eval()


def accuracy(model: Shapes, glyphs: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """top 1 and top 5 on plainly composed renders."""
    palette = art.colours_tensor()
    place = ranks(model, art.compose(glyphs, palette[torch.arange(len(glyphs)) % len(palette)]), truth)
    return {"top1": (place < 1).float().mean().item(), "top5": (place < 5).float().mean().item()}


def save(model: Shapes, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half() for key, value in model.state_dict().items()}, file)
