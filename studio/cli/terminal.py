"""What every command shares: exit codes, lines on stderr, and an end that Ctrl-C asks for politely."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studio.errors import ConfigError

DONE, USER, INTERRUPTED = 0, 2, 130  # exit codes
EVERY = 0.5  # seconds between two lines on a download


def say(line: str) -> None:
    """A line on stderr, so that what is printed on stdout stays for other programs."""
    print(line, file=sys.stderr, flush=True)


def say_download() -> Callable[[int, int], None]:
    """What is told (bytes done, bytes in all) and says so, twice a second."""
    due = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due or done >= total:
            due = time.monotonic() + EVERY
            say(f"fetched {done / 1e9:.2f} of {total / 1e9:.2f} GB")

    return tell


def change(text: str, example: str) -> tuple[str, str]:
    """(key, value) of a --set. Raises ConfigError, with the example."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set needs a name and a value, like {example} (you gave {text[:60]!r}).")
    return key.strip(), value.strip()


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
