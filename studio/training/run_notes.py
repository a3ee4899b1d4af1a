"""What a person wrote about a run, and its settings as a file."""

from pathlib import Path

from studio.errors import RunError
from studio.training.trash import check_run
from studio.workspace import Workspace, atomic_write

NOTE, LONGEST = "note.txt", 4000  # characters


def note_of(workspace: Workspace, name: str) -> str:
    """What a person wrote about the run, "" for nothing."""
    try:
        return (workspace.runs / name / NOTE).read_text("utf-8", errors="replace")[:LONGEST]
    except OSError:
        return ""


def write_note(workspace: Workspace, name: str, text: str) -> None:
    """Raises RunError when it is too long or there is no such run."""
    check_run(workspace, name)
    text = text.strip()
    if len(text) > LONGEST:
        raise RunError(f"A note holds {LONGEST:,} characters and this one has {len(text):,}: shorten it.")
    if text:
        atomic_write(workspace.runs / name / NOTE, text)
    else:
        (workspace.runs / name / NOTE).unlink(missing_ok=True)


def settings_file(workspace: Workspace, name: str, folder: Path) -> Path:
    """A copy of the run's run.toml in `folder`, under the run's name. Raises RunError."""
    check_run(workspace, name)
    target = folder / f"{name}.toml"
    atomic_write(target, (workspace.runs / name / "run.toml").read_bytes(), lasting=False)
    return target
