"""The page's heartbeat: one event asks everything that is watched; only what is new travels further.

A watcher has many outputs and mostly nothing to say. Gradio's page looks each output up in the whole page, also when it
is skipped: a dozen watchers of their own kept a browser three quarters busy with nothing. Four pages that ask every two
seconds take 8 % of a run's steps when everything has one core (`tests.benchmarks.watching`), so the more pages look,
the more slowly each asks. Gradio lets a page that nobody sees rest.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.web.components.fields import NO_PROGRESS, PRIVATE

log = logging.getLogger(__name__)
_SKIP = gr.skip()
SLOWEST = 6  # seconds


class Beat:
    """Takes the place of a gr.Timer: `tick` as there, then `start` once everything is built.

    To be made before everything else, for as many watchers as there may be: the page finds first what stands first.
    """

    def __init__(self, most: int = 16, seconds: float = 2):
        self.seconds, self._free = seconds, [gr.State(None) for _ in range(most)]
        self._watchers: list[tuple[Callable[..., Any], list[Any], list[Any], gr.State]] = []
        self._pages: dict[str, tuple[float, float]] = {}  # session: when it last asked, its seconds between beats

    def tick(self, watch: Callable[..., Any], inputs: Any = None, outputs: Any = None, **_: Any) -> None:
        """`watch` is asked at each beat, and answers as a handler does: with gr.skip() for what is not new."""
        wanted, given, news = _list(outputs), _list(inputs), self._free.pop(0)
        self._watchers.append((watch, given, wanted, news))
        quiet = {"concurrency_limit": None, **NO_PROGRESS, **PRIVATE}
        news.change(lambda held: held[1] if held else [_SKIP] * len(wanted), news, wanted, **quiet)

    def start(self) -> None:
        """Build the timer, after the last `tick`."""
        inputs = [one for _, given, _, _ in self._watchers for one in given]

        timer = gr.Timer(self.seconds)

        def ask(request: gr.Request, *values: Any) -> list[Any]:
            answers, at = [self._pace(request.session_hash or "", time.monotonic())], 0
            for watch, given, wanted, _ in self._watchers:
                answers.append(_asked(watch, values[at : at + len(given)], wanted))
                at += len(given)
            return answers

        quiet = {"concurrency_limit": None, **NO_PROGRESS, **PRIVATE}
        timer.tick(ask, inputs, [timer, *(news for *_, news in self._watchers)], **quiet)

    def _pace(self, session: str, now: float) -> Any:
        """A page's timer, when others came or went: two pages ask at the usual pace, four half as often."""
        held = self._pages.get(session, (now, self.seconds))[1]
        self._pages = {key: one for key, one in list(self._pages.items()) if now - one[0] < 3 * one[1]}
        pages = len(self._pages.keys() | {session})
        wanted = min(SLOWEST, self.seconds * max(1, pages / 2))
        self._pages[session] = (now, wanted)
        return gr.Timer(wanted) if wanted != held else _SKIP


def _asked(watch: Callable[..., Any], values: Sequence[Any], wanted: list[Any]) -> Any:
    """What it answers for `wanted`, in order; a skip when none of it is new."""
    try:
        said = watch(*values)
    except Exception:  # one that fails must not silence the others
        log.exception("%s failed", getattr(watch, "__qualname__", watch))
        return _SKIP
    if isinstance(said, dict) and "__type__" not in said:
        said = [said.get(one, _SKIP) for one in wanted]
    elif len(wanted) == 1:
        said = [said]
    elif said == _SKIP:
        return _SKIP
    if all(isinstance(one, dict) and one == _SKIP for one in said):
        return _SKIP
    return time.monotonic_ns(), list(said)  # the same answer is news again where something else was shown between


def _list(components: Any) -> list[Any]:
    if components is None:
        return []
    return list(components) if isinstance(components, list | tuple) else [components]
