"""The page as a whole: what it is made of, without a browser."""

import gradio as gr
import pytest

from studio.server.settings import Settings
from studio.web.app import build


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build(Settings(workspace=tmp_path_factory.mktemp("workspace"), browser=False))


def test_tabs_hold_tabs_alone(page):
    """A State or a Timer between two tabs makes Gradio show one tab's name on another."""
    strays = {
        tabs.elem_id: [child.get_block_name() for child in tabs.children if not isinstance(child, gr.Tab)]
        for tabs in page.blocks.values()
        if isinstance(tabs, gr.Tabs)
    }
    assert len(strays) == 4 and not any(strays.values()), strays


def test_every_element_id_is_used_once(page):
    names = [block.elem_id for block in page.blocks.values() if block.elem_id]
    assert len(names) > 200 and len(names) == len(set(names))
