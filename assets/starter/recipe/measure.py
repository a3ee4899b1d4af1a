"""The starter's figures, as in its card: python assets/starter/recipe/measure.py [--work work/starter] [--count 100]

Judged by judge.py, which has no part in the base. For each way of writing a prompt: the share whose name is right in
the judge's top 1 and top 5 of all names. Unknown words: how far a prefix or suffix moves an image, as a share of
the way to another seed's. Backgrounds: their colour and flatness. Sharpness: as a share of real renders'. Seconds and
memory.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import art
import judge
import torch
from PIL import Image, ImageDraw

from studio.captioning.shapes import Shapes

STARTER = Path(__file__).resolve().parent.parent
GUIDANCE, STEPS = 4.0, 20
UNKNOWN = ("zsk", "ohwx", "kratu7", "s4b", "lighthouse", "my")


def grammars(synonyms: dict[str, list[str]]) -> dict[str, Callable[[str, str, str], str]]:
    """Ways of writing a prompt, of a name, a style and a colour."""
    return {
        "whole": lambda name, style, colour: art.caption(name, style, colour),
        "name": lambda name, style, colour: name,
        "article": lambda name, style, colour: art.article(name),
        "on colour": lambda name, style, colour: f"{art.article(name)} on {colour}",
        "keyword": lambda name, style, colour: synonyms.get(name, [name])[0],
        "style": lambda name, style, colour: art.caption(name, style),
        "unknown in front": lambda name, style, colour: f"zsk, {art.caption(name, None, colour)}",
        "photo of": lambda name, style, colour: f"a photo of {art.article(name)}, {colour} background",
        "unknown behind": lambda name, style, colour: f"{art.caption(name, None, colour)}, ohwx, masterpiece",
    }


def rows(names: list[str], count: int) -> list[tuple[int, str, str]]:
    """(index of the name, style, colour), fixed; names are spread over the whole list."""
    draw = random.Random(2026)
    order = draw.sample(range(len(names)), len(names))
    chosen = [order[n % len(order)] for n in range(count)]
    return [(name, draw.choice(list(art.BASE_STYLES)), draw.choice(list(art.COLOURS))) for name in chosen]


def background_of(images: torch.Tensor) -> list[str]:
    """The nearest palette colour of each image's rim."""
    seen = (_rim(images).median(2).values + 1) * 127.5
    return [list(art.COLOURS)[i] for i in torch.cdist(seen, art.colours_tensor()).argmin(1).tolist()]


def flatness(images: torch.Tensor) -> torch.Tensor:
    """Mean distance of each rim's pixels from its median, of 255."""
    rim = _rim(images)
    return (rim - rim.median(2, keepdim=True).values).abs().mean((1, 2)) * 127.5


def _rim(images: torch.Tensor) -> torch.Tensor:
    edges = (images[:, :, :4], images[:, :, -4:], images[..., :4], images[..., -4:])
    return torch.cat([edge.flatten(2) for edge in edges], 2)


def sharpness(images: torch.Tensor) -> torch.Tensor:
    """The steepest hundredth of each image's neighbour differences, of 255."""
    grey = images.mean(1)
    steps = torch.cat([grey.diff(dim=1).flatten(1), grey.diff(dim=2).flatten(1)], 1).abs() * 127.5
    return steps.quantile(0.99, dim=1)


def pixels(images: list[Image.Image]) -> torch.Tensor:
    """(N, 3, h, w) float32, -1..1."""
    flat = [
        torch.frombuffer(bytearray(i.convert("RGB").tobytes()), dtype=torch.uint8).view(i.height, i.width, 3)
        for i in images
    ]
    return torch.stack(flat).permute(0, 3, 1, 2).float() / 127.5 - 1


class Drawing:
    """The pipeline, with images kept so that no prompt is drawn twice."""

    def __init__(self, starter: Path):
        from diffusers import StableDiffusionPipeline

        self.pipeline = StableDiffusionPipeline.from_pretrained(starter)
        self.pipeline.set_progress_bar_config(disable=True)
        self.known: dict[tuple[str, int], Image.Image] = {}

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], batch: int = 12) -> torch.Tensor:
        wanted = list(zip(prompts, seeds))
        todo = [one for one in dict.fromkeys(wanted) if one not in self.known]
        for start in range(0, len(todo), batch):
            part = todo[start : start + batch]
            made = self.pipeline(
                [prompt for prompt, _ in part], num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                generator=[torch.Generator().manual_seed(seed) for _, seed in part],
            ).images  # fmt: skip
            self.known |= dict(zip(part, made))
        return pixels([self.known[one] for one in wanted])


def measure(
    starter: Path, modules: Path, cache: Path, judging: Shapes, count: int, sheet: Path | None = None
) -> dict[str, float]:  # fmt: skip
    draw, known = Drawing(starter), art.concepts(modules)
    names = [concept.name for concept in known]
    import captions

    synonyms, _ = captions.vocabulary(known, [])
    chosen, seeds = rows(names, count), list(range(count))
    truth = torch.tensor([name for name, _, _ in chosen])
    out: dict[str, float] = {"names": len(names), "prompts": count}
    real = _real(chosen, known, modules, cache)
    out["judge on real renders top 1"] = (judge.ranks(judging, real, truth) < 1).float().mean().item()
    drawn = {}
    for title, write in grammars(synonyms).items():
        x = drawn[title] = draw([write(names[name], style, colour) for name, style, colour in chosen], seeds)
        place = judge.ranks(judging, x, truth)
        out |= {
            f"{title} top 1": (place < 1).float().mean().item(),
            f"{title} top 5": (place < 5).float().mean().item(),
        }
        print(f"{title}: top 1 {out[f'{title} top 1']:.2f}", file=sys.stderr, flush=True)
    whole = drawn["whole"]
    right = [seen == colour for seen, (_, _, colour) in zip(background_of(whole), chosen)]
    out["background right"] = sum(right) / len(right)
    out["background flatness of 255"] = flatness(whole).median().item()
    out["sharpness to real renders"] = (sharpness(whole).median() / sharpness(real).median()).item()
    out |= unknown_words(draw, [(names[name], colour) for name, _, colour in chosen[: max(6, count // 4)]])
    seconds = []
    for seed in range(3):
        began = time.time()
        draw([art.caption(names[chosen[0][0]], None, "white")], [9000 + seed])
        seconds.append(time.time() - began)
    out["seconds an image"] = statistics.median(seconds)
    out["peak memory GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if sheet:
        first = (names[chosen[0][0]], *chosen[0][1:])
        save_sheet({write(*first): drawn[title][:12] for title, write in grammars(synonyms).items()}, sheet)
    return out


def unknown_words(draw: Drawing, things: list[tuple[str, str]]) -> dict[str, float]:
    """Mean pixel distance that an unknown word makes, as a share of another seed's."""
    plain = [art.caption(name, None, colour) for name, colour in things]
    seeds = [500 + n for n in range(len(plain))]
    words = [UNKNOWN[n % len(UNKNOWN)] for n in range(len(plain))]
    one, other = draw(plain, seeds), draw(plain, [seed + 1000 for seed in seeds])
    before = draw([f"{word}, {prompt}" for word, prompt in zip(words, plain)], seeds)
    behind = draw([f"{prompt}, {word}" for word, prompt in zip(words, plain)], seeds)
    seed = (one - other).abs().mean().item() * 127.5
    return {
        "another seed moves by, of 255": seed,
        "prefix moves, share of a seed": (one - before).abs().mean().item() * 127.5 / seed,
        "suffix moves, share of a seed": (one - behind).abs().mean().item() * 127.5 / seed,
    }


def _real(chosen, known, modules: Path, cache: Path) -> torch.Tensor:
    glyphs = art.render_styles(modules, [concept.slug for concept in known], art.BASE_STYLES, cache)
    picked = torch.stack([glyphs[style][name] for name, style, _ in chosen])
    return art.compose(picked, torch.tensor([art.COLOURS[colour] for _, _, colour in chosen]).float())


def save_sheet(rows: dict[str, torch.Tensor], file: Path, side: int = 96) -> None:
    """A row for each way of writing, under the first of its prompts. rows: (N, 3, h, w), -1..1."""
    label = 14  # pixels
    width = side * max(len(images) for images in rows.values())
    canvas = Image.new("RGB", (width, (side + label) * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (prompt, images) in enumerate(rows.items()):
        top = row * (side + label)
        pen.text((3, top), f'"{prompt}"', fill="black")
        for n, image in enumerate(((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)):
            small = Image.fromarray(image.numpy()).resize((side, side), Image.Resampling.LANCZOS)
            canvas.paste(small, (n * side, top + label))
    canvas.save(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("work/starter"))
    parser.add_argument("--starter", type=Path, default=STARTER)
    parser.add_argument("--count", type=int, default=100, help="prompts of each kind")
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    judging = Shapes.read(STARTER / "recipe" / "judge.safetensors")
    found = measure(given.starter, art.fetch(given.work), given.work / "render", judging, given.count, given.sheet)
    json.dump({key: round(value, 3) for key, value in found.items()}, sys.stdout, indent=1)
    print()
