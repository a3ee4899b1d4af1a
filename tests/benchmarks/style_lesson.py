"""What a LoRA learns on the starter: python -m tests.benchmarks.style_lesson [--style silhouette | --all]

Trains a set with the base's defaults and a trigger word in front of its captions, and prints

- the loss on held-out images of the style, at the same noise and timesteps, with and without the adapter;
- of twelve names that are not in the set: how many the judge (assets/starter/recipe/judge.py, no part of the base)
  still names right in its top 1 and top 5, drawn by the base, with the trigger and without it;
- how far the images went from the base's towards the style's own in what is style and not shape: the share of nearly
  black pixels, the mean colour, colourfulness, and how much of the detail is in steps of blocks. 0: the base's, 1: the
  style's own. A style LoRA acts with and without its trigger; a subject with it alone.

and draws a contact sheet: strengths across, prompts down, none of them in the set. --captions built-in takes those that
the built-in captioner writes, without hints from file names, in place of the right ones. --all takes every sample set,
and with --art (the recipe's --work folder) two more in art that the base never saw.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from studio.adapters import attach_file, read_adapter
from studio.basemodels import load_base
from studio.captioning import caption_dataset
from studio.captioning.shapes import Shapes
from studio.datasets import open_dataset
from studio.generation import Recipe, draw
from studio.training import config_from, read_run, train
from studio.training.presets import preset
from studio.workspace import ASSETS, Workspace

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
LABEL = 16  # pixels
TRIGGER, UNSEEN = "zsk", 12
RECIPE = ASSETS / "starter" / "recipe"
SAMPLES = {"silhouette": "starter, style", "pixel": "starter, style", "moody-cat": "starter, character"}
UNKNOWN_ART = {"shaded": "fluent-emoji", "outlined": "openmoji"}  # sets made of art that the base never saw
SHAPE = 16  # images in each of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", default="silhouette")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--art", type=Path, help="the recipe's work folder, for sets in art that the base never saw")
    parser.add_argument("--captions", choices=["right", "built-in"], default="right")
    parser.add_argument("--steps", type=int, default=0, help="0: the preset's own")
    parser.add_argument("--names", type=int, default=UNSEEN, help="how many unseen names are drawn")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="section.key=value")
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    sys.path.insert(0, str(RECIPE))
    styles = [*SAMPLES, *(UNKNOWN_ART if given.art else ())] if given.all else [given.style]
    with tempfile.TemporaryDirectory() as folder:
        for style in styles:
            lesson(style, Path(folder), given)


def lesson(style: str, folder: Path, given: argparse.Namespace) -> None:
    data = folder / f"data-{style}"
    if style in UNKNOWN_ART:
        unknown_art(style, given.art, data)
    else:
        shutil.copytree(ASSETS / "datasets" / style, data)
    if given.captions == "built-in":
        captioned_without_hints(data)
    held_out = ASSETS / "datasets" / "held-out" / style
    values = preset(SAMPLES.get(style, "starter, style")) | {
        "name": style,
        "data.folder": str(data),
        "data.trigger": "" if style == "moody-cat" else TRIGGER,
        "data.held_out": str(held_out) if held_out.is_dir() else "",
        "preview.every": 0,
    }
    values |= ({"training.steps": given.steps} if given.steps else {}) | dict(c.split("=", 1) for c in given.changes)
    workspace, began = Workspace.open(folder / "workspace"), time.monotonic()
    for _ in train(config_from(values), workspace):
        pass
    view = read_run(workspace, style)
    print(f"\n{style}: {view.steps} steps in {time.monotonic() - began:.0f} s")
    if view.validation:
        step, loss, base_loss = min(view.validation, key=lambda row: row[1])
        print(f"held-out loss {base_loss:.4f} -> {loss:.4f} ({100 * (loss / base_loss - 1):+.1f} %) at step {step}")
    assert view.adapter is not None
    trigger = "moody cat" if style == "moody-cat" else TRIGGER
    report(view.adapter, data, trigger, given.names)
    sheet = given.sheet or ASSETS.parent / "docs" / "images" / f"{style}-sheet.png"
    sheet.parent.mkdir(exist_ok=True)
    contact_sheet(view.adapter, unseen_prompts(data, 5), trigger if style != "moody-cat" else "").save(sheet)


# Sets ---------------------------------------------------------------------------------------------------------------


def unknown_art(style: str, work: Path, folder: Path) -> None:
    """A set of SHAPE captioned images in art that the base never saw."""
    import art
    import lessons

    modules = art.fetch(work)
    icons, known = art.Icons(modules, UNKNOWN_ART[style]), art.concepts(modules)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(23))[:SHAPE].tolist()
    for place, index in enumerate(order):
        colour, concept = lessons.LIGHT[place % len(lessons.LIGHT)], known[index]
        words = art.caption(concept.name, None, colour)
        lessons._save(icons.render(concept.slug), colour, words, folder / f"{concept.slug}.png")


def captioned_without_hints(folder: Path) -> None:
    """As the built-in captioner leaves them, the files' names being numbers."""
    for number, file in enumerate(sorted(folder.glob("*.png"))):
        file.with_suffix(".txt").unlink()
        file.rename(folder / f"{number:02}.png")
    found = caption_dataset(open_dataset(folder))
    print(f"captioner: {found.written} written, {len(found.unsure)} without a name")
    for image in folder.glob("*.png"):
        if not image.with_suffix(".txt").exists():
            image.with_suffix(".txt").write_text("image")


def unseen_prompts(folder: Path, count: int) -> list[str]:
    """Prompts of things that are not in the set."""
    taken = " ".join(path.read_text(encoding="utf-8") for path in folder.glob("*.txt"))
    wanted = [
        "rocket",
        "sunflower",
        "red apple",
        "teddy bear",
        "rabbit face",
        "guitar",
        "fish",
        "key",
        "mushroom",
        "castle",
        "owl",
        "sailboat",
        "banana",
        "trophy",
        "pizza",
        "panda",
        "house",
        "snail",
    ]
    colours = ["yellow", "cyan", "pink", "green", "white"]
    names = [name for name in wanted if name not in taken][:count]
    return [f"{name}, on a {colours[n % len(colours)]} background" for n, name in enumerate(names)]


# Figures ------------------------------------------------------------------------------------------------------------


def report(adapter_file: Path, data: Path, trigger: str, count: int) -> None:
    import judge
    from measure import pixels

    judging, known = Shapes.read(RECIPE / "judge.safetensors"), vocabulary()
    prompts, base = unseen_prompts(data, count), load_base("starter")
    truth = torch.tensor([known.index(prompt.split(",")[0]) for prompt in prompts])
    with_trigger = [f"{trigger}, {prompt}" for prompt in prompts]
    rows = {"base": images(prompts), "base, trigger": images(with_trigger)}
    adapter = attach_file(read_adapter(adapter_file), base.modules())
    rows |= {"adapter, trigger": images(with_trigger), "adapter": images(prompts)}
    adapter.detach()
    own = style_of(pixels([Image.open(file) for file in sorted(data.glob("*.png"))]))
    start = style_of(pixels(rows["base"]))
    print(f"{'':18}{'top 1':>7}{'top 5':>7}  " + "".join(f"{key:>14}" for key in own))
    print(f"{'the set itself':34}" + "".join(f"{value:14.3f}" for value in own.values()))
    for title, drawn in rows.items():
        x = pixels(drawn)
        place, now = judge.ranks(judging, x, truth), style_of(x)
        right = f"{int((place < 1).sum())}/{len(place)}", f"{int((place < 5).sum())}/{len(place)}"
        print(f"{title:18}{right[0]:>7}{right[1]:>7}  " + "".join(f"{value:14.3f}" for value in now.values()))
        if title.startswith("adapter"):
            print(
                f"{'  towards the set':34}" + "".join(f"{way(start[k], now[k], own[k]):>14}" for k in own), flush=True
            )


def vocabulary() -> list[str]:
    import json

    return json.loads((ASSETS / "starter" / "vocabulary.json").read_text())["names"]


def images(prompts: Sequence[str]) -> list[Image.Image]:
    base = load_base("starter")
    return [draw(base, Recipe(prompt=prompt, seed=40 + n)) for n, prompt in enumerate(prompts)]


def style_of(images: torch.Tensor) -> dict[str, float]:
    """What is style and not shape, of (N, 3, h, w) images, -1..1; means over the images."""
    x = (images + 1) / 2
    step = x.mean(1).diff(dim=2).abs()
    return {
        "nearly black": (x.amax(1) < 0.24).float().mean().item(),
        "brightness": x.mean().item(),
        "colourfulness": (x.amax(1) - x.amin(1)).mean().item(),
        "blocks of 8": (step[..., 7::8].mean() / step.mean().clamp(min=1e-6)).item() / 8,
        "steep edges": (step > 0.25).float().mean().item(),
    }


def way(start: float, now: float, own: float) -> str:
    """ "0.55" of the way; "" where base and style hardly differ."""
    return f"{(now - start) / (own - start):.2f}" if abs(own - start) > 0.02 else ""


def contact_sheet(adapter_file: Path, prompts: list[str], trigger: str = "") -> Image.Image:
    """Strengths across, prompts down, one seed."""
    base = load_base("starter")
    adapter = attach_file(read_adapter(adapter_file), base.modules())
    side = base.resolution
    canvas = Image.new("RGB", (side * len(STRENGTHS), (side + LABEL) * len(prompts) + LABEL), "white")
    pen = ImageDraw.Draw(canvas)
    for column, strength in enumerate(STRENGTHS):
        pen.text((column * side + 4, 2), f"strength {strength:g}", fill="black")
    for row, prompt in enumerate(prompts):
        top = LABEL + row * (side + LABEL)
        pen.text((4, top + side + 2), prompt, fill="black")
        for column, strength in enumerate(STRENGTHS):
            adapter.strength = strength
            words = f"{trigger}, {prompt}" if trigger else prompt
            canvas.paste(draw(base, Recipe(prompt=words, seed=3)), (column * side, top))
    adapter.detach()
    return canvas


if __name__ == "__main__":
    main()
