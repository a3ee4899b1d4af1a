"""What a person does with many runs: find, sort, compare, note, delete, restore. Names only, never paths."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.errors import RunError, StudioError
from studio.services import run_queue
from studio.services.jobs import running
from studio.services.operations import operation
from studio.services.parameters import List, RunName
from studio.services.runs import QUEUED, current_run, list_run_names
from studio.services.thumbnails import folder as thumbnails_folder
from studio.services.thumbnails import thumbnail
from studio.training import run_notes, trash
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.training.summary import Summary


STATES = ("running", "paused", "queued", "finished", "stopped", "interrupted", "failed")
SORTS = {
    "Newest first": lambda run: -run.changed,
    "Oldest first": lambda run: run.changed,
    "Best against the base": lambda run: (run.against_base is None, run.against_base or 0.0),
    "Name": lambda run: run.name.lower(),
    "Largest": lambda run: -run.size,
    "Most steps": lambda run: -run.step,
}
COMPARED = 8  # runs at once, a colour each
TIMELINE = 60  # steps of all timelines together; more are thinned


@dataclass(frozen=True)
class Row:
    """A run of the list. image: a file that the browser may see, or None."""

    run: Any  # Summary, its state as it is now
    note: str
    image: Path | None


def all_runs(workspace: Workspace, text: str = "", state: str = "", sort: str = "") -> tuple[list[Any], int, int]:
    """(the runs that fit, in order; how many there are in all; how many are not read yet)."""
    from studio.services.run_order import waiting
    from studio.training.summary import summaries

    names = list_run_names(workspace)
    found, left = summaries(workspace, names)
    line = waiting(workspace)
    found = [_as_it_is_now(run, line) for run in found]
    words = (text or "").lower().split()
    if state in STATES:
        found = [run for run in found if run.state == state]
    if words:
        found = [run for run in found if _says(workspace, run, words)]
    return sorted(found, key=SORTS.get(str(sort), SORTS["Newest first"])), len(names), left


def _says(workspace: Workspace, run: "Summary", words: list[str]) -> bool:
    """Whether every word, in small letters, stands in what is said of the run or noted beside it."""
    known = f"{run.name} {run.base} {run.dataset} {run.verdict} {run_notes.note_of(workspace, run.name)}".lower()
    return all(word in known for word in words)


def _as_it_is_now(run: "Summary", line: list[str]) -> "Summary":
    """A Summary knows what the folder says; who holds the device and who waits is known here."""
    if run.name == current_run():
        job = running("train")
        return replace(run, state="paused" if job and job.paused else "running")
    return replace(run, state=QUEUED) if run.name in line else run


def rows(workspace: Workspace, runs: list[Any]) -> list[Row]:
    """The runs with their notes and images."""
    made = []
    for run in runs:
        file = workspace.runs / run.name / run.preview if run.preview else None
        image = thumbnail(workspace, file) if file and file.is_file() else None
        made.append(Row(run, run_notes.note_of(workspace, run.name), image))
    return made


def list_stamp(workspace: Workspace) -> tuple[Any, ...]:
    """Changes when a list of all runs may look otherwise; a run that goes on moves it a hundred times."""
    job = running("train")
    part = (id(job), job.paused, 100 * job.done // max(1, job.total)) if job else None
    trashed = 0
    with suppress(OSError):
        trashed = (workspace.root / trash.TRASH).stat().st_mtime_ns
    return tuple(list_run_names(workspace)), part, run_queue.queue_stamp(workspace), trashed


# Comparing ----------------------------------------------------------------------------------------------------------


@operation()
def compare_runs(
    workspace: Workspace,
    runs: Annotated[List, Field(max_length=COMPARED, description='Names of runs, such as ["one", "two"].')],
) -> dict[str, Any]:
    """Where the settings of some runs differ, and the course of each: [step, loss] in training and held out."""
    names, lines = list(map(str, runs)), ("trained", "held_out", "base")
    return {
        "differences": dict(differences(workspace, names)),
        "losses": {name: {line: getattr(course, line) for line in lines} for name, course in courses(workspace, names)},
    }


def courses(workspace: Workspace, names: list[str]) -> list[tuple[str, Any]]:
    """(name, Course) of each run that can be read."""
    from studio.training.summary import course

    found = []
    for name in names[:COMPARED]:
        try:
            found.append((name, course(workspace, checked_name(name, "run"))))
        except (OSError, StudioError):
            continue
    return found


def differences(workspace: Workspace, names: list[str]) -> list[tuple[str, list[Any]]]:
    """(dotted setting, its value in each run) where they are not all the same; folders by their names."""
    from studio.training import config_from_toml
    from studio.training.config import dotted
    from studio.training.publishing import without_paths

    here = set(list_run_names(workspace))
    tables = [
        dotted(without_paths(config_from_toml(workspace.runs / name / "run.toml")))
        for name in names[:COMPARED]
        if name in here
    ]
    keys = [key for table in tables[:1] for key in table if key != "name"]
    return [(key, [t[key] for t in tables]) for key in keys if any(t[key] != tables[0][key] for t in tables[1:])]


def preview_file(workspace: Workspace, name: str, image: str) -> Path | None:
    """A preview of a run by its file's name, such as 000200-0; None where there is none."""
    if name not in list_run_names(workspace) or not re.fullmatch(r"\d{1,9}-\d{1,3}", image, re.ASCII):
        return None
    path = workspace.runs / name / "previews" / f"{image}.png"
    return path if path.is_file() else None


def preview_name(run: str, image: str) -> str:
    """What `preview_named` finds again."""
    return f"preview:{run}/{image}"


def preview_named(workspace: Workspace, name: str) -> Path | None:
    """The file of a preview by its `preview_name`; None for any other name."""
    run, _, image = name.removeprefix("preview:").rpartition("/")
    return preview_file(workspace, run, image) if name.startswith("preview:") else None


def timeline(workspace: Workspace, name: str, course: Any, shown: int = 1) -> list[tuple[str, list[tuple[int, Path]]]]:
    """(prompt, its images by step, as files that the browser may see) of a run. shown: how many timelines are."""
    from studio.training.summary import thin

    steps = set(thin(sorted({step for step, _, _ in course.previews}), TIMELINE // shown))
    folder, prompts = (workspace.runs / name).resolve(), dict[str, list[tuple[int, Path]]]()
    thumbnails_folder(workspace)
    for step, prompt, file in course.previews:
        path = (folder / file).resolve()
        if step in steps and path.is_relative_to(folder) and path.is_file():
            prompts.setdefault(prompt, []).append((step, thumbnail(workspace, path)))
    return list(prompts.items())


# Notes, files, the trash ----------------------------------------------------------------------------------------------


def note_of(workspace: Workspace, name: str) -> str:
    return run_notes.note_of(workspace, checked_name(name, "run"))


@operation()
def note_run(
    workspace: Workspace,
    run: RunName,
    note: Annotated[str, Field(max_length=20_000, description="The note; empty removes it.")] = "",
) -> str:
    """Keep a note beside a run; empty removes it. Answers the note."""
    run_notes.write_note(workspace, checked_name(run, "run"), note)
    return note_of(workspace, run)


def settings_file(workspace: Workspace, name: str) -> Path:
    """run.toml under the run's name, in a folder that the browser may read."""
    return run_notes.settings_file(workspace, checked_name(name, "run"), workspace.cache / "downloads")


def folder_of(workspace: Workspace, name: str) -> str:
    """Where the run lies on this machine. Raises NotAllowedError where that is nobody's business."""
    workspace.allows.need("folders")
    return str(workspace.runs / checked_name(name, "run"))


@operation()
def delete_run(workspace: Workspace, run: RunName) -> str:
    """Move a run into the trash. Answers the key that restore_run takes."""
    return move_to_trash(workspace, [run])[0]


def move_to_trash(workspace: Workspace, names: list[str]) -> list[str]:
    """Move runs to the trash; returns their keys there. A run in progress is refused, before any is moved."""
    from studio.services.run_order import dequeue

    if not names:
        raise RunError("Tick the runs that should go first.")
    if current_run() in names:
        raise RunError(f"{current_run()} is going on: stop it first, then delete it.")
    keys = []
    for name in names:
        keys.append(trash.move_to_trash(workspace, checked_name(name, "run")))
        dequeue(workspace, name)
    return keys


def trashed_runs(workspace: Workspace) -> list[Any]:
    return trash.list_trash(workspace)


@operation()
def restore_run(
    workspace: Workspace, key: Annotated[str, Field(max_length=300, description="As delete_run answered it.")]
) -> str:
    """Bring a run back from the trash. Answers its name."""
    return trash.restore(workspace, checked_name(key, "run"))


def empty_trash(workspace: Workspace) -> int:
    """Returns the bytes that are free now."""
    return trash.empty_trash(workspace)
