"""What every part of the page is built from. Each part has one shape: `build(context)`, called where it shall stand."""

from dataclasses import dataclass

import gradio as gr

from studio.server.settings import Settings
from studio.web.components.polling import Poller
from studio.workspace import Workspace


@dataclass
class PageContext:
    """What the tabs share.

    demo            the page, for what happens when it is loaded
    poller          asks for news of everything that changes without a click
    trash_emptied   hidden: another number when what was deleted is gone for good
    """

    workspace: Workspace
    settings: Settings
    demo: gr.Blocks
    poller: Poller
    trash_emptied: gr.Number


def page_context(workspace: Workspace, settings: Settings, demo: gr.Blocks) -> PageContext:
    """Call it inside `demo`, before anything else is built: the browser finds first what stands first."""
    return PageContext(workspace, settings, demo, Poller(), gr.Number(0, visible=False))
