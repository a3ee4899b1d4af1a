"""Captions on the command line: `python -m studio caption FOLDER`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from studio.cli.terminal import DONE, INTERRUPTED, change, say, say_download, stop_on_signals
from studio.errors import ConfigError
from studio.server.settings import Parser


def caption_commands(add: Callable[..., Parser]) -> None:
    """Add `caption` to the parser of `studio.cli`."""
    sub = add("caption", caption_command, "Write a caption beside each picture of a folder.")
    sub.add_argument("folder", nargs="?", metavar="FOLDER", help="where the pictures are")
    sub.add_argument("--captioner", metavar="NAME", default="starter", help="who writes; see --captioners")
    sub.add_argument("--captioners", action="store_true", help="list every captioner with its settings, then stop")
    sub.add_argument(
        "--set", metavar="key=value", action="append", default=[], dest="changes", help="a setting of the captioner"
    )
    sub.add_argument("--download", action="store_true", help="fetch the captioner's model if it is not here")
    sub.add_argument("--trigger", metavar="WORD", default="", help="put this word in front of every caption")
    sub.add_argument("--overwrite", action="store_true", help="replace captions that are there (they are kept if not)")
    sub.add_argument(
        "--mode",
        metavar="MODE",
        help="what happens to captions that are there: skip (the default), overwrite, append, or refresh, which "
        "replaces what a captioner wrote and keeps what a person did",
    )


def caption_command(given: argparse.Namespace) -> int:
    """Caption a folder; captions that are there are kept unless --overwrite or --mode says otherwise."""
    if given.captioners:
        return _print_captioners()
    if not given.folder:
        raise ConfigError("Give the folder of pictures: caption FOLDER.")
    if given.overwrite and given.mode not in (None, "overwrite"):
        raise ConfigError(f"--overwrite and --mode {given.mode} can't both be meant: give one of them.")
    from studio.captioning import caption_dataset, captioner_settings
    from studio.datasets import open_dataset

    settings = captioner_settings(given.captioner, dict(change(text, "batch_size=4") for text in given.changes))
    dataset = open_dataset(Path(given.folder))
    for problem in dataset.problems:
        say(problem)
    with stop_on_signals() as stop:
        report = caption_dataset(
            dataset,
            captioner=given.captioner,
            trigger=given.trigger,
            overwrite=given.overwrite,
            stop=stop,
            progress=lambda done, total, path, caption: say(f"{done} of {total}  {Path(path).name}: {caption}"),
            mode=given.mode,
            settings=settings,
            download=given.download,
            download_progress=say_download(),
        )
    for problem in report.unreadable:
        say(problem)
    changed = f" ({report.triggered} with {given.trigger!r} put in front)" if report.triggered else ""
    print(f"{report.written} written, {report.kept} kept{changed}, {len(report.unreadable)} unreadable")
    return INTERRUPTED if report.stopped else DONE


def _print_captioners() -> int:
    """Every captioner with its settings, their defaults and what they do."""
    from studio.captioning import list_captioners
    from studio.schema import settings_of

    for name, kind in list_captioners().items():
        print(f"{name:12}{kind.about}")
        for setting, default, description in settings_of(kind.settings):
            print(f"    {setting:22}{default if len(default) <= 40 else default[:39] + '…':42}{description}")
    return DONE
