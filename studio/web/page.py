"""What a browser receives of the page: less than what was built, and in another order.

Gradio's client looks a component up by going through all of them, the first ones first, several times for each event.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block, BlockContext

from studio.web import i18n

PAGE_JS = (Path(__file__).parent / "scripts" / "page.js").read_text("utf-8")
UNSEEN = ("state", "timer")  # nothing of them shows, and the page asks for them most


class Page(gr.Blocks):
    """Blocks of which browsers do not receive what was left out; programs do, in the whole configuration."""

    def __init__(self, *args: Any, **options: Any):
        self.left_out: set[int] = set()
        self._config: Any = None
        self._spoken: dict[str, Any] = {}  # the configuration by language
        super().__init__(*args, **options)

    @property
    def config(self) -> Any:
        """The configuration as it is sent now: Gradio takes it from here for each request."""
        code = i18n.asked()
        if code == i18n.ENGLISH or self._config is None:
            return self._config
        if code not in self._spoken:
            self._spoken[code] = i18n.translated(self._config, code)
        return self._spoken[code]

    @config.setter
    def config(self, made: Any) -> None:
        self._config, self._spoken = made, {}

    def get_api_info(self, *args: Any, **options: Any) -> Any:
        """What programs are told of endpoints is English, whatever language is asked for first."""
        with i18n.speaking(i18n.ENGLISH):
            return super().get_api_info(*args, **options)

    def leave_out(self, container: BlockContext) -> None:
        """Browsers receive neither the container nor what is in it. Events that name it still answer programs."""
        self.left_out |= {block._id for block in _within(container)}

    def get_config_file(self) -> Any:
        """The whole configuration, of which `page` says what a browser receives."""
        config = super().get_config_file()
        for page in config["page"].values():
            page["components"] = [one for one in page["components"] if one not in self.left_out]
            page["layout"] = self._arranged(page["layout"])
        return config

    def _arranged(self, layout: dict[str, Any]) -> dict[str, Any]:
        unseen: list[dict[str, Any]] = []
        rest = self._without_unseen(layout, unseen)
        return {**rest, "children": unseen + rest["children"]}

    def _without_unseen(self, node: dict[str, Any], unseen: list[dict[str, Any]]) -> dict[str, Any]:
        """The node without what is left out and without what does not show, which `unseen` receives."""
        if "children" not in node:
            return node
        children: list[dict[str, Any]] = []
        for child in node["children"]:
            if child["id"] in self.left_out:
                continue
            block = self.blocks[child["id"]]
            (unseen if block.get_block_name() in UNSEEN else children).append(self._without_unseen(child, unseen))
        return {**node, "children": children}


def _within(block: Block) -> Iterator[Block]:
    yield block
    for child in getattr(block, "children", ()):
        yield from _within(child)
