"""What the page draws in the background: images of recipes, and strength sweeps. Images show while they come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import BusyError, GenerationError
from studio.server.callers import Stop
from studio.services import adapter_strengths
from studio.services.generation import PARTS, generated, timed, too_long
from studio.services.image_groups import member_name, new_group
from studio.services.jobs import Job, jobs, running
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.generation import Recipe


@dataclass
class GeneratedImages:
    """What a job has so far: images with their recipes, and a preview of the next one."""

    images: list[tuple[Any, Path]] = field(default_factory=list)
    latent_preview: Any = None  # PIL.Image


def start_generation(workspace: Workspace, recipes: Sequence["Recipe"]) -> Job:
    """Generate and save all images of the recipes in the background; the result is `GeneratedImages`.

    A reload of the page does not stop it: its images are found among the earlier ones. Waits for such a job first.
    """
    from studio.generation import save_image

    def work(job: Job) -> None:
        count = sum(recipe.count for recipe in recipes)
        made = job.result = GeneratedImages()
        job.total = count * PARTS

        def progress(done: int, total: int) -> None:
            number = len(made.images)
            job.done = int(PARTS * (number + done / total))
            job.message = f"{'Image' if count == 1 else f'Image {number + 1} of {count}'}, step {done} of {total}"

        stop = Stop(job.stop_event, workspace.allows.drawing, workspace.allows.shared)
        for recipe in recipes:
            show = live_preview(recipe, made)
            for one, image in generated(recipe, stop, progress, show, partial(say_waiting, job)):
                made.images.append((one, save_image(image, one, workspace.outputs)))
                made.latent_preview = None
            adapter_strengths.remember(workspace, recipe.adapters)
        if len(made.images) < count and stop.too_long:
            raise GenerationError(too_long(workspace))

    return _start(workspace, "Generating", work)


def start_sweep(workspace: Workspace, recipe: "Recipe", index: int = 0) -> Job:
    """The recipe at seven strengths of its adapter `index`, in one batch; the result is `GeneratedImages`."""
    from studio.generation import save_image
    from studio.generation.strength_sweep import at_strength, draw_strength_sweep, strengths_for

    strengths = strengths_for(recipe.adapters[index])

    def work(job: Job) -> None:
        made = job.result = GeneratedImages()
        stop = Stop(job.stop_event, workspace.allows.drawing, workspace.allows.shared)

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total
            job.message = f"Strength sweep, step {done} of {total}"

        try:
            with jobs.device(stop, partial(say_waiting, job)), timed(stop):
                images = [] if stop.is_set() else draw_strength_sweep(recipe, strengths, index, stop, progress)
        except (GenerationError, BusyError):
            if not stop.is_set():
                raise
            images = []
        group = new_group("sweep")
        for place, (strength, image) in enumerate(zip(strengths, images)):
            one = at_strength(recipe, strength, index)
            name = member_name(group, place, one)
            made.images.append((one, save_image(image, one, workspace.outputs, name)))
        if not images and stop.too_long:
            raise GenerationError(too_long(workspace))

    return _start(workspace, "Strength sweep", work)


def _start(workspace: Workspace, title: str, work: Callable[[Job], None]) -> Job:
    """One after the other: it waits for what the page draws already."""
    workspace.refuse_if_full()
    before = running("generate")
    if before:
        before.wait()
    return jobs.start("generate", title, work, device=False)


def live_preview(recipe: "Recipe", made: GeneratedImages) -> Callable[[Any], None]:
    """For `generated`: puts previews into `made`. The base is loaded when the first one comes."""
    from studio.basemodels import load_base
    from studio.generation.latent_preview import LivePreview

    live: list[LivePreview] = []

    def show(latents: Any) -> None:
        if not live:
            live.append(LivePreview(load_base(recipe.base), lambda image: setattr(made, "latent_preview", image)))
        live[0](latents)

    return show


def say_waiting(job: Job, before: int) -> None:
    """The message of a job for which something else holds the device: a run lets it in after its current step.

    before: other images that wait and come first
    """
    other = running()
    what = f"the current step of {other.title}" if other else "another image"
    more = f"; {before} more {'comes' if before == 1 else 'come'} first" if before else ""
    job.message = f"Waiting for {what}{more}"
