"""Class images: regularization images that the base itself draws of the class before a run.

As in DreamBooth (arXiv:2208.12242). They lie in the workspace's cache, by the base's content, the prompt and how it is
drawn, so that every run of the same base and class takes the same ones; a run that was stopped meanwhile draws the
others.
"""

import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from studio.basemodels import Family
from studio.basemodels.weights import weights_hash
from studio.datasets import Item, open_dataset, set_caption
from studio.errors import GenerationError
from studio.generation import Recipe, draw, save_image
from studio.text import pluralize
from studio.training.cache import key_of
from studio.training.config import RunConfig
from studio.training.distributed import Distributed
from studio.training.effects import refuse
from studio.training.events import Preparing
from studio.training.previews import fitting
from studio.training.selection import Selection
from studio.workspace import Workspace

VERSION = 1  # of how they are drawn; another number draws all of them again
WHAT = "class images drawn"
_SAME_PIXELS = {"name": "-", "vae": "", "offload": False}  # where a base lies, and where its parts wait


def recipe_of(config: RunConfig, base: Family, number: int) -> Recipe:
    """How class image `number` is drawn: with the previews' steps and guidance, at the run's resolution."""
    side = fitting(config.data.resolution or base.resolution, base)
    wanted = config.preview
    return Recipe(
        prompt=config.data.class_prompt,
        seed=number,
        steps=wanted.steps,
        guidance=wanted.guidance,
        guidance_rescale=wanted.guidance_rescale,
        clip_skip=config.data.clip_skip,
        width=side,
        height=side,
        base=config.base,
    )


def folder_of(config: RunConfig, base: Family, workspace: Workspace) -> Path:
    """Where the images of this base, prompt and way of drawing lie."""
    recipe = recipe_of(config, base, 0).model_dump(mode="json", exclude={"base", "seed", "adapters"})
    options = str(base.choice.model_copy(update=_SAME_PIXELS))
    key = key_of(VERSION, weights_hash(base.folder), base.identity("vae"), options, recipe)[:16]
    words = "".join(c if c.isalnum() else "-" for c in config.data.class_prompt.lower()[:40]).strip("-")
    return workspace.cache / "class_images" / "-".join(filter(None, (words, key)))


def present(config: RunConfig, folder: Path) -> list[int]:
    """The numbers of the images that are there, of those that the run takes."""
    return [number for number in range(config.data.class_images) if _file(folder, number).is_file()]


def drawn(
    config: RunConfig,
    chosen: Selection,
    base: Family,
    workspace: Workspace,
    distributed: Distributed,
    stop: threading.Event,
    step: int,
) -> Generator[Preparing, None, tuple[RunConfig, Selection] | None]:
    """(the settings, the images) of a run, its class images being its regularization images, after those are drawn.

    As they are where no class images are asked for; None after `stop`. Otherwise as `draw_missing`. Raises ConfigError
    as `effects.refuse` does.
    """
    if not config.data.class_images:
        return config, chosen
    refuse(config, base)
    folder = folder_of(config, base, workspace)
    already = len(present(config, folder))
    if not (yield from draw_missing(config, base, workspace, distributed, stop, step)):
        return None
    data = config.data.model_copy(update={"regularisation": str(folder)})
    accounts = [*chosen.accounts, account(config, already)]
    chosen = replace(chosen, regularization=listed(config, folder), accounts=accounts)
    return config.model_copy(update={"data": data}), chosen


def draw_missing(
    config: RunConfig, base: Family, workspace: Workspace, distributed: Distributed, stop: threading.Event, step: int
) -> Generator[Preparing, None, bool]:
    """Draw what the cache lacks, each process its share, yielding Preparing for each; returns False after `stop`.

    step: where the run goes on, for the events. Raises GenerationError, and OSError when the disk is full.
    """
    folder = folder_of(config, base, workspace)
    there = set(distributed.broadcast(present(config, folder)))
    total = config.data.class_images
    missing = [number for number in range(total) if number not in there][distributed.rank :: distributed.count]
    if missing:
        yield Preparing(step, len(there), total, WHAT)
    for done, number in enumerate(missing, 1):
        if stop.is_set() or not _draw(config, base, folder, number, stop):
            break
        yield Preparing(step, min(total, len(there) + done * distributed.count), total, WHAT)
    distributed.wait()
    base.onload()
    return not distributed.broadcast(stop.is_set())


def _draw(config: RunConfig, base: Family, folder: Path, number: int, stop: threading.Event) -> bool:
    """False when it was stopped. The caption comes first: an image is there with its caption, or not at all."""
    recipe = recipe_of(config, base, number)
    try:
        image = draw(base, recipe, stop)
    except GenerationError:
        if stop.is_set():
            return False
        raise
    file = _file(folder, number)
    folder.mkdir(parents=True, exist_ok=True)
    set_caption(file, recipe.prompt)
    save_image(image, recipe, folder, file.name)
    return True


def listed(config: RunConfig, folder: Path) -> list[Item]:
    """Those of the run that are there."""
    wanted = {_file(folder, number).name for number in present(config, folder)}
    return [item for item in open_dataset(folder).items if item.file in wanted] if wanted else []


def with_class_images(
    config: RunConfig, chosen: Selection, base: Family, workspace: Workspace
) -> tuple[Selection, int]:
    """(the images of a run with its class images that are there, how many are still to be drawn); draws nothing."""
    if not config.data.class_images:
        return chosen, 0
    there = listed(config, folder_of(config, base, workspace))
    return replace(chosen, regularization=there), config.data.class_images - len(there)


def account(config: RunConfig, already: int) -> str:
    """A sentence for the run's setup."""
    many, prompt = pluralize(config.data.class_images, "class image"), config.data.class_prompt
    earlier = f", {already} of them drawn before" if already else ""
    return f"{many} of {prompt!r} by the base{earlier}."


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.png"
