"""A subject under its trigger word, and the ordinary thing without it: python -m tests.benchmarks.subject_lesson

Trains the nine images of the moody cat twice: alone, and with prior preservation on images of ordinary cats that
the base model drew itself. Then draws both kinds of prompt with the same seeds and says how near the images are, by
the starter's image encoder, to the moody cats and to what the base draws. Writes docs/images/subject-sheet.png.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from studio.adapters import attach_file, read_adapter
from studio.basemodels import StableDiffusion, load_base
from studio.datasets import open_dataset
from studio.generation import Recipe, draw
from studio.training import config_from, read_run, train
from studio.workspace import ASSETS, Workspace

DATA = ASSETS / "datasets" / "moody-cat"
TRIGGER, ORDINARY = "moody cat", "cat face"
COLOURS = ("white", "red", "orange", "yellow", "green", "blue", "cyan", "pink")
SHOWN = 4  # of the colours, on the sheet
LABEL = 16  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="section.key=value")
    given = parser.parse_args()
    base = load_base("starter", shared=False)
    bare = {words: images(base, words) for words in (TRIGGER, ORDINARY)}
    subject = base.embed_images([item.load() for item in open_dataset(DATA).items])
    rows = {"base": bare}
    with tempfile.TemporaryDirectory() as folder:
        workspace, ordinary = Workspace.open(folder), Path(folder) / "ordinary"
        ordinary_images(base, ordinary)
        for name, regularisation in (("alone", ""), ("prior", str(ordinary))):
            values = {
                "name": name,
                "data.folder": str(DATA),
                "data.trigger": TRIGGER,
                "preview.every": 0,
                "data.regularisation": regularisation,
                "data.regularisation_weight": 0.3,
                "training.steps": given.steps,
                "validation.every": 0,
                "training.batch_size": 4,
            } | dict(change.split("=", 1) for change in given.changes)
            for _ in train(config_from(values), workspace):
                pass
            file = read_run(workspace, name).adapter
            assert file is not None
            adapter = attach_file(read_adapter(file), base.modules())
            rows[name] = {words: images(base, words) for words in (TRIGGER, ORDINARY)}
            adapter.detach()
    print(f"{'':8}{'“' + TRIGGER + '” to the subject':32}{'“' + ORDINARY + '” to what the base draws'}")
    for name, drawn in rows.items():
        near = near_to(base.embed_images(drawn[TRIGGER]), subject)
        same = (base.embed_images(drawn[ORDINARY]) * base.embed_images(bare[ORDINARY])).sum(1).mean().item()
        print(f"{name:8}{near:<32.3f}{same:.3f}")
    file = ASSETS.parent / "docs" / "images" / "subject-sheet.png"
    sheet(rows).save(file)
    print(file.relative_to(ASSETS.parent))


def images(base: StableDiffusion, words: str) -> list[Image.Image]:
    """One a colour, each with its own seed."""
    return [draw(base, Recipe(prompt=on(words, colour), seed=seed)) for seed, colour in enumerate(COLOURS)]


def on(words: str, colour: str) -> str:
    return f"{words}, on {'an' if colour[0] in 'aeiou' else 'a'} {colour} background"


def ordinary_images(base: StableDiffusion, folder: Path) -> None:
    """What the base model itself draws of the kind, with the prompts as captions (arXiv:2208.12242, section 3.2)."""
    folder.mkdir()
    for seed in range(24):
        prompt = on(ORDINARY, COLOURS[seed % len(COLOURS)])
        draw(base, Recipe(prompt=prompt, seed=1000 + seed)).save(folder / f"{seed:02}.png")
        (folder / f"{seed:02}.txt").write_text(prompt)


def near_to(drawn: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean similarity of each image to the training image that it is nearest to."""
    return (drawn @ wanted.T).max(1).values.mean().item()


def sheet(rows: dict[str, dict[str, list[Image.Image]]]) -> Image.Image:
    """A row an adapter: four images with the trigger, the same four without."""
    side = rows["base"][TRIGGER][0].width
    names = {"base": "base model", "alone": "trained alone", "prior": "with prior preservation"}
    canvas = Image.new("RGB", (side * 2 * SHOWN + 8, (side + LABEL) * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (name, drawn) in enumerate(rows.items()):
        top = row * (side + LABEL)
        for column, words in enumerate((TRIGGER, ORDINARY)):
            left = column * (side * SHOWN + 8)
            pen.text((left + 4, top + 2), f"{names[name]}: {words}", fill="black")
            for place, image in enumerate(drawn[words][:SHOWN]):
                canvas.paste(image, (left + place * side, top + LABEL))
    return canvas


if __name__ == "__main__":
    main()
