"""What a LoRA learns on the starter: python -m tests.benchmarks.style_lesson [--style silhouette]

Trains the 24 sample pictures with the defaults, measures the held-out pictures of the style at the same noise and
timesteps with and without the adapter, and draws a contact sheet: strengths across, prompts down, none of them in the
set. Writes docs/images/<style>-sheet.png and prints the figures.
"""

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

from studio.adapters import attach_file, read_adapter
from studio.basemodels import load_base
from studio.generation import Recipe, draw
from studio.training import config_from, read_run, train
from studio.workspace import ASSETS, Workspace

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
LABEL = 16  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", default="silhouette")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="section.key=value")
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    data = ASSETS / "datasets"
    values = {
        "name": given.style,
        "data.folder": str(data / given.style),
        "data.held_out": str(data / "held-out" / given.style),
        "training.steps": given.steps,
        "preview.every": 0,
    } | dict(change.split("=", 1) for change in given.changes)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        began = time.monotonic()
        for _ in train(config_from(values), workspace):
            pass
        seconds = time.monotonic() - began
        view = read_run(workspace, given.style)
        step, loss, base_loss = min(view.validation, key=lambda row: row[1])
        print(f"{given.steps} steps in {seconds:.0f} s, {view.steps_per_second:.2f} steps/s")
        print(f"held-out loss {base_loss:.4f} -> {loss:.4f} ({100 * (loss / base_loss - 1):+.1f} %) at step {step}")
        sheet = given.sheet or ASSETS.parent / "docs" / "images" / f"{given.style}-sheet.png"
        sheet.parent.mkdir(exist_ok=True)
        assert view.adapter is not None
        contact_sheet(view.adapter, unseen_prompts(data / given.style)).save(sheet)


def unseen_prompts(folder: Path, count: int = 5) -> list[str]:
    """Prompts of things that are not in the set."""
    taken = " ".join(path.read_text(encoding="utf-8") for path in folder.glob("*.txt"))
    wanted = ["rocket", "sunflower", "red apple", "teddy bear", "rabbit face", "guitar", "fish", "key"]
    colours = ["yellow", "cyan", "pink", "green", "white"]
    names = [name for name in wanted if name not in taken][:count]
    return [f"{name}, on a {colour} background" for name, colour in zip(names, colours, strict=False)]


def contact_sheet(adapter_file: Path, prompts: list[str]) -> Image.Image:
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
            canvas.paste(draw(base, Recipe(prompt=prompt, seed=3)), (column * side, top))
    adapter.detach()
    return canvas


if __name__ == "__main__":
    main()
