"""What the parts of the Generate tab share: the recipe that the form and the adapter rows make, and the ways back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class Bench:
    """The left side of the tab, for what stands on its right.

    inputs    components whose values `recipe` takes
    recipe    the Recipe of those values, adapters and all; raises StudioError
    taken     hidden: fill it with the name of a picture in the workspace's outputs, and the form takes its recipe
    incoming  hidden: fill it with an adapter's key ("run:NAME", "file:NAME"), and it gets a row
    axes      hidden: when a sheet was taken, and its axes as fields of a Typed each
    packed    hidden: what the grid's plan is made of, in one piece
    emptied   hidden: another number when what was deleted is gone for good
    """

    inputs: list[Any]
    recipe: Callable[..., Any]
    taken: gr.Textbox
    incoming: gr.Textbox
    axes: gr.JSON
    packed: gr.JSON
    emptied: gr.Number
