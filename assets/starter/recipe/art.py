"""The art: open emoji sets from the npm registry, chosen, rendered from vector, and composed on plain colours.

Base styles teach the model; LESSON styles are kept out of it, so that a LoRA has something to learn.
"""

import io
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

PACKAGES = {  # exact versions, so that the recipe means the same tomorrow
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-high-contrast": "1.2.6",
    "@iconify-json/emojione": "1.2.3",  # for the judge and the measurements alone, like the next two
    "@iconify-json/openmoji": "1.2.29",
    "@iconify-json/streamline-emojis": "1.2.4",
    "emojibase-data": "17.0.0",
}
BASE_STYLES = {"noto": "noto", "flat": "fluent-emoji-flat", "twemoji": "twemoji"}
LESSON_STYLES = {"shaded": "fluent-emoji", "silhouette": "fluent-emoji-high-contrast"}
COLOURS = {
    "white": (255, 255, 255), "black": (28, 28, 30), "gray": (150, 152, 156), "red": (229, 72, 77),
    "orange": (245, 146, 62), "yellow": (251, 216, 75), "green": (76, 174, 91), "blue": (66, 112, 224),
    "cyan": (124, 220, 232), "purple": (141, 91, 209), "pink": (246, 166, 205), "brown": (139, 94, 60),
}  # fmt: skip
SIZE = 128  # pixels, the side of every image

# What the base that is shipped knows: few and distinct things. The labels are Unicode's own.
NAMES = """monkey face|dog face|dog|fox|cat face|cat|lion|horse|unicorn|cow face|pig face|ram|giraffe|elephant|
mouse face|rabbit face|bat|bear|koala|panda|chicken|baby chick|penguin|duck|owl|parrot|frog|turtle|snake|
spouting whale|fish|shark|octopus|crab|snail|butterfly|honeybee|spider|rose|sunflower|tulip|evergreen tree|
palm tree|cactus|four leaf clover|mushroom|grapes|watermelon|lemon|banana|pineapple|red apple|cherries|strawberry|
tomato|eggplant|carrot|broccoli|bread|croissant|cheese wedge|hamburger|french fries|pizza|cooking|sushi|ice cream|
doughnut|birthday cake|lollipop|hot beverage|wine glass|soccer ball|basketball|trophy|guitar|violin|automobile|
fire engine|bus|bicycle|locomotive|sailboat|airplane|helicopter|rocket|flying saucer|house|castle|key|scissors|
hammer|umbrella with rain drops|crown|top hat|backpack|light bulb|candle|bell|camera|alarm clock|balloon|
wrapped gift|teddy bear|Christmas tree|jack-o-lantern|snowman|star|sun|crescent moon|cloud|rainbow|fire|red heart|
ghost|skull|robot|alien|gem stone|books""".replace("\n", "").split("|")
_PARTS = ("skin", "tone")


@dataclass(frozen=True)
class Concept:
    name: str  # as people say it: "red apple"
    slug: str  # as the icon sets say it: "red-apple"
    keywords: tuple[str, ...]


def fetch(work: Path) -> Path:
    """Install the pinned icon packages under `work` with npm and return the node_modules folder."""
    folder = work / "art"
    modules = folder / "node_modules"
    if not all((modules / name).is_dir() for name in PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}))
        subprocess.run(["npm", "install", "--silent"], cwd=folder, check=True)
    return modules


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "").replace("'", "")).strip("-")


class Icons:
    """One icon set: slug to SVG text, aliases followed."""

    def __init__(self, modules: Path, package: str):
        data = json.loads((modules / "@iconify-json" / package / "icons.json").read_text())
        self.icons, self.aliases = data["icons"], data.get("aliases", {})
        self.side = data.get("width", 16), data.get("height", 16)

    def __contains__(self, slug: str) -> bool:
        return slug in self.icons or self.aliases.get(slug, {}).get("parent") in self.icons

    def render(self, slug: str) -> np.ndarray:
        """(4, SIZE, SIZE) uint8, RGB with straight alpha."""
        import resvg_py

        icon = self.icons.get(slug) or self.icons[self.aliases[slug]["parent"]]
        w, h = icon.get("width", self.side[0]), icon.get("height", self.side[1])
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {w} {h}" width="{SIZE}" height="{SIZE}">{icon["body"]}</svg>'
        )
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).transpose(2, 0, 1)


def more_names() -> list[str]:
    """The 569 names of the next base, of which NAMES are a part."""
    text = (Path(__file__).parent / "names.txt").read_text(encoding="utf-8")
    return [name for line in text.splitlines() for name in line.split("|")]


def concepts(modules: Path, names: Sequence[str] = NAMES) -> list[Concept]:
    """What the base model knows, in the order of `names`. Raises KeyError if a set lacks one."""
    rows = {row["label"]: row for row in json.loads((modules / "emojibase-data/en/data.json").read_text())}
    sets = [Icons(modules, package) for package in (*BASE_STYLES.values(), *LESSON_STYLES.values())]
    for name in names:
        if not all(_slug(name) in icons for icons in sets):
            raise KeyError(f"{name} is not in every set")
    return [Concept(name, _slug(name), tuple(rows[name].get("tags", ()))) for name in names]


def other_words(modules: Path) -> list[str]:
    """Every word that the art's labels and keywords have, known to the base or not."""
    rows = json.loads((modules / "emojibase-data/en/data.json").read_text())
    return [word for row in rows for text in (row["label"], *row.get("tags", ())) for word in text.split()]


def render_styles(modules: Path, slugs: list[str], styles: dict[str, str], cache: Path) -> dict[str, torch.Tensor]:
    """{style: (N, 4, SIZE, SIZE) uint8}, in the order of `slugs`, rendered once and kept in `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    out = {}
    for style, package in styles.items():
        file = cache / f"{style}-{len(slugs)}.npy"
        if not file.exists():
            icons = Icons(modules, package)
            np.save(file, np.stack([icons.render(slug) for slug in slugs]))
        out[style] = torch.from_numpy(np.load(file))
    return out


def everything(modules: Path, cache: Path, limit: int = 1500) -> torch.Tensor:
    """(N, 4, SIZE, SIZE) uint8 images of the base sets whatever they show: the VAE learns from all of them."""
    file = cache / f"everything-{limit}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        images = []
        for package in BASE_STYLES.values():
            icons = Icons(modules, package)
            slugs = sorted(s for s in icons.icons if not any(part in s for part in _PARTS))
            pick = np.random.default_rng(0).permutation(len(slugs))[:limit]
            images += [icons.render(slugs[i]) for i in pick]
        np.save(file, np.stack(images))
    return torch.from_numpy(np.load(file))


def compose(
    glyphs: torch.Tensor, backgrounds: torch.Tensor, side: int = SIZE, scale: float | torch.Tensor = 0.84,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Glyphs on plain colours.

    glyphs: (B, 4, h, w) uint8; backgrounds: (B, 3) 0..255; scale: share of the side that a glyph fills;
    shift: (B, 2) in units of half a side. Returns (B, 3, side, side) float32, -1..1.
    """
    b = len(glyphs)
    rgba = glyphs.float() / 255
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)  # premultiplied, so that edges blend truly
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / torch.as_tensor(scale, dtype=torch.float32)
    if shift is not None:
        theta[:, :, 2] = shift
    if side < rgba.shape[-1]:
        rgba = F.interpolate(rgba, size=(side, side), mode="area")
    grid = F.affine_grid(theta, [b, 4, side, side], align_corners=False)
    rgba = F.grid_sample(rgba, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (rgba[:, :3] + (1 - rgba[:, 3:]) * (backgrounds[:, :, None, None] / 255)) * 2 - 1


def contours(glyphs: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Outlines drawn round glyphs and along their strong inner edges, four in five nearly black.

    glyphs: (B, 4, h, w) uint8, straight alpha. Returns the same kind. The outline is the dilated minus the eroded
    alpha. It gives the VAE line art to carry, which none of the base styles has.
    """
    b = len(glyphs)
    rgba = glyphs.float() / 255
    alpha, grey = rgba[:, 3:], (rgba[:, :3] * rgba[:, 3:]).mean(1, keepdim=True)
    width = int(torch.randint(1, 3, (1,), generator=draw))  # pixels on either side of the edge
    rim = steps(alpha, width)
    inner = ((steps(grey) - 0.12) * 8).clamp(0, 1) * alpha
    ink = torch.maximum(rim.clamp(0, 1), inner * (torch.rand(b, 1, 1, 1, generator=draw) < 0.8))
    dark = torch.rand(b, 3, 1, 1, generator=draw) * 0.12
    other = torch.rand(b, 3, 1, 1, generator=draw)
    colour = torch.where(torch.rand(b, 1, 1, 1, generator=draw) < 0.8, dark, other)
    paper = torch.rand(b, 1, 1, 1, generator=draw) < 0.15  # some are drawn on white alone, like a colouring book
    body = torch.where(paper, torch.ones_like(rgba[:, :3]), rgba[:, :3])
    out = torch.cat([body * (1 - ink) + colour * ink, torch.maximum(alpha, ink)], 1)
    return (out * 255).round().clamp(0, 255).byte()


def steps(x: torch.Tensor, reach: int = 1) -> torch.Tensor:
    """How much x (B, C, h, w) changes within `reach` pixels: dilated minus eroded."""
    side = 2 * reach + 1
    return F.max_pool2d(x, side, 1, reach) + F.max_pool2d(-x, side, 1, reach)


def caption(name: str, style: str | None = None, colour: str | None = None) -> str:
    """The captions the base model was trained on: "red apple, noto style, on a blue background"."""
    return name + (f", {style} style" if style else "") + (f", on {article(colour)} background" if colour else "")


def article(colour: str) -> str:
    return ("an " if colour[0] in "aeiou" else "a ") + colour


def colours_tensor() -> torch.Tensor:
    return torch.tensor(list(COLOURS.values()), dtype=torch.float32)
