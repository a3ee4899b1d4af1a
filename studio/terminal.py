"""What every command shares: lines on stderr, and an end that Ctrl-C asks for politely."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def say(line: str) -> None:
    """A line on stderr, so that what is printed on stdout stays for other programs."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or a polite kill) sets; the second one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number, frame) -> None:
        stop.set()
        restore()
        say("Stopping after this step; once more breaks off at once.")

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()
