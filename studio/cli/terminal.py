"""What every command shares: exit codes, lines on stderr, and an end that Ctrl-C asks for politely."""

import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import typer

from studio.errors import ConfigError, StudioError
from studio.server.caption_server import caption_server
from studio.workspace import Workspace

DONE, USER, INTERRUPTED = 0, 2, 130  # exit codes
EVERY = 0.5  # seconds between two lines on a download
# Given before the command or behind it.
WorkspaceOption = Annotated[str, typer.Option("--workspace", metavar="DIR", hidden=True)]


def workspace_folder(context: typer.Context, given: str) -> str | None:
    """The folder that --workspace names, wherever it stands."""
    return given or context.find_root().obj or None


def opened(context: typer.Context, given: str) -> Workspace:
    """The workspace of this command, where its owner may do everything. Raises ConfigError."""
    space = Workspace.open(workspace_folder(context, given))
    server: dict[str, Any] = {**caption_server()}
    return replace(space, allows=replace(space.allows, **server))


def flags_of(
    model: Any, short: Mapping[str, str], without: Collection[str] = (), of_base: Collection[str] = ()
) -> list[inspect.Parameter]:
    """A flag for every setting of a schema: --section.key, with its range and default as help. Values stay text.

    of_base: settings whose default is the base's own.
    """
    from studio.schema import settings

    made = []
    for one in settings(model):
        if one.name in without:
            continue
        usual = "" if one.default in (None, "", (), [], {}) else f" Default: {_shown(one.default)}."
        usual = " Default: the base's own." if one.name in of_base else usual
        choices = f" One of {', '.join(one.choices)}." if one.choices else ""
        limits = f" ({one.range_text})" if one.range_text else ""
        text = f"{one.description.rstrip('.')}{limits}.{choices}{usual}"
        names = ["--" + one.name.replace("_", "-"), *filter(None, [short.get(one.name)])]
        many = one.kind is list or isinstance(one.default, list)
        option = typer.Option(*names, metavar="X", help=text, show_default=False)
        annotation = Annotated[list[str] | None if many else str | None, option]  # type: ignore[valid-type]
        name = "flag__" + one.name.replace(".", "__")
        made.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return made


def _shown(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def with_flags(function: Callable[..., int], flags: list[inspect.Parameter]) -> Callable[..., int]:
    """`function`, whose **flags receive these, under the settings' own names; None where a flag was not given."""
    signature = inspect.signature(function)
    fixed = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]

    def called(**given: Any) -> int:
        own = {p.name: given.pop(p.name) for p in fixed}
        named = {name.removeprefix("flag__").replace("__", "."): value or None for name, value in given.items()}
        return function(**own, **named)

    called.__doc__, called.__name__ = function.__doc__, function.__name__
    kind = inspect.Parameter.KEYWORD_ONLY
    every = [p.replace(kind=kind) for p in fixed] + flags
    called.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in every}
    return called


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


def finished(job: Any) -> Any:
    """Wait for a job with its progress on stderr; Ctrl-C stops it. Its result. Raises StudioError where it failed."""
    with stop_on_signals() as stop:
        last = ""
        while job.thread and job.thread.is_alive():
            if stop.is_set():
                job.stop()
            line = f"{job.message} ({100 * job.done // job.total} %)" if job.total and job.message else job.message
            if line and line != last:
                last = line
                say(line)
            job.thread.join(0.2)
    if job.error:
        raise StudioError(job.error)
    if job.state == "stopped":
        raise KeyboardInterrupt
    return job.result
