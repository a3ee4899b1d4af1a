"""Generate images from a prompt and adapters: one image, a strength sweep, an image to image start, masks."""

import hashlib
import io
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import AdapterError, DatasetError, GenerationError, StudioError
from studio.services import base_models
from studio.services.adapter_files import adapter_name, adapter_path, list_adapters
from studio.services.jobs import Job, jobs, latest, running
from studio.text import pluralize
from studio.workspace import Workspace, checked_name, is_file, write_whole

LIVE = "live:"  # an adapter's key: the weights of the run that trains now
MAX_SEED = 2**32 - 1
PARTS = 1000  # of a picture, for progress


def shelf(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what can be put on a picture, the run that trains now first."""
    newest = latest.get("train")
    live = [(f"{newest.name} (training now)", f"{LIVE}{newest.name}")] if newest and running("train") else []
    return live + list_adapters(workspace)


def facts_line(workspace: Workspace, key: str, base: str = base_models.STARTER) -> tuple[str, tuple[str, ...], bool]:
    """(what a row says of its adapter, its trigger words, whether it can't be used with the base of this name)."""
    from studio.basemodels import base_folder
    from studio.basemodels.skeleton import skeleton
    from studio.basemodels.weights import made_elsewhere
    from studio.generation.adapter_info import read_adapter_info

    if key.startswith(LIVE):
        return "the weights of the run, as they are at each picture", (), False
    try:
        line = base_models.line_of(workspace, base)
        facts = read_adapter_info(adapter_path(workspace, key), skeleton(line))
        other = made_elsewhere("It", facts.base, facts.base_hash, base_folder(line)) if facts.base == line else ""
    except StudioError as error:
        return str(error), (), True
    return f"{facts.line} · {other}" if other else facts.line, facts.words, facts.matched == 0


def use_of(workspace: Workspace, key: str, **values: Any) -> dict[str, Any]:
    """The fields of an AdapterUse: `key` as `shelf` has it, and what its row holds. `blocks` as a person types them."""
    given = {name: value for name, value in values.items() if value is not None}
    given["blocks"] = parse_blocks(given.get("blocks") or "")
    if key.startswith(LIVE):
        run = checked_name(key.removeprefix(LIVE), "run")
        return given | {"file": workspace.runs / run / "adapter.safetensors", "live": True}
    return given | {"file": adapter_path(workspace, key)}


def parse_blocks(text: str) -> dict[str, float]:
    """ "up 0.5, down.1 0" → {"unet.up_blocks": 0.5, "unet.down_blocks.1": 0}; other names stay. Raises AdapterError."""
    found = {}
    for piece in filter(None, (one.strip() for one in text.replace("=", " ").replace(";", ",").split(","))):
        name, _, number = piece.rpartition(" ")
        try:
            strength = float(number)
        except ValueError:
            name = ""
        if not name.strip():
            raise AdapterError(
                f"Blocks are a name and a number each, like `up 0.5, down.1 0` (you gave {piece[:40]!r})."
            )
        head, dot, rest = name.strip().partition(".")
        head = {"up": "unet.up_blocks", "down": "unet.down_blocks", "mid": "unet.mid_block"}.get(head, head)
        found[head + dot + rest] = strength
    return found


def compose(workspace: Workspace, uses: list[dict[str, Any]], **fields: Any):
    """A Recipe from what was typed. Empty fields fall back to its defaults, seed −1 to a seed by chance.

    `<lora:name:0.8>` in the prompt takes the adapter of that name along. base: a name of the list. Raises StudioError.
    """
    from studio.generation import Recipe
    from studio.generation.prompts import take_adapters

    given = {name: value for name, value in fields.items() if value not in (None, "")}
    if not str(given.get("prompt", "")).strip():
        raise GenerationError("The prompt is empty: write what the picture should show.")
    prompt, named = take_adapters(given["prompt"])
    for one in named:
        uses = [*uses, {"file": _by_name(workspace, one.name), "strength": one.strength,
                        "text_strength": one.text_strength}]  # fmt: skip
    given["base"] = base_models.line_of(workspace, given.get("base"))
    base_models.refuse_what_does_not_fit(given["base"], given.get("width"), given.get("height"), given.get("scheduler"))
    if given.get("seed") == -1:
        given["seed"] = random.randint(0, MAX_SEED)
    recipe = Recipe(**given | {"prompt": prompt, "adapters": tuple(uses)})
    workspace.allows.check_picture(recipe)
    return recipe


def key_of(workspace: Workspace, name: str) -> str | None:
    """The adapter with this name, as A1111 and this program write them into pictures; None when there is none."""
    wanted = name.strip().lower()
    keys = [key for _, key in list_adapters(workspace) if adapter_name(key).lower() == wanted]
    if not keys and "@" in name:  # a checkpoint
        with suppress(StudioError):
            adapter_path(workspace, f"run:{name.strip()}")
            keys = [f"run:{name.strip()}"]
    return next(iter(keys), None)


def _by_name(workspace: Workspace, name: str) -> Path:
    key = key_of(workspace, name)
    if key is None:
        raise AdapterError(
            f"The prompt names the adapter {name[:60]!r}, which is not here: drop its file or correct it."
        )
    return adapter_path(workspace, key)


@dataclass
class Drawn:
    """What a job that draws has so far: pictures with their recipes, and a latent preview of the one that is coming."""

    pictures: list[tuple[Any, Path]] = field(default_factory=list)
    latent_preview: Any = None  # PIL.Image, a pixel a latent


def pictures(
    recipe, stop: threading.Event, progress: Callable[[int, int], None] | None = None, look=None
) -> Iterator[Any]:
    """(recipe of one picture, PIL.Image) one after the other, taking turns with training. Ends early when stopped."""
    from studio.generation import generate_all
    from studio.generation.drawing import singles

    drawn = generate_all(recipe, stop, progress, look)
    for one in singles(recipe):
        with jobs.device():
            if stop.is_set():
                return
            try:
                image = next(drawn)
            except GenerationError:
                if stop.is_set():
                    return  # asked for, so nothing to complain of
                raise
        yield one, image


def start_pictures(workspace: Workspace, recipes: Sequence[Any]) -> Job:
    """Draw and save all pictures of the recipes in the background; the result is a `Drawn`.

    A reload of the page leaves it going: what it draws is found among the earlier pictures. Waits for such a job first.
    """
    from studio.generation import save_image
    from studio.generation.latent_preview import preview_latents

    def work(job: Job) -> None:
        count = sum(recipe.count for recipe in recipes)
        drawn = job.result = Drawn()
        job.total = count * PARTS

        def progress(done: int, total: int) -> None:
            number = len(drawn.pictures)
            job.done = int(PARTS * (number + done / total))
            job.message = f"{'Picture' if count == 1 else f'Picture {number + 1} of {count}'}, step {done} of {total}"

        for recipe in recipes:
            base = recipe.base

            def looked(latents: Any, base: str = base) -> None:
                from studio.basemodels import load_base

                drawn.latent_preview = preview_latents(load_base(base), latents)

            for one, image in pictures(recipe, job.stop_event, progress, looked):
                drawn.pictures.append((one, save_image(image, one, workspace.outputs)))
                drawn.latent_preview = None

    workspace.refuse_if_full()
    before = running("pictures")
    if before:
        before.wait()
    return jobs.start("pictures", "Drawing", work, device=False)


def strip(recipe, index: int, stop: threading.Event, progress=None) -> list[tuple[float, Any]]:
    """(strength, PIL.Image) of one adapter from 0 to 1.5, in one batch; empty when stopped."""
    from studio.generation.strength_sweep import STRENGTHS, draw_strength_sweep

    with jobs.device():
        try:
            return list(zip(STRENGTHS, draw_strength_sweep(recipe, STRENGTHS, index, stop, progress), strict=True))
        except GenerationError:
            if stop.is_set():
                return []
            raise


def keep_source(workspace: Workspace, path: str | Path) -> Path:
    """A picture to begin from, kept as PNG by content beside the pictures: a recipe names it, to be drawn again."""
    from studio.datasets import open_picture

    try:
        image = open_picture(Path(path)).convert("RGB")
    except DatasetError as error:
        raise GenerationError(str(error)) from error
    return _keep(workspace, image)


def keep_mask(workspace: Workspace, source: Path, painted: Any) -> str:
    """The name of the mask, white where `painted` (PIL RGBA) has anything; "" where nothing was painted."""
    hole = painted.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    return _keep(workspace, hole, f"{source.stem}-").name if hole.getbbox() else ""


def mask_of(workspace: Workspace, source: Path, name: str | None) -> Path | None:
    """The mask of this name; None when it was painted on another picture."""
    path = _sources(workspace) / Path(name or "-").name
    return path if path.name.startswith(f"{source.stem}-") and is_file(path) else None


def _keep(workspace: Workspace, image: Any, before: str = "") -> Path:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    path = _sources(workspace) / f"{before}{hashlib.sha256(stream.getvalue()).hexdigest()[:20]}.png"
    if not path.is_file():
        write_whole(path, stream.getvalue())
    return path


def _sources(workspace: Workspace) -> Path:
    return workspace.outputs / "sources"


def restored(workspace: Workspace, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """(values, adapters with their `key`, problems) of a picture that was dropped. Raises GenerationError."""
    from studio.basemodels import base_folder
    from studio.basemodels.weights import made_elsewhere
    from studio.generation import read_recipe

    found = read_recipe(path)
    adapters, problems = [], list(found.problems)
    for one in found.adapters:
        key = key_of(workspace, str(one["file"]))
        if key:
            adapters.append({**one, "key": key})
        else:
            problems.append(f"The adapter {str(one['file'])[:60]!r} is not here: drop its file.")
    values = dict(found.values)
    if said := values.pop("base", None):
        if name := base_models.name_of(workspace, said):
            values["base"] = name
            place = base_folder(base_models.line_of(workspace, name))
            if other := made_elsewhere("The image", said, found.base_hash, place):
                problems.append(other)
        else:
            problems.append(f"It was drawn on {said[:60]!r}, which is not on the list of base models: choose one.")
    if values.get("source"):
        source = _sources(workspace) / Path(values["source"]).name
        if is_file(source):
            values["source"] = str(source)
        else:
            said = values.pop("source")[:60]
            problems.append(f"The picture that it began from, {said!r}, is not here: choose it again.")
            values.pop("mask", None)
    return values, adapters, problems


def draw(recipe, stop: threading.Event | None = None, progress=None):
    """One picture (PIL.Image), taking turns with training for the device. None when stopped."""
    from studio.generation import generate

    with jobs.device():
        try:
            return None if stop is not None and stop.is_set() else generate(recipe, stop=stop, progress=progress)
        except GenerationError:
            if stop is not None and stop.is_set():
                return None  # asked for, so nothing to complain of
            raise


def recipe_line(recipe) -> str:
    """What made the picture, in one line that a person can read back."""
    parts = [f"seed {recipe.seed}", pluralize(recipe.steps, "step"), f"guidance {recipe.guidance:g}"]
    parts.append(f"{recipe.width} × {recipe.height}")
    parts += [f"{use.title} at {use.strength:g}" for use in recipe.adapters]
    prompt = re.sub(r"\s+", " ", recipe.prompt).strip()
    return f"{prompt if len(prompt) <= 90 else prompt[:89] + '…'} · " + " · ".join(parts)
