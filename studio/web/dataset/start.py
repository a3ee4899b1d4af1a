"""What stands above the grid while no dataset is open: three ways to begin."""

from html import escape
from pathlib import Path

import gradio as gr

from studio.services import datasets
from studio.web.components.clickable import button, clickable_html, image_link

SAMPLE, ADD, GENERATE = "sample", "add", "generate"  # what a click sends
FEW = 4  # images of each sample


def cards() -> gr.HTML:
    """The cards; the tab and the page follow their clicks."""
    return clickable_html("start-cards", cards_html())


def cards_html() -> str:
    samples = "".join(_sample(name, files) for name, files in datasets.sample_images().items())
    return (
        '<div class="start">'
        f"<section><h3>Try a sample</h3><p>Images with captions, ready to train on.</p>{samples}</section>"
        "<section><h3>Add my images</h3><p>Ten to thirty images of one style, person or thing, or a zip of them.</p>"
        f"{button(ADD, '', 'Add images', 'primary')}</section>"
        "<section><h3>Just generate</h3><p>Try the base model, or an adapter that you have.</p>"
        f"{button(GENERATE, '', 'Go to Generate')}</section></div>"
    )


def _sample(name: str, files: list[Path]) -> str:
    images = "".join(f'<img src="{escape(image_link(path))}" alt="" loading="lazy">' for path in files[:FEW])
    label = f"{name}, {len(files)} images"
    return f'<div class="sample"><div>{images}</div>{button(SAMPLE, name, label, "", f"Open the sample {name}")}</div>'
