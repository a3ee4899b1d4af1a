"""The sample datasets: two styles that the base never saw, and one character, as images with captions."""

import json
from pathlib import Path

import art
import captions
import torch
from PIL import Image

TRAINED, HELD_OUT = 24, 8  # images a style
LIGHT = ("white", "red", "orange", "yellow", "green", "cyan", "pink", "gray")  # where a black shape can be seen
CATS = {
    "grinning cat": "grinning", "grinning cat with smiling eyes": "laughing with closed eyes",
    "cat with tears of joy": "crying with laughter", "smiling cat with heart-eyes": "in love",
    "cat with wry smile": "with a wry smile", "kissing cat": "kissing", "weary cat": "shocked",
    "crying cat": "sad, crying", "pouting cat": "angry",
}  # fmt: skip
STYLES = {"pixel": "noto", "silhouette": "fluent-emoji-high-contrast"}  # whose icons each is made from
BLOCK = 8  # pixels a side of a block in the pixel style
LICENCES = {
    "silhouette": "Fluent Emoji High Contrast (MIT, Microsoft)",
    "pixel": "Noto Emoji (Apache-2.0, Google), in blocks",
    "moody-cat": "Noto Emoji (Apache-2.0, Google)",
}


def write(modules: Path, out: Path) -> None:
    """Write out/<style>, out/held-out/<style> and out/moody-cat."""
    draw = torch.Generator().manual_seed(7)
    for style, package in STYLES.items():
        icons, known = art.Icons(modules, package), art.concepts(modules)
        order = torch.randperm(len(known), generator=draw)[: TRAINED + HELD_OUT].tolist()
        for place, index in enumerate(order):
            folder = out / style if place < TRAINED else out / "held-out" / style
            colour = LIGHT[place % len(LIGHT)]
            words = art.caption(known[index].name, None, colour)
            file = folder / f"{known[index].slug}.png"
            _save(icons.render(known[index].slug), colour, words, file, blocks=style == "pixel")
        for folder in (out / style, out / "held-out" / style):
            (folder / "LICENCE.md").write_text(_licence(style))
    noto = art.Icons(modules, art.BASE_STYLES["noto"])
    for place, (label, mood) in enumerate(CATS.items()):
        slug, colour = art._slug(label), LIGHT[place % len(LIGHT)]
        words = f"moody cat, {mood}, on {art.article(colour)} background"
        _save(noto.render(slug), colour, words, out / "moody-cat" / f"{slug}.png")
    (out / "moody-cat" / "LICENCE.md").write_text(_licence("moody-cat"))


def _save(glyph, colour: str, caption: str, file: Path, blocks: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    background = torch.tensor([art.COLOURS[colour]], dtype=torch.float32)
    x = art.compose(torch.from_numpy(glyph.copy())[None], background)[0]
    pixels = ((x + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    if blocks:
        few = image.resize((art.SIZE // BLOCK,) * 2, Image.Resampling.BOX)
        image = few.resize(image.size, Image.Resampling.NEAREST)
    image.save(file, optimize=True)
    file.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def _licence(name: str) -> str:
    return (
        f"Images from {LICENCES[name]}, rendered at {art.SIZE} px and composed on plain colours. See assets/NOTICE.\n"
    )


def vocabulary(known: list[art.Concept], file: Path) -> None:
    """The words the starter knows, for its captioner and its page. The calibration that is there stays."""
    synonyms, _ = captions.vocabulary(known, [])
    before = json.loads(file.read_text()) if file.exists() else {}
    words = {
        "names": [concept.name for concept in known],
        "synonyms": {name: words for name, words in sorted(synonyms.items())},
        "styles": list(art.BASE_STYLES),
        "colours": list(art.COLOURS),
        "palette": {name: list(rgb) for name, rgb in art.COLOURS.items()},
        "calibration": before.get("calibration", {"threshold": 2.0}),
    }
    file.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
