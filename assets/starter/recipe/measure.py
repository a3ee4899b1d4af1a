"""The starter's figures, as in its card. Run: python assets/starter/recipe/measure.py [--work work/starter]

(a) share of prompts whose picture CLIP names right in its top 5 of all names; (b) share whose background has the
colour asked for; (c) the same as (a) for real pictures in styles never seen; (d) seconds and memory.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import art
import clip
import torch
from PIL import Image

STARTER = Path(__file__).resolve().parent.parent
PROMPTS, GUIDANCE, STEPS = 200, 4.0, 20


def prompts(names: list[str]) -> list[tuple[int, str, str]]:
    """(index of the name, colour, prompt), fixed."""
    draw = torch.Generator().manual_seed(2026)
    colours, styles, out = list(art.COLOURS), list(art.BASE_STYLES), []
    for number in range(PROMPTS):
        name = number % len(names)
        colour = colours[int(torch.randint(len(colours), (1,), generator=draw))]
        style = styles[int(torch.randint(len(styles), (1,), generator=draw))]
        out.append((name, colour, art.caption(names[name], style, colour)))
    return out


def background_of(pictures: torch.Tensor) -> list[str]:
    """The nearest palette colour of each picture's four corners (median of 6 x 6 pixels each)."""
    corners = [
        pictures[:, :, v, h].flatten(2) for v in (slice(0, 6), slice(-6, None)) for h in (slice(0, 6), slice(-6, None))
    ]
    seen = (torch.cat(corners, 2).median(2).values + 1) * 127.5
    return [list(art.COLOURS)[i] for i in torch.cdist(seen, art.colours_tensor()).argmin(1).tolist()]


def pixels(images: list[Image.Image]) -> torch.Tensor:
    """(N, 3, h, w) float32, -1..1."""
    rows = [
        torch.frombuffer(bytearray(i.convert("RGB").tobytes()), dtype=torch.uint8).view(i.height, i.width, 3)
        for i in images
    ]
    return torch.stack(rows).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def measure(starter: Path, modules: Path, cache: Path, sheet: Path | None = None) -> dict[str, float]:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(starter)
    pipe.set_progress_bar_config(disable=True)
    known = art.concepts(modules)
    names = [concept.name for concept in known]
    said = clip.embed_texts(pipe.text_encoder, pipe.tokenizer, names)

    rows, images = prompts(names), []
    for start in range(0, PROMPTS, 20):
        seeds = [torch.Generator().manual_seed(i) for i in range(start, start + 20)]
        texts = [text for _, _, text in rows[start : start + 20]]
        images += pipe(texts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds).images
    x = pixels(images)
    place = clip.rank_of_names(clip.embed_images(pipe.image_encoder, x), said, torch.tensor([n for n, _, _ in rows]))
    right = [seen == colour for seen, (_, colour, _) in zip(background_of(x), rows)]
    out = {
        "names": len(names),
        "a_top5": (place < 5).float().mean().item(),
        "a_top1": (place < 1).float().mean().item(),
    }
    out["b_background"] = sum(right) / len(right)

    truth, palette = torch.arange(len(known)), art.colours_tensor()
    for style, glyphs in art.render_styles(modules, [c.slug for c in known], art.LESSON_STYLES, cache).items():
        seen = clip.embed_images(pipe.image_encoder, art.compose(glyphs, palette[truth % len(palette)]))
        out[f"c_{style}_top5"] = (clip.rank_of_names(seen, said, truth) < 5).float().mean().item()

    seconds = []
    for seed in range(5):
        began = time.time()
        pipe(
            rows[0][2],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed),
        )
        seconds.append(time.time() - began)
    out["d_seconds_an_image"] = statistics.median(seconds)
    out["d_peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if sheet:
        side = art.SIZE
        canvas = Image.new("RGB", (10 * side, 5 * side))
        for i, image in enumerate(images[:50]):
            canvas.paste(image, (i % 10 * side, i // 10 * side))
        canvas.save(sheet)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("work/starter"))
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    found = measure(STARTER, art.fetch(given.work), given.work / "render", given.sheet)
    json.dump({key: round(value, 3) for key, value in found.items()}, sys.stdout, indent=1)
    print()
