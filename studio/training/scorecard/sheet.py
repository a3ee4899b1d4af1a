"""The contact sheet of a scorecard: prompts down; the dataset's image, base, adapter, without the trigger across."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

COLUMNS = ("dataset", "base", "adapter", "no trigger")
SIDE, LABEL = 128, 16  # pixels


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image | None]]]) -> Image.Image:
    """rows: (title, an image or None of each of COLUMNS)."""
    tall = SIDE + LABEL
    canvas = Image.new("RGB", (SIDE * len(COLUMNS), LABEL + tall * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, title in enumerate(COLUMNS):
        pen.text((column * SIDE + 4, 2), title, fill="black")
    for row, (title, images) in enumerate(rows):
        top = LABEL + row * tall
        for column, image in enumerate(images):
            if image is not None:
                canvas.paste(image.convert("RGB").resize((SIDE, SIDE)), (column * SIDE, top))
        pen.text((4, top + SIDE + 2), title.encode("ascii", "replace").decode()[:80], fill="black")
    return canvas
