"""The command plan: the settings of a run by a few real steps, each with its reason."""

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.terminal import DONE, INTERRUPTED, WorkspaceOption, change, opened, say, stop_on_signals
from studio.errors import ConfigError, DatasetError


def plan(
    context: typer.Context,
    data: Annotated[str, typer.Option(metavar="FOLDER", help="The folder of images and captions.")] = "",
    base: Annotated[str, typer.Option(metavar="NAME", help="The base model.")] = "starter",
    preset: Annotated[str, typer.Option(metavar="NAME", help="What is learned, like 'style' or 'character'.")] = "",
    minutes: Annotated[float | None, typer.Option(metavar="N", help="Minutes that the run may take.", min=0.01)] = None,
    memory: Annotated[float | None, typer.Option(metavar="GB", help="Memory that it may take.", min=0.01)] = None,
    until_right: Annotated[bool, typer.Option("--until-right", help="End by the verdict of its scorecards.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="A setting that stays as given.")
    ] = None,
    write: Annotated[str, typer.Option(metavar="RUN.toml", help="Write the settings, for train RUN.toml.")] = "",
    workspace: WorkspaceOption = "",
) -> int:
    """Plan a run: a few real steps say what fits, which learning rate, how many steps and how long. Starts nothing."""
    from studio.training.config import config_from, config_to_toml, dotted, resolved
    from studio.training.defaults import config_for
    from studio.training.length import with_steps
    from studio.training.planner.plan import Wish, plan_for
    from studio.training.planner.probes import measure
    from studio.training.presets import preset as settings_of_preset

    folder = Path(data).expanduser().resolve()
    if not data or not folder.is_dir():
        raise DatasetError(f"There is no folder {data}: give a folder of images." if data else "Say --data FOLDER.")
    own = resolved(dict(change(text, "training.batch_size=2") for text in changes or ()), say)
    if own.keys() & {"name", "base", "data.folder"}:
        raise ConfigError("--set is for settings: give --data and --base for the others.")
    values = (settings_of_preset(preset, base) if preset else {}) | own
    config = with_steps(config_for(values | {"name": folder.name, "base": base, "data.folder": str(folder)}))
    wish = Wish(minutes, memory, until_right, frozenset(own))
    last = ""
    with stop_on_signals() as stop:
        probing = measure(config, wish, opened(context, workspace), stop)
        while True:
            try:
                _, _, what = next(probing)
            except StopIteration as end:
                found = end.value
                break
            if what != last:
                say(what)
                last = what
    if found is None:
        return INTERRUPTED
    planned = plan_for(config, wish, found)
    for row in planned.rows:
        value = str(row.value).lower() if isinstance(row.value, bool) else row.value
        print(f"{row.setting} = {value}\n    {row.reason}")
    print("\n".join([planned.sentence, *planned.notes]))
    if write:
        Path(write).write_text(config_to_toml(config_from(dotted(config) | planned.settings)), encoding="utf-8")
    return DONE
