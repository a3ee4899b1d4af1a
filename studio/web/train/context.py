"""What the parts of the Train tab share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gradio as gr

from studio.web.components.context import PageContext

if TYPE_CHECKING:
    from studio.web.train.form import TrainForm


@dataclass
class TrainContext(PageContext):
    """The parts that others build on; the tab fills in the form as soon as it is built.

    run       the run that is shown; custom values, since a run that was just deleted may still be asked for
    message   the line below the buttons
    form      the settings of the next run
    run_tab   the sub-tab of the run that is shown
    hardest   the closed part of its hardest images, and their gallery
    """

    run: gr.Dropdown
    message: gr.HTML
    form: TrainForm = field(init=False)
    run_tab: gr.Tab = field(init=False)
    hardest: tuple[gr.Accordion, gr.Gallery] = field(init=False)
