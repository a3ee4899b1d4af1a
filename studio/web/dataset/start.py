"""What stands on the tab while no dataset is open: three ways to begin."""

from html import escape
from pathlib import Path

import gradio as gr

from studio.services import datasets
from studio.web.components.clickable import button, clickable_html, image_link
from studio.web.dataset.context import DatasetContext
from studio.web.dataset.imports import AddFiles

SAMPLE, GENERATE, EXAMPLE = "sample", "generate", "example"  # what a click sends
FEW = 4  # images of each sample
# A page that remembers a dataset shows the place of its images at once, not the cards for a moment.
REOPENING_JS = """
try { if (localStorage.studioDataset) document.body.classList.add('reopening'); } catch {}
"""


class Start:
    """The cards. part: all of them; clicks: where the tab and the page hear of clicks, each with act and arg."""

    def __init__(self, context: DatasetContext):
        with gr.Row(elem_id="start-cards", elem_classes="start", equal_height=True) as self.part:
            with gr.Column(scale=5, min_width=280, elem_classes="card"):
                self.samples = clickable_html("start-samples", samples_html())
            with gr.Column(scale=4, min_width=280, elem_classes="card"):
                text = "Ten to thirty images of one style, person or thing, or a zip of them."
                gr.HTML(_head("Add my images", text), padding=False)
                self.add = AddFiles(context, new=True)
            with gr.Column(scale=3, min_width=220, elem_classes="card"):
                text = "Try the base model, or an adapter that you have."
                drawn = f'<div class="drawn">{_thumbnails(datasets.drawn_images(), 64)}</div>'
                body = _head("Just generate", text) + drawn + button(GENERATE, "", "Go to Generate")
                self.generate = clickable_html("start-generate", body)
            gr.HTML("", elem_id="reopening", padding=False, js_on_load=REOPENING_JS)
        self.clicks = [self.samples.click, self.generate.click]

    def wire(self) -> None:
        """After `imports.build`, whose report says how it goes."""
        self.add.wire()


def build(context: DatasetContext) -> Start:
    """The cards, above everything else of the tab; to be wired by the caller."""
    return Start(context)


def samples_html() -> str:
    samples = "".join(_sample(name, files) for name, files in datasets.sample_images().items())
    example = button(EXAMPLE, "", "Show me: a style in a minute", "primary")
    return (
        f"{_head('Try a sample', 'Images with captions, ready to train on.')}{samples}"
        f'<div class="show-me">{example}<small>Trains a small adapter and shows what it changed.</small></div>'
    )


def _head(title: str, text: str) -> str:
    return f"<h3>{escape(title)}</h3><p>{escape(text)}</p>"


def _thumbnails(files: list[Path], side: int) -> str:
    """side: in pixels of the page."""
    size = f'width="{side}" height="{side}"'
    named = [(escape(image_link(path)), escape(path.stem.replace("-", " "))) for path in files]
    return "".join(f'<img src="{link}" alt="{name}" {size}>' for link, name in named)


def _sample(name: str, files: list[Path]) -> str:
    images = _thumbnails(files[:FEW], 52)
    label = f"{name}, {len(files)} images"
    return f'<div class="sample"><div>{images}</div>{button(SAMPLE, name, label, "", f"Open the sample {name}")}</div>'
