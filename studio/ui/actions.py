"""What a person can do, as plain functions: the tabs and the named endpoints both call these, nothing else.

What is about runs stands in actions_runs.py. Everything from the browser is a name inside the workspace, never a
path. Mistakes raise a StudioError.
"""

import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

from studio.errors import AdapterError, DatasetError, GenerationError, WorkspaceError
from studio.workspace import Workspace, free_path, safe_name, write_whole


class Latest(NamedTuple):
    """The newest job of a kind, and the dataset or run that it is about."""

    job: Any
    name: str


latest: dict[str, Latest] = {}  # by kind, so that a tab opened later sees how a job ended


# Datasets -----------------------------------------------------------------------------------------------------------


def list_datasets(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, name) of the person's datasets and of the samples not copied yet."""
    from studio.datasets import list_samples

    own = sorted(path.name for path in workspace.datasets.iterdir() if path.is_dir() and path.name[0] != ".")
    return [(name, name) for name in own] + [(f"{n} (sample)", n) for n in list_samples() if n not in own]


def open_named(workspace: Workspace, name: str):
    """The dataset `name`; a sample is copied into the workspace first, so that the original is never edited."""
    from studio.datasets import copy_sample, list_samples, open_dataset

    name = known(name, "dataset")
    if (workspace.datasets / name).is_dir():
        return open_dataset(workspace.datasets / name)
    if name in list_samples():
        return copy_sample(workspace, name)
    raise DatasetError(f"There is no dataset called {name!r}: choose one from the list.")


def import_files(workspace: Workspace, name: str, paths: list):
    """Pictures and zips into the dataset `name`, made if missing. The lines say what was skipped."""
    from studio.datasets import import_pictures

    if not paths:
        raise DatasetError("There are no files to add: drop pictures or a zip first.")
    return import_pictures(workspace, safe_name(name or "my-pictures"), [Path(path) for path in paths])


def item_name(dataset, item) -> str:
    return item.path.relative_to(dataset.folder).as_posix()


def find_item(dataset, file: str):
    """The item called `file`; compared with what is there, never joined to a path."""
    for item in dataset.items:
        if item_name(dataset, item) == file:
            return item
    raise DatasetError(f"There is no picture called {file!r} in {dataset.name}: open the dataset again.")


def save_caption(workspace: Workspace, dataset: str, file: str, caption: str) -> str:
    """Write the caption beside the picture; returns it as it stands now (one line)."""
    from studio.datasets import set_caption

    item = find_item(open_named(workspace, dataset), file)
    text = " ".join(caption.split())
    if text != item.caption:
        set_caption(item.path, text)
    return text


def start_captioning(workspace: Workspace, dataset: str, trigger: str = "", overwrite: bool = False):
    """A background job that writes captions; its message says what it did and what it skipped."""
    from studio.jobs import jobs

    pictures = open_named(workspace, dataset)

    def work(job) -> None:
        from studio.captioning import caption_dataset

        def progress(done: int, total: int, path: Path, caption: str) -> None:
            job.done, job.total, job.message = done, total, f"{Path(path).name}: {caption}"

        job.total, job.message = len(pictures.items), "Loading the captioner"
        report = caption_dataset(
            pictures, trigger=trigger.strip(), overwrite=overwrite, stop=job.stop_event, progress=progress
        )
        lines = [f"{pictures.name}: {report.written} captions written" + (", then stopped." if report.stopped else ".")]
        if report.kept:
            changed = f", {report.triggered} with {trigger.strip()!r} put in front" if report.triggered else ""
            lines.append(f"{report.kept} kept{changed}.")
        job.message = "\n".join([" ".join(lines), *(f"Skipped {line}" for line in report.unreadable)])

    job = jobs.start("caption", f"Captioning {pictures.name}", work)
    remember(job, pictures.name)
    return job


# Jobs ---------------------------------------------------------------------------------------------------------------


def remember(job, name: str) -> None:
    """`job` is the newest of its kind, about the dataset or run `name`."""
    latest.pop(job.kind, None)  # so that the newest of all stands last
    latest[job.kind] = Latest(job, name)


def stop_job(kind: str) -> bool:
    """Ask the running job of this kind to stop; False when none runs. The job ends after its current step."""
    job = running(kind)
    if job:
        job.stop()
    return job is not None


def running(kind: str | None = None):
    """The job that runs now, of `kind` if given, else None."""
    from studio.jobs import jobs

    job = jobs.current
    return job if job and job.state == "running" and kind in (None, job.kind) else None


# Adapters and pictures ----------------------------------------------------------------------------------------------


def list_adapters(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what can be put on a picture: `run:NAME` for runs, `file:NAME` for dropped files."""
    from studio.training import list_runs

    runs = [name for name in list_runs(workspace) if (workspace.runs / name / "adapter.safetensors").is_file()]
    files = sorted(path.name for path in workspace.adapters.glob("*.safetensors"))
    return [(name, f"run:{name}") for name in runs] + [(f"{Path(f).stem} (file)", f"file:{f}") for f in files]


def adapter_path(workspace: Workspace, key: str) -> Path:
    """The file behind `run:NAME` or `file:NAME`. Raises AdapterError when it isn't in the workspace."""
    from studio.training import list_runs, read_run

    kind, _, name = str(key).partition(":")
    name = known(name, "adapter")
    if kind == "run" and name in list_runs(workspace):
        path = read_run(workspace, name).adapter
        if path and Path(path).is_file():
            return Path(path)
        raise AdapterError(f"The run {name!r} has no adapter yet: wait until it has finished.")
    path = workspace.adapters / name
    if kind == "file" and path.suffix == ".safetensors" and path.is_file():
        return path
    raise AdapterError(f"There is no adapter called {name!r}: choose one from the list or drop its file.")


def add_adapter_file(workspace: Workspace, path: Path) -> str:
    """Check a dropped file and copy it into the workspace; returns its key. The same bytes are kept once."""
    from studio.adapters import read_adapter

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterError(f"{path.name} is not a .safetensors file: drop the adapter's .safetensors file.")
    read_adapter(path).refuse_if_damaged()
    name = safe_name(path.stem) + ".safetensors"
    data = path.read_bytes()
    target = workspace.adapters / name
    if not (target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data):
        target = free_path(workspace.adapters, name)
        write_whole(target, data)
    return f"file:{target.name}"


def make_recipe(workspace: Workspace, adapters: list[tuple[str, float]], **fields):
    """A Recipe from what was typed; `adapters` as (key, strength). Empty fields fall back to Recipe's defaults."""
    from studio.generation import Recipe

    pairs = []
    for key, strength in adapters:
        try:
            pairs.append((adapter_path(workspace, key), float(strength)))
        except (TypeError, ValueError):
            raise GenerationError(f"The strength of {key.partition(':')[2]!r} must be a number.") from None
    given = {name: value for name, value in fields.items() if value is not None}
    return Recipe(adapters=tuple(pairs), **given)


def draw(recipe, stop: threading.Event | None = None, progress=None):
    """One picture (PIL.Image), taking turns with training for the device. None when stopped."""
    from studio.generation import generate
    from studio.jobs import jobs

    with jobs.device():
        try:
            return None if stop is not None and stop.is_set() else generate(recipe, stop=stop, progress=progress)
        except GenerationError:
            if stop is not None and stop.is_set():
                return None  # asked for, so nothing to complain of
            raise


def recipe_line(recipe) -> str:
    """What made the picture, in one line that a person can read back."""
    parts = [f"seed {recipe.seed}", f"{recipe.steps} steps", f"guidance {recipe.guidance:g}"]
    parts.append(f"{recipe.width} × {recipe.height}")
    for adapter, strength in recipe.adapters:
        path = Path(str(adapter))
        parts.append(f"{path.parent.name if path.stem == 'adapter' else path.stem} at {strength:g}")
    prompt = re.sub(r"\s+", " ", recipe.prompt).strip()
    return f"{prompt if len(prompt) <= 90 else prompt[:89] + '…'} · " + " · ".join(parts)


def known(name: str, what: str) -> str:
    """`name` if it is a plain name of the workspace's own making, else WorkspaceError."""
    if not name or not isinstance(name, str):
        raise WorkspaceError(f"Choose {'an' if what[0] in 'aeiou' else 'a'} {what} first.")
    if name in (".", "..") or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise WorkspaceError(f"{name[:40]!r} is not the name of {'an' if what[0] in 'aeiou' else 'a'} {what}.")
    return name
