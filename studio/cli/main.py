"""The command line: the studio's services without a page. `python -m studio --help` lists the commands.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 2 the user's input (one line on stderr), 130
interrupted; anything unexpected keeps its traceback and exits 1. Heavy imports stay inside the commands, so that
--help is quick.
"""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Exit, TyperException

from studio import __version__
from studio.cli import (
    adapters,
    base_models,
    captioning,
    checkpoints,
    generation,
    operations,
    planning,
    reruns,
    training,
)
from studio.cli.terminal import DONE, INTERRUPTED, USER, WorkspaceOption, say, workspace_folder
from studio.errors import user_message

EVERYDAY, EVERYTHING = "Commands", "Commands on datasets, runs, images and adapters of the workspace"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Unexpected errors are raised."""
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        return make_app()(given, prog_name="python -m studio", standalone_mode=False) or DONE
    except Exit as asked:
        return asked.exit_code
    except KeyboardInterrupt:
        say("Interrupted.")
        return INTERRUPTED
    except TyperException as error:
        say(" ".join(f"{error.format_message()} (see python -m studio --help)".split()))
        return USER
    except Exception as error:
        line = user_message(error)
        if line is None:
            raise
        say(line)
        return USER


def make_app() -> typer.Typer:
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        callback=_before,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="LoRA Studio on the command line.",
    )
    app.command("train")(training.command())
    app.command("plan")(planning.plan)
    app.command("reproduce")(reruns.reproduce)
    app.command("generate")(generation.command())
    app.command("caption")(captioning.caption)
    app.command("inspect")(adapters.inspect)
    app.command("convert")(adapters.convert)
    app.command("resize")(adapters.resize)
    app.command("merge")(adapters.merge)
    app.command("extract")(checkpoints.extract)
    app.command("merge-checkpoint")(checkpoints.merge_checkpoint)
    app.command("base")(base_models.base)
    app.command("doctor")(doctor)
    for name, function in operations.commands():
        app.command(name)(function)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"LoRA Studio {__version__}")
        raise typer.Exit


def _before(
    context: typer.Context,
    workspace: Annotated[str, typer.Option("--workspace", metavar="DIR", help="Where everything is kept.")] = "",
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")] = False,
) -> None:
    context.obj = workspace


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    workspace: WorkspaceOption = "",
) -> int:
    """Say what this machine has and what works on it."""
    from studio.services.diagnostics import examine, report

    found = examine(workspace_folder(context, workspace))
    print(json.dumps(found, indent=2) if as_json else report(found))
    return DONE
