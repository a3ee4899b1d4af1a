"""What the parts of the Dataset tab share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gradio as gr

from studio.web.components.context import PageContext

if TYPE_CHECKING:
    from studio.web.dataset.captions import Captions
    from studio.web.dataset.image_editor import ImageEditor
    from studio.web.dataset.images import Images
    from studio.web.dataset.imports import Import


@dataclass
class DatasetContext(PageContext):
    """The dataset that is open, and the parts that others build on; the tab fills those in as it builds them.

    choice      the name of the dataset that is open
    revision    another text whenever the dataset has changed
    requested   "dataset/file" of an image to open, from another part
    onward      the button that goes on to training
    imports     the report of the newest import
    captions    the trigger word, and the captioner with its settings
    images      the page of images that is shown, and its filter
    editor      the image that is open
    """

    choice: gr.Dropdown
    revision: gr.State
    requested: gr.State
    onward: gr.Button
    imports: Import = field(init=False)
    captions: Captions = field(init=False)
    images: Images = field(init=False)
    editor: ImageEditor = field(init=False)
