"""A command for every operation of `studio.services`: `python -m studio list-runs`, made from its own definition.

Values are typed as text; lists and tables as JSON. What is answered is printed as JSON. A job is waited for, with its
progress on stderr; Ctrl-C stops it.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.terminal import DONE, WorkspaceOption, finished, flags_of, opened, with_flags
from studio.errors import ConfigError
from studio.services.jobs import jobs
from studio.services.operations import Operation, all_operations

# Operations without a command of their own name, and why.
WITHOUT = {
    "generate": "the command generate takes files of this machine as well",
    "doctor": "the command doctor",
    "inspect_adapter": "the command inspect takes files of this machine as well",
    "convert_adapter": "the command convert takes the file to write",
    "resize_adapter": "the command resize takes the file to write",
    "merge_adapters": "the command merge takes the file to write",
    "merge_into_checkpoint": "the command merge-checkpoint takes files of this machine",
    "extract_lora": "the command extract takes files of this machine",
    "start_training": "the command train, which shows the run",
    "check_rerun": "reproduce --dry-run",
    "reproduce_run": "the command reproduce, which shows the run",
    "plan_training": "the command plan takes folders of this machine",
    "planned_training": "the command plan prints it",
    "uncooked": "uncook-adapter prints its sentence",
    "check_settings": "train --dry-run",
    "check_report": "train --dry-run prints it",
    "stop_training": "Ctrl-C, in the terminal where it runs",
    "pause_training": "Ctrl-C and train --resume",
    "save_now": "it asks the run of an open studio",
    "sample_now": "it asks the run of an open studio",
    "resume_training": "train --resume",
    "extend_training": "train --resume RUN --steps N",
    "stop_captioning": "Ctrl-C, in the terminal where it runs",
    "stop_masks": "Ctrl-C, in the terminal where it runs",
    "job_status": "jobs belong to the process that started them",
    "start_queue": "the queue is worked off by an open studio",
    "pause_queue": "the queue is worked off by an open studio",
    "publish_result": "publish-run prints it",
    "mend_dataset": "it mends findings of a check, which an open studio keeps",
}


def commands() -> Iterator[tuple[str, Callable[..., int]]]:
    """(name, function for typer) of each."""
    for operation in all_operations().values():
        if operation.name not in WITHOUT:
            yield operation.name.replace("_", "-"), _command(operation)


def _command(operation: Operation) -> Callable[..., int]:
    def run(context: typer.Context, workspace: WorkspaceOption = "", **given: Any) -> int:
        space = opened(context, workspace)
        result = operation(space, **{name: _typed(operation, name, text) for name, text in given.items() if text})
        print(json.dumps(_answer(operation, space, result), indent=2, ensure_ascii=False))
        return DONE

    run.__doc__ = operation.summary.split("\n\n")[0]
    run.__name__ = operation.name
    return with_flags(run, _required_first(operation))


def _required_first(operation: Operation) -> list[inspect.Parameter]:
    """What has no default stands behind the command, in order; the rest are flags."""
    made = []
    for parameter, (name, field) in zip(flags_of(operation.model, {}), operation.fields.items()):
        if field.is_required():
            help_text = field.description or ""
            many = name == operation.upload
            option = typer.Argument(metavar=name.upper() + ("..." if many else ""), help=help_text)
            parameter = parameter.replace(
                annotation=Annotated[list[str] if many else str, option], default=inspect.Parameter.empty
            )
        made.append(parameter)
    return sorted(made, key=lambda one: one.default is not inspect.Parameter.empty)


def _typed(operation: Operation, name: str, text: Any) -> Any:
    """A flag's text as the operation takes it: a file, JSON, or a number where one is wanted."""
    if name == operation.upload:
        return [Path(one) for one in text] if isinstance(text, list) else Path(text)
    if isinstance(text, list):
        if len(text) > 1:  # the flag was repeated
            return text
        text = text[0]
    kind = operation.fields[name].annotation
    if kind is str:
        return text
    try:
        return json.loads(text)
    except ValueError:
        if text[:1] in "[{":
            raise ConfigError(f"{name}: is not JSON (you gave {text[:60]!r}).") from None
        return text


def _answer(operation: Operation, workspace: Any, result: Any) -> Any:
    for job in jobs.running():  # what a command began ends with it
        if job is not result:
            finished(job)
    if hasattr(result, "as_answer"):  # a job
        found = finished(result)
        if operation.waits:
            return str(found) if operation.file else operation.answered(workspace, found)
        return result.as_answer()
    if operation.file:
        return str(result) if isinstance(result, Path) else [str(one) for one in result]
    return operation.answered(workspace, result)
