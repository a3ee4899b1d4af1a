"""Grids of images over up to three axes, drawn in the background."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.errors import AdapterError, BusyError, GenerationError, NotAllowedError, WorkspaceError
from studio.services.adapter_files import adapter_choices, adapter_path, checked_key, key_of
from studio.services.generation import RecipeFields, composed
from studio.services.jobs import Job, jobs, latest, remember, running
from studio.services.operations import Expanded, operation
from studio.services.parameters import List
from studio.text import pluralize
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.generation.contact_sheet import SavedGrid
    from studio.generation.grids import Axis
    from studio.generation.recipe import Recipe

PARTS = 1000  # of a cell, for progress
PICKED = ("adapter", "checkpoint", "scheduler")  # axes whose values are chosen from a list, not typed
FEW = 8  # checkpoints that are chosen by themselves
SWEEP_STRENGTHS = "0.5, 0.75, 1"
GridName = Annotated[str, Field(max_length=255, description="Name of a grid; empty: the newest.")]


@dataclass(frozen=True)
class Typed:
    """An axis as it stands on the page. which: the adapter for strength, the run for checkpoint."""

    kind: str
    which: str = ""
    text: str = ""
    picks: tuple[str, ...] = ()


def axes_of(workspace: Workspace, recipe: "Recipe", typed: Sequence[Typed]) -> list["Axis"]:
    """The axes of a grid. Raises StudioError for values that can't be used."""
    from studio.generation.grids import Axis, parse_values

    axes = []
    for one in typed:
        if not one.kind:
            continue
        if one.kind not in PICKED:
            index = _index(recipe, one.which) if one.kind == "strength" and one.which else 0
            axes.append(Axis(one.kind, parse_values(one.kind, one.text or ""), index))
        elif not one.picks:
            raise GenerationError(f"Choose what the axis {one.kind.capitalize()} goes through.")
        elif one.kind == "scheduler":
            axes.append(Axis(one.kind, parse_values(one.kind, "\n".join(map(str, one.picks)))))
        else:
            files = dict.fromkeys(adapter_path(workspace, key) for key in one.picks)
            axes.append(Axis(one.kind, tuple(files)))
    return axes


def typed_in(workspace: Workspace, path: Path) -> tuple[list[Typed], list[str]]:
    """The axes of a sheet as they stand on the page, and a line for each adapter that is not here; [] for no sheet.

    path: a PNG that may come from anywhere
    """
    from studio.generation import read_recipe
    from studio.generation.contact_sheet import read_axes
    from studio.generation.grids import values_text

    found, problems = list[Typed](), list[str]()
    axes = read_axes(path)
    names = [str(one["file"]) for one in read_recipe(path).adapters] if axes else []
    for axis in axes:
        if axis.kind in ("adapter", "checkpoint"):
            keys = {name: key_of(workspace, name) for name in axis.values}
            problems += [
                f"The grid's {name[:60]!r} is not here: drop its file." for name, key in keys.items() if not key
            ]
            here = tuple(key for key in keys.values() if key)
            run = here[0].partition(":")[2].partition("@")[0] if here and axis.kind == "checkpoint" else ""
            found.append(Typed(axis.kind, run, picks=here))
        elif axis.kind == "scheduler":
            found.append(Typed(axis.kind, picks=axis.values))
        else:
            which = names[axis.index] if axis.kind == "strength" and axis.index < len(names) else ""
            found.append(Typed(axis.kind, which, values_text(axis.kind, axis.values)))
    return found, problems


def _index(recipe: "Recipe", title: str) -> int:
    titles = [adapter.title for adapter in recipe.adapters]
    if title not in titles:
        raise GenerationError(f"The adapter {title[:60]!r} is not on the image: switch it on or choose another.")
    return titles.index(title)


def checked(workspace: Workspace, recipe: "Recipe", axes: Sequence["Axis"]) -> list["Recipe"]:
    """The recipes of all cells, within what this server lets people draw. Raises StudioError."""
    from studio.generation.grids import cells

    made, most = cells(recipe, axes), workspace.allows.count
    if most and len(made) > most:
        raise NotAllowedError(f"A grid may have at most {pluralize(most, 'image')} here: take fewer values.")
    for one in made:
        workspace.allows.check_recipe(one)
    return made


def seconds_for(made: Sequence["Recipe"]) -> float | None:
    """How long these take, as the last image tells; None while none was drawn with their base."""
    from studio.generation.timing import estimate

    found = [estimate(one) for one in made]
    return None if None in found else sum(filter(None, found))


AXES = '[{"kind": "strength", "text": "0, 0.5, 1"}, {"kind": "seed", "text": "1-3"}]'


@operation()
def draw_grid(
    workspace: Workspace,
    axes: Annotated[List, Field(max_length=3, description=f"Axes, one to three: {AXES}.")],
    **fields: Expanded[RecipeFields],
) -> str:
    """Generate a grid in the background: see job_status, then grid_result. Answers the grid's name."""
    recipe = composed(workspace, fields)
    start_grid(workspace, recipe, axes_of(workspace, recipe, [_typed(entry) for entry in axes]))
    return latest["grid"].name


@operation(file="image")
def grid_result(workspace: Workspace, name: GridName = "") -> tuple[Path]:
    """The contact sheet of a grid, of the newest one if no name is given."""
    grid = grid_named(workspace, name) if name else newest(workspace)
    if grid is None or not grid.sheet.is_file():
        raise GenerationError("There is no contact sheet yet: generate a grid, and wait until it is done.")
    return (grid.sheet,)


def _typed(entry: Any) -> Typed:
    """An axis of an operation's parameter."""
    if not isinstance(entry, dict):
        raise GenerationError(f"Each axis must be a table, as in {AXES}.")
    picks = entry.get("adapters") or entry.get("picks") or []
    if not isinstance(picks, list | tuple):
        raise GenerationError(f"The adapters and picks of an axis must be a list, as in {AXES}.")
    with suppress(ValueError):
        picks = [checked_key(pick) for pick in picks]
    kind, which, text = (str(entry.get(name, "")) for name in ("kind", "which", "text"))
    return Typed(kind, which, text, tuple(map(str, picks)))


def start_grid(workspace: Workspace, recipe: "Recipe", axes: Sequence["Axis"]) -> Job:
    """Draw a grid in the background, taking turns with a run that trains. It is found again by `newest`."""
    from studio.generation import contact_sheet, save_image

    made = checked(workspace, recipe, axes)
    workspace.refuse_if_full()
    if running("grid"):
        raise BusyError("A grid is being generated: wait for it, or stop it first.")
    folder = contact_sheet.new_folder(workspace.outputs, recipe, axes)

    def work(job: Job) -> None:
        from studio.generation.grids import draw_cells

        def progress(cells_done: float) -> None:
            job.done = int(PARTS * cells_done)

        sides, problems = contact_sheet.sides_of(axes), dict[int, str]()
        job.total = PARTS * len(made)
        done = 0
        try:
            for drawn in draw_cells(recipe, axes, job.stop_event, progress, jobs.device):
                for number, image in zip(drawn.numbers, drawn.images):
                    save_image(image, made[number], folder, contact_sheet.cell_file(folder, number).name)
                if drawn.problem:
                    problems |= dict.fromkeys(drawn.numbers, drawn.problem)
                    contact_sheet.write_grid_file(folder, recipe, sides, problems)
                done += len(drawn.numbers)
                job.done, job.message = PARTS * done, f"{done} of {pluralize(len(made), 'image')}"
        finally:
            grid = contact_sheet.read_grid(folder)
            if grid and any(grid.images):
                contact_sheet.save_sheet(grid, recipe, axes)
            elif grid and not problems:  # nothing came of it
                _remove(folder)
        if len(problems) == len(made):
            raise GenerationError(problems[0])

    title = f"Grid of {pluralize(len(made), 'image')}"
    job = jobs.start("grid", title, work, device=False, limit=workspace.allows.longest)
    remember(job, folder.name)
    return job


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def newest(workspace: Workspace) -> "SavedGrid | None":
    """The grid that is drawn now, or was drawn last."""
    from studio.generation.contact_sheet import newest_grid

    return newest_grid(workspace.outputs)


def grid_named(workspace: Workspace, name: Any) -> "SavedGrid":
    """Raises WorkspaceError when there is none."""
    from studio.generation.contact_sheet import read_grid

    grid = read_grid(workspace.outputs / "grids" / checked_name(name, "grid"))
    if grid is None:
        raise WorkspaceError("This grid is not there any more: generate it again.")
    return grid


def image_name(grid: "SavedGrid", number: int) -> str:
    """How a cell's image is called for `generation.image_path`."""
    from studio.generation.contact_sheet import cell_file

    return f"grids/{grid.folder.name}/{cell_file(grid.folder, number).name}"


# What can be chosen -------------------------------------------------------------------------------------------------


def runs_with_checkpoints(workspace: Workspace) -> list[str]:
    """Names of runs that have something to compare, newest first."""
    from studio.training import list_runs

    folders = [workspace.runs / name for name in list_runs(workspace)]
    return [one.name for one in folders if (one / "adapter.safetensors").is_file() or _steps(one)]


def checkpoints_of(workspace: Workspace, run: str) -> list[tuple[str, str]]:
    """(label, key) of a run's checkpoints by step, and of its result; not of a last checkpoint that is the result."""
    result = workspace.runs / checked_name(run, "run") / "adapter.safetensors"
    steps = _steps(result.parent)
    last = max(steps, default=None)
    if last is not None and (weights := _weights(result)) and weights == _weights(steps[last]):
        del steps[last]
    found = [(f"Step {step:,}", f"run:{run}@{step}") for step in sorted(steps)]
    return [*found, ("Result", f"run:{run}")] if result.is_file() else found


def _steps(folder: Path) -> dict[int, Path]:
    """The checkpoints of a run by their steps."""
    files = (folder / "checkpoints").glob("[0-9]*/adapter.safetensors")
    return {int(file.parent.name): file for file in files if file.parent.name.isdecimal()}


def _weights(path: Path) -> str:
    """The hash of its weights that an adapter's head tells; "" where it tells none or can't be read."""
    from studio.adapters.files import read_outline

    try:
        return read_outline(path).metadata.get("sshs_model_hash", "")
    except AdapterError:
        return ""


def spread(keys: Sequence[str], most: int = FEW) -> list[str]:
    """At most so many of them, evenly, with the first and the last."""
    if len(keys) <= most:
        return list(keys)
    return [keys[round(place * (len(keys) - 1) / (most - 1))] for place in range(most)]


def checkpoint_sweep(workspace: Workspace, keys: Sequence[str] = ()) -> list[Typed]:
    """The checkpoints of a run at three strengths: of the first of the adapters in use (`keys`) that is of one, of the
    newest run where none is in use. Raises GenerationError when there are none.
    """
    runs, used = runs_with_checkpoints(workspace), [key for key in keys if isinstance(key, str) and key]
    if used:
        names = [key.partition(":")[2].partition("@")[0] for key in used if not key.startswith("file:")]
        runs = [name for name in names if name in runs]
        if not runs:
            raise GenerationError("No adapter in use has checkpoints: add a run's, or remove all for the newest run.")
    if not runs:
        raise GenerationError("No run has a checkpoint yet: train one first.")
    keys = [key for _, key in checkpoints_of(workspace, runs[0])]
    return [Typed("strength", text=SWEEP_STRENGTHS), Typed("checkpoint", runs[0], picks=tuple(spread(keys)))]


def two(workspace: Workspace, keys: Sequence[str], seed: int) -> list[Typed]:
    """Two adapters, those in the rows (`keys`) first, or the last two checkpoints of a run, at four seeds."""
    here = [key for _, key in adapter_choices(workspace)]
    picks = list(dict.fromkeys([*(key for key in keys if key in here), *here]))[:2]
    seeds = Typed("seed", text=f"{seed}-{seed + 3}")
    if len(picks) == 2:
        return [Typed("adapter", picks=tuple(picks)), seeds]
    for run in runs_with_checkpoints(workspace):
        last = [key for _, key in checkpoints_of(workspace, run)][-2:]
        if len(last) == 2:
            return [Typed("checkpoint", run, picks=tuple(last)), seeds]
    raise GenerationError("A / B needs two adapters: drop another one.")
