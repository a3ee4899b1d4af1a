"""Adapter files: inspect, convert, resize; and export of several as one.

Long work is a job beside training: it takes a turn of the device for each image, and stops between two layers.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.errors import AdapterError, GenerationError, StudioError
from studio.services import base_models
from studio.services.adapter_files import AdapterName, adapter_name, adapter_path, given_key
from studio.services.generation import RecipeFields, composed, draw
from studio.services.jobs import Job, jobs, remember, running
from studio.services.operations import Expanded, operation
from studio.services.parameters import BaseName, Layout, List, Rank
from studio.text import pluralize
from studio.workspace import Workspace, atomic_copy, free_path, safe_name

if TYPE_CHECKING:
    from studio.adapters import AdapterFile
    from studio.adapters.rewrite import Rewritten

INSPECT, MAKE = "inspect", "new adapter"  # kinds of jobs
PARTS = 1000  # of each of a job's stages, for progress
_KEPT = 8
AdapterTitle = Annotated[
    str, Field(max_length=120, description="Name of the new file; empty: from the adapters' names.")
]
_inspections: "OrderedDict[tuple[Any, ...], Any]" = OrderedDict()  # the newest examinations, by files and base
_lock = threading.Lock()  # around each change of them: visitors' jobs run side by side


@dataclass
class Inspection:
    """An adapter that is inspected. found: its Examination, None while that is not known."""

    key: str
    name: str
    base: str
    found: Any = None


@dataclass
class Made:
    """A file that is made of another one, or of the rows, as far as it is.

    key         of the new adapter, "" until it is written
    notes       what was lost, a sentence each
    checkpoint  the name of a base model that was made, instead of a key
    before, after  the same image with the old and with the new file, where the browser finds them
    difference  mean difference of the two, of 255
    """

    title: str
    key: str = ""
    notes: tuple[str, ...] = ()
    before: Path | None = None
    after: Path | None = None
    difference: float | None = None
    download: Path | None = None
    old_size: int = 0
    size: int = 0
    note: str = ""
    checkpoint: str = ""


# Inspecting ----------------------------------------------------------------------------------------------------------


def start_inspection(workspace: Workspace, key: str, base: str, beside: Sequence[str] = ()) -> Job:
    """Examine an adapter on the base and beside other adapters, in the background; the result is an `Inspection`."""
    from studio.adapters import read_adapter

    path = adapter_path(workspace, key)
    others = {adapter_name(one): adapter_path(workspace, one) for one in _files(beside) if one != key}

    def work(job: Job) -> None:
        from studio.adapters.examine import examine
        from studio.basemodels import load_base

        stamp = (base, *map(_stamp, (path, *others.values())))
        found = _inspections.get(stamp)
        if found is None:
            job.message = "Loading the base model"
            with jobs.device():  # loading changes what a training step would find
                modules = load_base(base).modules()
            file = replace(read_adapter(path), name=adapter_name(key))
            files = {name: read_adapter(other) for name, other in others.items()}
            with stopping(job):
                found = examine(file, modules, files, teller(job, "Layer"))
        if found is None:  # stopped
            return
        job.result.found = found
        with _lock:
            _inspections[stamp] = found
            _inspections.move_to_end(stamp)
            while len(_inspections) > _KEPT:
                _inspections.popitem(last=False)

    return start_making(INSPECT, f"Inspecting {adapter_name(key)}", work, Inspection(key, adapter_name(key), base), key)


def _files(keys: Sequence[str]) -> list[str]:
    """Those that are files: a run under way has none."""
    return [key for key in keys if isinstance(key, str) and key.startswith(("run:", "file:"))]


# Making another file --------------------------------------------------------------------------------------------------


@operation()
def inspect_adapter(
    workspace: Workspace,
    adapter: AdapterName,
    base: BaseName = "starter",
    compare: Annotated[
        List, Field(max_length=20, description="Other adapters, to measure how much they overlap.")
    ] = [],  # noqa: B006
    detail: Annotated[bool, Field(description="Also strength by block, overlap and advice: loads the base.")] = False,
    *,
    line: str = "",
) -> dict[str, Any]:
    """What is in an adapter: kind, rank, layers, family, trigger words, and how many layers fit the base.

    line: the base as the command line names it, instead of a name of the list.
    """
    from studio.adapters import describe, describe_text, read_adapter
    from studio.basemodels.skeleton import skeleton
    from studio.generation.adapter_info import read_adapter_info

    path = adapter_path(workspace, adapter)
    file = read_adapter(path)
    description = describe(file)
    if not base and not line:
        return {"details": description, "text": describe_text(description)}
    line = line or base_models.line_of(workspace, base)
    facts = read_adapter_info(path, skeleton(line))
    answer = asdict(facts) | {"line": facts.line, "details": description}
    if not detail and not compare:
        return answer | {"text": describe_text(description)}
    from studio.adapters.advice import advice, verdict
    from studio.adapters.examine import examine
    from studio.basemodels import load_base

    others = {}
    for one in compare:
        key = given_key(one)
        name = one.get("name") if isinstance(one, dict) else None
        others[str(name or adapter_name(key))] = read_adapter(adapter_path(workspace, key))
    with jobs.device():
        modules = load_base(line).modules()
    found = examine(file, modules, others)
    description = describe(file, spectrum=True)
    fit, where = found.fit, found.where
    moved = {block: where.of_block(block) for block in where.blocks} if where else {}
    energy = {block: cell.share for block, cell in moved.items() if cell.applied}
    description["fit"] = {"base": line, "matched": fit.matched, "total": fit.total, "unused": fit.unused}
    description |= {"energy": energy, "overlap": found.overlaps, "advice": advice(found)}
    lines = [describe_text(description), f"on {line}: {verdict(found)}"]
    lines += [f"  {block:<34} changes its weights by {100 * share:.2f} %" for block, share in energy.items()]
    return answer | {"details": description, "text": "\n".join([*lines, *description["advice"]])}


@operation()
def convert_adapter(
    workspace: Workspace,
    adapter: AdapterName,
    layout: Layout = "kohya",
    base: BaseName = "starter",
    *,
    line: str = "",
    recipe: Any = None,
    note: str = "",
    out: Path | None = None,
) -> Job:
    """Write the adapter in another program's layout, in the background; the base tells the names of its layers.

    recipe: of the image before and after, or None and why in `note`. On the command line, line: the base as it is named
    there, and out: the file to write.
    """
    line = line or base_models.line_of(workspace, base)

    def convert(job: Job, file: "AdapterFile") -> "Rewritten":
        from studio.adapters.rewrite import convert_file
        from studio.basemodels.skeleton import skeleton

        return convert_file(file, skeleton(line), layout)

    return _rewrite(workspace, adapter, "Converting", convert, layout, recipe, note, out)


@operation()
def resize_adapter(
    workspace: Workspace,
    adapter: AdapterName,
    rank: Rank = 8,
    *,
    recipe: Any = None,
    note: str = "",
    out: Path | None = None,
) -> Job:
    """Reduce an adapter to a smaller rank by SVD, in the background, and save it next to the original.

    recipe, note, out: as for convert_adapter.
    """

    def resize(job: Job, file: "AdapterFile") -> "Rewritten":
        from studio.adapters.rewrite import resize_file

        return resize_file(file, rank, teller(job, "Layer"))

    return _rewrite(workspace, adapter, "Resizing", resize, f"rank{rank}", recipe, note, out)


@operation()
def save_as_plain_lora(
    workspace: Workspace,
    adapter: AdapterName,
    rank: Rank = 32,
    layout: Layout = "kohya",
    base: BaseName = "starter",
) -> Job:
    """Write an adapter of any kind as a plain LoRA, for programs that read nothing else, in the background.

    A LoRA stays exact; of other kinds the best LoRA of this rank is taken, and what is lost is said.
    """
    path, line = adapter_path(workspace, adapter), base_models.line_of(workspace, base)

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.basemodels import load_base
        from studio.generation import AppliedAdapter
        from studio.generation.exporting import export_merged

        target = free_path(workspace.adapters, f"{safe_name(AppliedAdapter(file=path).title)}-lora.safetensors")
        with jobs.device():
            loaded = load_base(line)
        used = [AppliedAdapter(file=path)]
        made = export_merged(used, loaded, target, layout=layout, rank=rank, progress=teller(job, "Layer"))
        return target, (*made.notes, f"{pluralize(made.layers, 'layer')}, rank up to {made.rank}.")

    return make_file(workspace, "Saving as a plain LoRA", make, None, path, "")


def _rewrite(
    workspace: Workspace,
    adapter: str,
    doing: str,
    rewrite: Callable[[Job, "AdapterFile"], "Rewritten"],
    suffix: str,
    recipe: Any,
    note: str,
    out: Path | None,
) -> Job:
    """Another form of one adapter, written to `out` or beside it under its name and the suffix."""
    path, name = adapter_path(workspace, adapter), adapter_name(adapter)

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.adapters import read_adapter

        made = rewrite(job, replace(read_adapter(path), name=name))
        target = out or free_path(workspace.adapters, f"{name}-{suffix}.safetensors")
        made.write(target)
        return target, made.notes

    return make_file(workspace, f"{doing} {name}", make, *_alone(path, recipe), note)


@operation()
def merge_adapters(
    workspace: Workspace,
    adapters: Annotated[List, Field(min_length=2, max_length=20, description='[{"run": NAME, "strength": 0.8}, …]')],
    rank: Annotated[int | None, Field(ge=1, le=1024, description="Cut the sum to this rank; empty: exact.")] = None,
    name: AdapterTitle = "",
    *,
    out: Path | None = None,
) -> Job:
    """Add several adapters of one layout at their strengths into one new file, in the background, without a base."""
    parts = []
    for one in adapters:
        key = given_key(one)
        strength = one.get("strength", 1.0) if isinstance(one, dict) else 1.0
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
            raise AdapterError(f"The strength of an adapter must be a finite number (you gave {str(strength)[:40]!r}).")
        parts.append((adapter_path(workspace, key), strength))

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.adapters import read_adapter
        from studio.adapters.rewrite import merge_files

        files = [(read_adapter(path), strength) for path, strength in parts]
        made = merge_files(files, rank)
        title = name.strip() or "-".join(dict.fromkeys(file.name for file, _ in files))[:60] or "merged"
        target = out or free_path(workspace.adapters, f"{safe_name(title)}.safetensors")
        made.write(target)
        return target, made.notes

    return make_file(workspace, "Merging adapters", make, None, None, "")


@operation()
def export_adapters(
    workspace: Workspace,
    name: AdapterTitle = "",
    layout: Layout = "kohya",
    *,
    rank: Any = None,
    words: str = "",
    recipe: Any = None,
    **fields: Expanded[RecipeFields],
) -> Job:
    """Bake the adapters with their strengths into one new file, in the background.

    recipe: a Recipe, instead of the other parameters. rank: of what is no plain LoRA. words: trigger words.
    """
    from studio.generation.exporting import RANK, export_merged

    recipe = recipe or composed(workspace, fields)
    chosen = whole(rank, "rank") if rank not in (None, "") else RANK
    exported = recipe.adapters
    name = name.strip() or "-".join(dict.fromkeys(used.title for used in exported))[:60] or "merged"

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.basemodels import load_base

        target = free_path(workspace.adapters, f"{safe_name(name)}.safetensors")
        triggers = [word.strip() for word in words.split(",") if word.strip()]
        with jobs.device():
            loaded = load_base(recipe.base)
        made = export_merged(
            exported,
            loaded,
            target,
            layout=layout,
            rank=chosen,
            cover=before,
            words=triggers,
            progress=teller(job, "Layer"),
        )
        return target, (*made.notes, f"{pluralize(made.layers, 'layer')}, rank up to {made.rank}.")

    if not exported:
        raise AdapterError("There is nothing to export: add an adapter first and turn it on.")
    return make_file(workspace, "Merging the adapters", make, recipe.model_copy(update={"count": 1}), None, "")


def _alone(path: Path, recipe: Any) -> tuple[Any, Path]:
    """(the recipe with this adapter alone at strength 1, its file)."""
    from studio.generation import AppliedAdapter

    if recipe is None:
        return None, path
    return recipe.model_copy(update={"adapters": (AppliedAdapter(file=path),), "count": 1}), path


def make_file(
    workspace: Workspace,
    title: str,
    make: Callable[[Job, Any], tuple[Path, tuple[str, ...]]],
    recipe: Any,
    old: Path | None,
    note: str,
) -> Job:
    """Generate an image, make the file, generate the same with it. The job's result is a `Made`."""
    workspace.refuse_if_full()

    def work(job: Job) -> None:
        from studio.generation import AppliedAdapter

        made, folder = job.result, workspace.cache / "downloads"
        job.total = PARTS * (3 if recipe else 1)
        with stopping(job):
            before = _image(job, recipe, "The image with the old file" if old else "The image as it is")
            if job.stop_event.is_set():
                return
            path, made.notes = make(job, before)
            job.message = "\n".join(made.notes)
            made.key, made.size = f"file:{path.name}", path.stat().st_size
            made.old_size = old.stat().st_size if old else 0
            made.download = folder / path.name
            atomic_copy(path, made.download)
            if before is None:
                return
            job.done = 2 * PARTS
            again = recipe.model_copy(update={"adapters": (AppliedAdapter(file=path),)})
            after = _image(job, again, "The image with the new file")
            if after is not None:
                mark = f"{path.stem}-{time.time_ns()}"
                made.before = _saved(before, recipe, folder, f"{mark}-before.png")
                made.after = _saved(after, again, folder, f"{mark}-after.png")
                made.difference = _difference(before, after)

    return start_making(MAKE, title, work, Made(title, note=note), title)


def _image(job: Job, recipe: Any, what: str) -> Any:
    """An image; None without a recipe, and when stopped."""
    if recipe is None:
        return None
    start = job.done

    def progress(done: int, total: int) -> None:
        job.done, job.message = start + PARTS * done // total, f"{what}, step {done} of {total}"

    job.message = what
    return draw(recipe, job.stop_event, progress)


def _saved(image: Any, recipe: Any, folder: Path, name: str) -> Path:
    from studio.generation import save_image

    return save_image(image, recipe, folder, name)


def _difference(one: Any, other: Any) -> float:
    import numpy as np

    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


# Jobs -----------------------------------------------------------------------------------------------------------------


def start_making(kind: str, title: str, work: Callable[[Job], None], result: Any, name: str) -> Job:
    """A job of this kind; an inspection gives way to the next one, and a file that is made does not (BusyError)."""
    before = running(kind)
    if before and kind == INSPECT:
        before.stop()
        before.wait()

    def begin(job: Job) -> None:
        job.result = result
        work(job)

    job = jobs.start(kind, title, begin, device=False)
    remember(job, name)
    return job


@contextmanager
def stopping(job: Job) -> Iterator[None]:
    """A job that was asked to stop may break off with GenerationError."""
    try:
        yield
    except GenerationError:
        if not job.stop_event.is_set():
            raise


def teller(job: Job, what: str) -> Callable[[int, int], None]:
    """Progress of one stage of the job, and the place where it stops."""
    start = job.done
    job.total = max(job.total, PARTS)

    def tell(done: int, total: int) -> None:
        if job.stop_event.is_set():
            raise GenerationError("Stopped.")
        job.done, job.message = start + PARTS * done // max(1, total), f"{what} {done + 1} of {total}"

    return tell


def whole(value: Any, what: str) -> int:
    """A whole number from 1 to 1024 of what a form holds. Raises AdapterError."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number != value or not 1 <= number <= 1024:
        raise AdapterError(f"The {what} must be a whole number from 1 to 1024 (you gave {str(value)[:40]!r}).")
    return number


def _stamp(path: Path) -> tuple[Any, ...]:
    try:
        stat = path.stat()
    except OSError as error:
        raise StudioError(f"{path.name} is gone.") from error
    return path, stat.st_size, stat.st_mtime_ns
