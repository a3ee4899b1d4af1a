"""The command line: the studio's services without a page. `python -m studio --help` lists the commands.

Progress goes to stderr, results to stdout. Exit codes: 0 done, 2 the user's input (one line on stderr), 130
interrupted; anything unexpected keeps its traceback and exits 1. Heavy imports stay inside the commands, so that
--help is quick.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import __version__
from studio.cli.adapters import adapter_commands, named_adapter
from studio.cli.base_models import base_commands
from studio.cli.captioning import caption_commands
from studio.cli.terminal import DONE, INTERRUPTED, USER, change, say, stop_on_signals
from studio.errors import ConfigError, DatasetError, GenerationError, RunError, user_message
from studio.server.settings import Parser
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.training.config import RunConfig

EVERY = 2.0  # seconds between two lines about steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Unexpected errors are raised."""
    try:
        given = _parser().parse_args(arguments)
        return given.command(given)
    except KeyboardInterrupt:
        say("Interrupted.")
        return INTERRUPTED
    except Exception as error:
        line = user_message(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return USER


def _parser() -> Parser:
    parser = Parser(prog="python -m studio", description="LoRA Studio on the command line.")
    parser.add_argument("--version", action="version", version=f"LoRA Studio {__version__}")
    parser.add_argument("--workspace", metavar="DIR", help="where datasets, runs and pictures are kept")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command_name")

    def add(name: str, command, about: str) -> Parser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.add_argument("--workspace", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        sub.set_defaults(command=command)
        return sub

    sub = add("train", train_command, "Train a LoRA on a folder of pictures.")
    sub.add_argument("run", nargs="?", metavar="RUN.toml", help="a run's settings, as a run folder keeps them")
    sub.add_argument("--data", metavar="FOLDER", help="the folder of pictures and captions")
    sub.add_argument("--base", metavar="NAME", help="the base model (starter)")
    sub.add_argument("--name", metavar="N", help="the run's name (the folder's name)")
    sub.add_argument(
        "--set", metavar="section.key=value", action="append", default=[], dest="changes", help="change one setting"
    )
    sub.add_argument("--preset", metavar="NAME", help="begin from a preset, like 'SD 1.5, style'")
    sub.add_argument(
        "--resume",
        metavar="RUN_FOLDER",
        help="go on with a run; past its end with --set training.steps=N",
    )
    sub.add_argument("--check", action="store_true", help="say what will hurt and how long it takes, then stop")
    sub.add_argument("--settings", action="store_true", help="list every setting with its default, then stop")

    sub = add("generate", generate_command, "Make a picture.")
    sub.add_argument("--prompt", metavar="T", required=True, help="what the picture should show")
    sub.add_argument("--negative-prompt", metavar="T", help="what the picture should not show")
    sub.add_argument("--base", metavar="NAME", help="the base model (starter)")
    sub.add_argument(
        "--adapter",
        metavar="FILE[:STRENGTH]",
        action="append",
        default=[],
        dest="adapters",
        help="a .safetensors file or a finished run's name; strength 1 if not given; may be repeated",
    )
    sub.add_argument("--seed", metavar="N", type=int, help="the same one makes the same picture (0)")
    sub.add_argument("--steps", metavar="N", type=int, help="denoising steps (20)")
    sub.add_argument("--guidance", metavar="X", type=float, help="how closely the prompt is followed (4)")
    sub.add_argument("--size", metavar="WxH", help="in pixels, like 512x512 (what the base was trained at)")
    sub.add_argument("--out", metavar="F.png", help="the file to write (a new one in the workspace's outputs)")

    base_commands(add)
    caption_commands(add)
    adapter_commands(add)

    sub = add("doctor", doctor_command, "Say what this machine has and what works on it.")
    sub.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


# train


def train_command(given: argparse.Namespace) -> int:
    """Train and print a line at each preview, checkpoint and validation, and every two seconds for the steps.

    Ctrl-C lets the run write its checkpoint and stops it; a second Ctrl-C breaks off at once.
    """
    if given.settings:
        return _print_settings()
    if sum(map(bool, (given.run, given.data, given.resume))) != 1:
        raise ConfigError("Say what to train on: --data FOLDER, or a RUN.toml, or --resume RUN_FOLDER.")
    from studio.training import new_run, read_run_folder, train
    from studio.training.processes import Processes

    workspace, processes = Workspace.open(given.workspace), Processes()
    if given.resume:
        folder = Path(given.resume).expanduser().resolve()
        config = _resumed(given, folder)
    else:
        config = _config(given)
        if given.check:
            return _check(config, workspace)
        # Under `accelerate launch` the first process makes the folder and tells the others.
        folder = Path(processes.agree(str(new_run(config, workspace)) if processes.first else ""))
    with stop_on_signals() as stop:
        last = ""
        for kind, line in _lines(train(config, workspace, stop=stop, folder=folder), folder):
            say(line)
            last = kind
    adapter = read_run_folder(folder).adapter
    if adapter and processes.first:  # two that print at once write into each other's line
        print(adapter)
    return INTERRUPTED if last == "Stopped" else DONE


def _print_settings() -> int:
    """Every setting of a run, its default and what it does."""
    from studio.schema import settings_of
    from studio.training.config import RunConfig

    for name, default, description in settings_of(RunConfig):
        print(f"{name:34}{default:12}{description}")
    return DONE


def _resumed(given: argparse.Namespace, folder: Path) -> "RunConfig":
    """The settings of the run to go on with, given more steps where that is asked."""
    from studio.training import extend_run, read_run_folder
    from studio.training.config import config_from_toml

    if not (folder / "run.toml").is_file():
        raise RunError(f"{folder} is not a run folder: it has no run.toml.")
    changes = dict(map(_change, given.changes))
    steps = changes.pop("training.steps", None)
    if changes or given.name or given.base or given.preset or given.check:
        raise ConfigError("--resume goes on with the run's own settings: only --set training.steps=N may be added.")
    view = read_run_folder(folder)
    if view.state == "running":
        raise RunError(f"{view.name} is running now: stop it first, or wait for its end.")
    if steps:
        if not str(steps).isdigit():
            raise ConfigError(f"training.steps: must be a whole number (you gave {steps!r}).")
        return extend_run(folder, int(steps))
    if view.state == "finished":
        raise RunError(f"{view.name} is finished: give it more steps with --set training.steps=N.")
    return config_from_toml(folder / "run.toml")


def _check(config: "RunConfig", workspace: Workspace) -> int:
    """Print a preflight's report; exit 2 when the run would fail."""
    from studio.training.preflight import as_text, preflight

    report = preflight(config, workspace)
    print(as_text(report))
    return DONE if report.ready else USER


def _config(given: argparse.Namespace) -> "RunConfig":
    """The run's settings: RUN.toml or --data, then --base, --name and every --set on top."""
    from studio.training.config import config_from, config_from_toml, dotted

    values: dict[str, Any] = {}
    if given.run:
        path = Path(given.run)
        if not path.is_file():
            raise ConfigError(f"There is no file {path}: give a RUN.toml, or --data FOLDER.")
        values = dotted(config_from_toml(path))
    else:
        folder = Path(given.data).expanduser().resolve()
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {given.data}: give a folder of pictures.")
        values = {"data.folder": str(folder), "name": folder.name}
    if given.preset:
        from studio.training.presets import preset

        values = preset(given.preset) | values
    values |= {key: value for key, value in (("base", given.base), ("name", given.name)) if value}
    return config_from(values | dict(map(_change, given.changes)))


def _change(text: str) -> tuple[str, Any]:
    """("section.key", value) of a --set; a value in brackets is a TOML list, anything else stays text."""
    key, value = change(text, "training.steps=400")
    if not value.startswith("["):
        return key, value
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{key}: not a list; write it like ["one", "two"] (you gave {value[:60]!r}).') from error


def _lines(events: Iterable, folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, line) for the events worth a line; what it says is read from the run folder, as the page reads it."""
    from studio.training import read_run_folder

    due = 0.0
    for event in events:
        kind = type(event).__name__
        if kind == "Failed":  # the error itself comes next, and is told once
            continue
        if kind in ("Step", "Preparing"):
            if time.monotonic() < due:
                continue
            due = time.monotonic() + EVERY
        yield kind, _line(kind, read_run_folder(folder), folder)


def _line(kind: str, view, folder: Path) -> str:
    at = f"step {view.step} of {view.steps}"
    if kind == "Preparing" and view.preparing:
        return f"{view.preparing[0]} of {view.preparing[1]} pictures and captions encoded"
    if kind == "Started":
        return f"{view.name}: {view.steps} steps, in {folder}"
    if kind == "Step" and view.losses:
        speed = f"  {view.rate:.2f} steps/s" if view.rate else ""
        left = f"  {_duration(view.seconds_left)} left" if view.seconds_left else ""
        return f"{at}  loss {view.losses[-1][2]:.4f}{speed}{left}"
    if kind == "Validation" and view.validation:
        _, held, base = view.validation[-1]
        against = f", {100 * (held / base - 1):+.1f} % against the base" if base else ""
        return f"{at}  held-out loss {held:.4f}{against}"
    if kind == "Preview" and view.previews:
        return f"{at}  preview {view.previews[-1][2]}"
    if kind == "Checkpoint":
        return f"{at}  checkpoint saved"
    if kind == "Finished":
        return f"{at}  {view.message}"
    if kind == "Stopped":
        return f"{view.message} The checkpoint is in {folder}."
    if kind == "Certified" and view.certificate:
        return f"{at}  {view.certificate.message}"
    if kind in ("Warned", "RolledBack") and view.message:
        return f"{at}  {view.message}"
    return f"{at}  {kind.lower()}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# generate


def generate_command(given: argparse.Namespace) -> int:
    """Make one picture, with its recipe inside, and print its path."""
    workspace = Workspace.open(given.workspace)
    width, height = _size(given.size) if given.size else _own_size(given.base or "starter")
    values = {
        "prompt": given.prompt,
        "negative_prompt": given.negative_prompt,
        "seed": given.seed,
        "steps": given.steps,
        "guidance": given.guidance,
        "width": width,
        "height": height,
        "base": given.base,
        "adapters": tuple(named_adapter(text, workspace) for text in given.adapters),
    }
    out = _out(given.out) if given.out else None
    from studio.generation import Recipe, generate, save_image

    recipe = Recipe(**{key: value for key, value in values.items() if value is not None})
    picture = generate(recipe, progress=lambda step, total: say(f"step {step} of {total}"))
    if out is None:
        path = save_image(picture, recipe, workspace.outputs)
    else:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".studio-") as folder:
            path = save_image(picture, recipe, Path(folder)).replace(out)
    print(path)
    return DONE


def _own_size(base: str) -> tuple[int, int]:
    from studio.basemodels.card import describe_base

    side = describe_base(base).resolution
    return side, side


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not all(side.isascii() and side.isdigit() for side in (width, height)):
        raise GenerationError(f"--size needs WxH in pixels, like 128x128 (you gave {text!r}).")
    return int(width), int(height)


def _out(text: str) -> Path:
    """The place for the picture, found wanting before minutes are spent on it."""
    path = Path(text).expanduser()
    if path.suffix.lower() != ".png":
        raise GenerationError(f"--out must end in .png, because the recipe is kept inside (you gave {text!r}).")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise GenerationError(f"Can't write {text}: choose a file in a folder that exists and can be written.")
    return path


# doctor


def doctor_command(given: argparse.Namespace) -> int:
    """Print what studio.services.diagnostics found."""
    from studio.services.diagnostics import examine, report

    found = examine(given.workspace)
    print(json.dumps(found, indent=2) if given.json else report(found))
    return DONE
