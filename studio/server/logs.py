"""What the server writes about what goes wrong: no line and no caller can make it large.

Gradio prints the whole of what was sent when a call has the wrong number of values.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

LINE = 2000  # characters of one line
AT_ONCE, EACH_SECOND = 2_000_000, 20_000  # characters in all: so many, and so many more with each second


class Cut:
    """A text stream that writes on to another, with its long lines cut and its floods left out."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock = stream, clock
        self._left, self._when, self._dropped = float(AT_ONCE), clock(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        now = self._clock()
        self._left = min(AT_ONCE, self._left + EACH_SECOND * (now - self._when))
        self._when = now
        cut = text if len(text) <= LINE else "\n".join(map(_cut, text.split("\n", LINE)))
        if len(cut) > self._left:
            self._dropped += 1
            return len(text)
        self._left -= len(cut)
        if self._dropped:
            self._stream.write(f"… {self._dropped:,} lines were left out: too many at once …\n")
            self._dropped = 0
        self._stream.write(cut)
        return len(text)


def _cut(line: str) -> str:
    if len(line) <= LINE:
        return line
    return f"{line[: LINE // 2]} … {len(line) - LINE:,} characters left out … {line[-LINE // 2 :]}"


def cut_lines() -> None:
    """From now on, of all that this process writes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Cut):
            setattr(sys, name, Cut(stream))
