"""Captions on the command line: `python -m studio caption FOLDER`."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from studio.cli.terminal import DONE, INTERRUPTED, WorkspaceOption, change, say, say_download, stop_on_signals
from studio.errors import ConfigError
from studio.server.caption_server import caption_server


def caption(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the images are.")] = "",
    captioner: Annotated[
        str, typer.Option(metavar="NAME", help="Who writes; see --list-captioners (starter).")
    ] = "starter",
    list_captioners: Annotated[
        bool, typer.Option("--list-captioners", help="List every captioner with its settings, then stop.")
    ] = False,
    captioners: Annotated[bool, typer.Option("--captioners", hidden=True)] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="key=value", help="A setting of the captioner.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the captioner's model if it is not here.")
    ] = False,
    server: Annotated[
        str, typer.Option(metavar="URL", help="Address that the captioner server asks (STUDIO_CAPTION_SERVER).")
    ] = "",
    trigger: Annotated[str, typer.Option(metavar="WORD", help="Put this word in front of every caption.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace captions that are there (they are kept if not).")
    ] = False,
    mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="What happens to captions that are there: skip (the default), overwrite, append, or "
            "refresh, which replaces what a captioner wrote and keeps what a person did.",
        ),
    ] = "",
    workspace: WorkspaceOption = "",
) -> int:
    """Write a caption beside each image of a folder."""
    if list_captioners or captioners:
        return _print_captioners()
    if not folder:
        raise ConfigError("Give the folder of images: caption FOLDER.")
    if overwrite and mode not in ("", "overwrite"):
        raise ConfigError(f"--overwrite and --mode {mode} contradict each other: give one of them.")
    from studio.captioning import caption_dataset, captioner_settings
    from studio.datasets import open_dataset

    settings: Any = captioner_settings(captioner, dict(change(text, "batch_size=4") for text in changes or ()))
    if hasattr(settings, "at"):
        settings = settings.at(*caption_server(given=server).values())
    elif server:
        raise ConfigError(f"--server is for the captioner server: add --captioner server (you chose {captioner}).")
    dataset = open_dataset(Path(folder))
    for line in (*dataset.problems, *dataset.warnings):
        say(line)
    with stop_on_signals() as stop:
        report = caption_dataset(
            dataset,
            captioner=captioner,
            trigger=trigger,
            overwrite=overwrite,
            stop=stop,
            progress=lambda done, total, path, caption: say(f"{done} of {total}  {Path(path).name}: {caption}"),
            mode=cast(Any, mode or None),
            settings=settings,
            download=download,
            download_progress=say_download(),
        )
    for problem in report.unreadable:
        say(problem)
    for file, guess in report.unsure.items():
        say(f"{file}: unsure: {guess}")
    changed = f" ({report.triggered} with {trigger!r} put in front)" if report.triggered else ""
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
