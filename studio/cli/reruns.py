"""The command reproduce: train a run again from its file, and say whether it is the same."""

from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.terminal import DONE, INTERRUPTED, USER, WorkspaceOption, change, opened, say, stop_on_signals
from studio.cli.training import course
from studio.errors import ConfigError, DatasetError
from studio.workspace import free_path, safe_name

PARTED = 3  # exit code


def reproduce(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What export-rerun wrote.")],
    data: Annotated[str, typer.Option(metavar="FOLDER", help="The folder of images and captions.")] = "",
    base: Annotated[str, typer.Option(metavar="NAME", help="The base model, where it lies elsewhere here.")] = "",
    name: Annotated[str, typer.Option(metavar="N", help="The new run's name (the old one's, with -again).")] = "",
    places: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="section.key=PLACE", help="Where another folder or file of the run lies here."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what differs beforehand, then stop.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Train although the losses can't be the same.")] = False,
    workspace: WorkspaceOption = "",
) -> int:
    """Train a run again from its file and compare every loss, score and weight with what it wrote down.

    Further folders of the run are looked for beside FOLDER by their names. The answer is the last line; the exit code
    is 0 where all is the same, 3 where it parts.
    """
    from studio.services.reruns import new_rerun
    from studio.training import train
    from studio.training.rerun import read
    from studio.training.rerun_check import check
    from studio.training.rerun_compare import compare

    space, source = opened(context, workspace), Path(file).expanduser()
    if not source.is_file():
        raise ConfigError(f"There is no file {file}: give one that export-rerun wrote.")
    record = read(source)
    config = _config(record, data, base, places or [])
    wanted = safe_name(name or f"{record.name[:60]}-again")
    config = config.model_copy(update={"name": free_path(space.runs, wanted).name})
    found = check(record, config, space)
    for one in found:
        say(one.sentence)
    if not found:
        say("Images, captions, base, versions and device are those of the run.")
    if dry_run:
        return USER if any(one.decides for one in found) else DONE
    folder = new_rerun(space, record, config, anyway)
    with stop_on_signals() as stop:
        last = ""
        for kind, line in course(train(config, space, stop=stop, folder=folder), folder):
            say(line)
            last = kind
    compared = compare(folder)
    assert compared is not None
    print(compared.sentence)
    if last == "Stopped" and stop.is_set():
        return INTERRUPTED
    return DONE if compared.is_same else PARTED


def _config(record: Any, data: str, base: str, changes: list[str]) -> Any:
    """The record's settings with the places that they have here. Raises StudioError."""
    from studio.training.config import config_from_whole
    from studio.training.folders import renamed
    from studio.training.length import with_steps
    from studio.training.rerun import FILES, PLACES

    values = dict(record.settings)
    if data:
        folder = Path(data).expanduser().resolve()
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {data}: give the run's images.")
        given = str(values.get("data.folder", ""))
        beside = {key: str(folder.parent / str(values[key])) for key in PLACES[1:] if values.get(key)}
        lines = values.get("data.folders") or []
        values["data.folders"] = [
            renamed(str(line), lambda one: str(folder if one == given else folder.parent / one)) for line in lines
        ]
        values |= beside | {"data.folder": str(folder)}
    elif values.get("data.folder"):
        raise ConfigError(f"Say where the run's images are: --data FOLDER, that of {values['data.folder']}.")
    for text in changes:
        key, place = change(text, "data.held_out=FOLDER")
        if key not in (*PLACES, *FILES):
            raise ConfigError(
                f"{key}: is no place of a run; the others decide its losses. Those are {', '.join(PLACES)}."
            )
        values[key] = str(Path(place).expanduser().resolve())
    return with_steps(config_from_whole(values | ({"base": base} if base else {})))
