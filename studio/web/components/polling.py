"""One timer of the page asks everything that is watched; only what is new travels further.

A watcher has many outputs and mostly no news. Gradio's page looks each output up in the whole page, also when it is
skipped: a dozen timers of their own kept a browser three quarters busy with nothing. Four pages that ask every two
seconds take 8 % of a run's steps when everything has one core (`tests.benchmarks.watching`), so the more pages are
open, the more slowly each asks. Gradio stops the timers of a page that is in the background.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.web.components.fields import QUIET

log = logging.getLogger(__name__)
_SKIP = gr.skip()
SLOWEST = 6  # seconds


class Poller:
    """Takes the place of a gr.Timer: `watch` for each watcher, then `start` once everything is built.

    To be made before everything else, for as many watchers as there may be: the page finds first what stands first.
    """

    def __init__(self, most: int = 16, seconds: float = 2):
        self.seconds, self._free = seconds, [gr.State(None) for _ in range(most)]
        self._watchers: list[tuple[Callable[..., Any], list[Any], list[Any], gr.State]] = []
        self._pages: dict[str, tuple[float, float]] = {}  # session: when it last asked, its seconds between polls

    def watch(self, watcher: Callable[..., Any], inputs: Any = None, outputs: Any = None) -> None:
        """Call `watcher` at each poll. It answers as a handler does: a dict by component, or gr.skip() for no news."""
        given, wanted, changed = _list(inputs), _list(outputs), self._free.pop(0)
        self._watchers.append((watcher, given, wanted, changed))
        changed.change(lambda held: _shown(held, len(wanted)), changed, wanted, concurrency_limit=None, **QUIET)

    def start(self) -> None:
        """Build the timer, after the last `watch`."""
        inputs = [one for _, given, _, _ in self._watchers for one in given]

        timer = gr.Timer(self.seconds)

        def poll(request: gr.Request, *values: Any) -> list[Any]:
            answers, at = [self._pace(request.session_hash or "", time.monotonic())], 0
            for watcher, given, wanted, _ in self._watchers:
                answers.append(_ask(watcher, values[at : at + len(given)], wanted))
                at += len(given)
            return answers

        timer.tick(poll, inputs, [timer, *(changed for *_, changed in self._watchers)], concurrency_limit=None, **QUIET)

    def _pace(self, session: str, now: float) -> Any:
        """A page's timer, when others came or went: two pages ask at the usual pace, four half as often."""
        held = self._pages.get(session, (now, self.seconds))[1]
        self._pages = {key: one for key, one in list(self._pages.items()) if now - one[0] < 3 * one[1]}
        pages = len(self._pages.keys() | {session})
        wanted = min(SLOWEST, self.seconds * max(1, pages / 2))
        self._pages[session] = (now, wanted)
        return gr.Timer(wanted) if wanted != held else _SKIP


def _ask(watcher: Callable[..., Any], values: Sequence[Any], wanted: list[Any]) -> Any:
    """What it answers for `wanted`, in order; a skip when none of it is new."""
    try:
        answer = watcher(*values)
        if isinstance(answer, dict) and answer == _SKIP:
            return _SKIP
        if isinstance(answer, dict) and "__type__" not in answer:
            updates = [answer.get(one, _SKIP) for one in wanted]
        elif len(wanted) == 1:
            updates = [answer]
        else:
            raise TypeError(f"{len(wanted)} outputs need a dict, not {type(answer).__name__}")
    except Exception:  # one that fails must not silence the others
        log.exception("%s failed", getattr(watcher, "__qualname__", watcher))
        return _SKIP
    if all(isinstance(one, dict) and one == _SKIP for one in updates):
        return _SKIP
    return time.monotonic_ns(), updates  # the same answer is news again where something else was shown between


def _shown(held: tuple[int, list[Any]] | None, many: int) -> Any:
    """What is held for so many outputs, as Gradio wants it: a list for several, the answer itself for one."""
    answers = held[1] if held else [_SKIP] * many
    return answers if many > 1 else answers[0]


def _list(components: Any) -> list[Any]:
    if components is None:
        return []
    return list(components) if isinstance(components, list | tuple) else [components]
