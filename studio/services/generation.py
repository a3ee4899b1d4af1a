"""Generate images from a prompt and adapters: one image, a strength sweep, an image to image start, masks."""

import hashlib
import io
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from studio.errors import AdapterError, BusyError, DatasetError, GenerationError, StudioError, WorkspaceError
from studio.server.callers import SHARE, Stop
from studio.services import base_models
from studio.services.adapter_files import adapter_choices, adapter_path, given_key, key_of
from studio.services.jobs import jobs, latest, running
from studio.services.operations import Expanded, operation
from studio.services.parameters import BaseName, ImageName, List, Table
from studio.text import duration, pluralize
from studio.workspace import Workspace, atomic_write, checked_name, is_file

if TYPE_CHECKING:
    from studio.generation import Recipe


Progress = Callable[[int, int], None]
LIVE = "live:"  # an adapter's key: the weights of the run that trains now
MAX_SEED = 2**32 - 1
PARTS = 1000  # of an image, for progress


def available_adapters(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what can be put on an image, the run that trains now first."""
    newest = latest.get("train")
    live = [(f"{newest.name} (training now)", f"{LIVE}{newest.name}")] if newest and running("train") else []
    return live + adapter_choices(workspace)


def adapter_summary(
    workspace: Workspace, key: str, base: str = base_models.STARTER
) -> tuple[str, tuple[str, ...], bool]:
    """(what a row says of its adapter, its trigger words, whether it can't be used with the base of this name)."""
    from studio.basemodels import base_folder
    from studio.basemodels.skeleton import skeleton
    from studio.basemodels.weights import made_elsewhere
    from studio.generation.adapter_info import read_adapter_info

    if key.startswith(LIVE):
        return "the weights of the run, as they are at each image", (), False
    try:
        line = base_models.line_of(workspace, base)
        facts = read_adapter_info(adapter_path(workspace, key), skeleton(line))
        other = made_elsewhere("It", facts.base, facts.base_hash, base_folder(line)) if facts.base == line else ""
    except StudioError as error:
        return str(error), (), True
    return f"{facts.line} · {other}" if other else facts.line, facts.words, facts.matched == 0


def applied_fields(workspace: Workspace, key: str | Path, **values: Any) -> dict[str, Any]:
    """The fields of an AppliedAdapter: `key` as `available_adapters` has it; `blocks` as typed."""
    given = {name: value for name, value in values.items() if value is not None}
    given["blocks"] = parse_blocks(str(given.get("blocks") or ""))
    if isinstance(key, str) and key.startswith(LIVE):
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


def compose(workspace: Workspace, applied: list[dict[str, Any]], line: str = "", /, **fields: Any) -> "Recipe":
    """A Recipe from what was typed. Empty fields are as the base has them, seed −1 becomes a seed by chance.

    `<lora:name:0.8>` in the prompt takes the adapter of that name along. base: a name of the list; line: the base
    as the command line names it, instead. Raises StudioError.
    """
    from studio.generation import Recipe
    from studio.generation.prompts import read_prompt

    given = {name: value for name, value in fields.items() if value not in (None, "")}
    if not str(given.get("prompt", "")).strip():
        raise GenerationError("The prompt is empty: write what the image should show.")
    found = read_prompt(str(given["prompt"]))
    found.refuse()
    for one in found.adapters:
        applied = [
            *applied,
            {"file": _by_name(workspace, one.name), "strength": one.strength, "text_strength": one.text_strength},
        ]
    given["base"] = line or base_models.line_of(workspace, given.get("base"))
    given = base_models.own_defaults(given["base"]) | given
    base_models.refuse_what_does_not_fit(given["base"], given.get("width"), given.get("height"), given.get("scheduler"))
    if given.get("seed") == -1:
        given["seed"] = random.randint(0, MAX_SEED)
    recipe = Recipe(**given | {"prompt": found.text, "adapters": tuple(applied)})
    workspace.allows.check_recipe(recipe)
    return recipe


@operation()
def check_prompt(
    workspace: Workspace,
    prompt: Annotated[str, Field(max_length=4000, description="What the image shows.")],
    negative: Annotated[str, Field(max_length=4000, description="What to avoid.")] = "",
    base: BaseName = "starter",
    guidance: Annotated[float, Field(ge=0, le=30, description="How closely it follows the prompt.")] = 4.0,
    clip_skip: Annotated[int, Field(ge=1, le=12, description="As in generate.")] = 1,
) -> list[str]:
    """What of a prompt is not understood or has no effect on this base, a sentence each."""
    return prompt_problems(workspace, prompt, negative, base_models.line_of(workspace, base), guidance, clip_skip)


def prompt_problems(
    workspace: Workspace,
    prompt: str,
    negative: str = "",
    line: str = "",
    guidance: float | None = None,
    clip_skip: int = 1,
) -> list[str]:
    """As `check_prompt`. line: the base; without one, what depends on it is left out."""
    from studio.generation.prompts import read_prompt
    from studio.generation.recipe_check import recipe_problems

    traits: dict[str, Any] = {}
    if line:
        with suppress(StudioError):  # a base that is gone is reported where it is chosen
            card = base_models.inspect_base(line)
            traits = {name: getattr(card, name) for name in ("title", "weighted_prompts", "guidance_embedded")}
    problems = recipe_problems(prompt, negative, guidance=guidance, clip_skip=clip_skip, **traits)
    missing = [one.name for one in read_prompt(prompt).adapters if key_of(workspace, one.name) is None]
    return problems + [_not_here(name) for name in dict.fromkeys(missing)]


def _not_here(name: str) -> str:
    return f"The prompt names the adapter {name[:60]!r}, which is not here: drop its file or correct it."


def _by_name(workspace: Workspace, name: str) -> Path:
    key = key_of(workspace, name)
    if key is None:
        raise AdapterError(_not_here(name))
    return adapter_path(workspace, key)


RECIPE_EXAMPLE = '[{"run": NAME, "strength": 0.8}, {"file": NAME, "strength": 0.5, "start": 0.2}]'
APPLIED_FIELDS = ("strength", "text_strength", "start", "end", "blocks")


def _of_recipe(name: str, **changes: Any) -> tuple[Any, Any]:
    """(annotation, field) of one field of Recipe, for a model of parameters."""
    from studio.generation.recipe import Recipe

    field = Recipe.model_fields[name]
    if changes:
        field = FieldInfo.merge_field_infos(field, **changes)
    return field.annotation, field


def _of_base(name: str) -> tuple[Any, Any]:
    """The same of a field that is as the base has it where it is empty."""
    from studio.generation.recipe import Recipe

    field = Recipe.model_fields[name]
    text = f"{str(field.description).rstrip('.')}. Empty: the base's."
    return Annotated[field.annotation, *field.metadata] | None, Field(None, description=text)


# What decides an image's pixels, as operations take it: Recipe's fields, with adapters by name and never by path.
RecipeFields: type[BaseModel] = create_model(
    "RecipeFields",
    prompt=(str, Field("", max_length=4000, description="What the image shows.")),
    negative=_of_recipe("negative_prompt"),
    seed=(
        int,
        Field(0, ge=-1, lt=2**63, description="The same seed and recipe give the same pixels; -1: a random one."),
    ),
    steps=_of_base("steps"),
    guidance=_of_base("guidance"),
    width=_of_base("width"),
    height=_of_base("height"),
    adapters=(List, Field([], max_length=20, description=f"Adapters: {RECIPE_EXAMPLE}.")),
    more=(Table, Field({}, description='More fields, such as {"scheduler": "DPM++ 2M Karras", "clip_skip": 2}.')),
    scheduler=_of_recipe("scheduler"),
    clip_skip=_of_recipe("clip_skip"),
    denoising=_of_recipe("denoising"),
    base=(str, Field("starter", max_length=1024, description="Base model: a name of list_bases.")),
)


def composed(workspace: Workspace, fields: dict[str, Any]) -> Any:
    """A Recipe of the parameters of an operation. Raises StudioError."""
    given = fields["more"] | {name: value for name, value in fields.items() if name not in ("adapters", "more")}
    given |= {name: value for name, value in fields["more"].items() if name not in _FIRST}
    given["negative_prompt"] = given.pop("negative")
    for key in ("source", "mask", "adapters"):  # files of this machine are never named from outside
        given.pop(key, None)
    applied = []
    for entry in fields["adapters"]:
        key = given_key(entry)
        chosen = {name: entry[name] for name in APPLIED_FIELDS if name in entry} if isinstance(entry, dict) else {}
        applied.append(applied_fields(workspace, key, **chosen))
    return compose(workspace, applied, **given)


_FIRST = ("prompt", "negative", "seed", "steps", "guidance", "width", "height")  # these win over `more`


@operation(device=True, file="image")
def generate(
    workspace: Workspace,
    **fields: Expanded[RecipeFields],
) -> tuple[Path, str]:
    """Generate one image and save it in the workspace. Answers the image and its recipe."""
    from studio.generation import save_image

    workspace.refuse_if_full()
    recipe = composed(workspace, fields).model_copy(update={"count": 1})
    stop = Stop(seconds=workspace.allows.drawing, shared=workspace.allows.shared)
    image = draw(recipe, stop)
    if image is None:
        raise GenerationError(too_long(workspace) if stop.too_long else "The image was stopped.")
    return save_image(image, recipe, workspace.outputs), recipe_line(recipe)


def too_long(workspace: Workspace) -> str:
    """What is said of drawing that was ended because it took too long."""
    allows = workspace.allows
    most = f"{duration(allows.drawing)} here"
    if allows.shared:
        most += f", {duration(allows.shared)} while others wait, {duration(allows.shared / SHARE)} while many do"
    return f"Drawing may take {most}: choose a smaller size, fewer steps or fewer images."


@operation(aliases=("picture_recipe",), renamed={"image": "picture"})
def image_recipe(workspace: Workspace, image: ImageName) -> dict[str, Any]:
    """The recipe inside one of the workspace's images, with its adapters."""
    values, adapters, problems = restored(workspace, image_path(workspace, image))
    for key in ("source", "mask"):
        values.pop(key, None)
    return {"recipe": values, "adapters": adapters, "problems": problems}


def generated(
    recipe: "Recipe",
    stop: threading.Event,
    progress: Progress | None = None,
    preview: Callable[[Any], None] | None = None,
    waiting: Callable[[int], None] | None = None,
) -> Iterator[tuple["Recipe", Any]]:
    """(recipe of one image, PIL.Image) one after the other, taking turns with training. Ends early when stopped.

    waiting: called with how many images come first while something else holds the device
    """
    from studio.generation import generate_all
    from studio.generation.drawing import singles

    drawn = generate_all(recipe, stop, progress, preview)
    for one in singles(recipe):
        try:
            with jobs.device(stop, waiting), timed(stop):
                if stop.is_set():
                    return
                image = next(drawn)
        except (GenerationError, BusyError):
            if stop.is_set():
                return  # asked for, so nothing to complain of
            raise
        yield one, image


def timed(stop: threading.Event | None) -> AbstractContextManager[None]:
    """Counts the time inside against what the caller may take, where that is limited."""
    return stop.timed() if isinstance(stop, Stop) else nullcontext()


def keep_source(workspace: Workspace, path: str | Path) -> Path:
    """The start of image to image, kept as PNG by content beside the images: a recipe names it, to be used again."""
    from studio.datasets import open_image

    try:
        image = open_image(Path(path)).convert("RGB")
    except DatasetError as error:
        raise GenerationError(str(error)) from error
    return _keep(workspace, image)


def keep_mask(workspace: Workspace, source: Path, painted: Any) -> str:
    """The name of the mask, white where `painted` (PIL RGBA) has anything; "" where nothing was painted."""
    hole = painted.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    return _keep(workspace, hole, f"{source.stem}-").name if hole.getbbox() else ""


def mask_of(workspace: Workspace, source: Path, name: str | None) -> Path | None:
    """The mask of this name; None when it was painted on another image."""
    path = _sources(workspace) / Path(name or "-").name
    return path if path.name.startswith(f"{source.stem}-") and is_file(path) else None


def _keep(workspace: Workspace, image: Any, before: str = "") -> Path:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    path = _sources(workspace) / f"{before}{hashlib.sha256(stream.getvalue()).hexdigest()[:20]}.png"
    if not path.is_file():
        atomic_write(path, stream.getvalue())
    return path


def _sources(workspace: Workspace) -> Path:
    return workspace.outputs / "sources"


def restored(workspace: Workspace, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """(values, adapters with their `key`, problems) of an image that was dropped. Raises GenerationError."""
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
    if base := values.pop("base", None):
        if name := base_models.name_of(workspace, base):
            values["base"] = name
            place = base_folder(base_models.line_of(workspace, name))
            if other := made_elsewhere("The image", base, found.base_hash, place):
                problems.append(other)
        else:
            problems.append(
                f"It was generated with {base[:60]!r}, which is not on the list of base models: choose one."
            )
    if values.get("source"):
        source = _sources(workspace) / Path(values["source"]).name
        if is_file(source):
            values["source"] = str(source)
        else:
            source_name = values.pop("source")[:60]
            problems.append(f"The image that it began from, {source_name!r}, is not here: choose it again.")
            values.pop("mask", None)
    return values, adapters, problems


def draw(recipe: "Recipe", stop: threading.Event | None = None, progress: Progress | None = None) -> Any:
    """One image (PIL.Image), taking turns with training for the device. None when stopped."""
    from studio.generation import generate

    try:
        with jobs.device(stop), timed(stop):
            return None if stop is not None and stop.is_set() else generate(recipe, stop=stop, progress=progress)
    except (GenerationError, BusyError):
        if stop is not None and stop.is_set():
            return None  # asked for, so nothing to complain of
        raise


def recipe_line(recipe: "Recipe") -> str:
    """What made the image, in one line that a person can read back."""
    parts = [f"seed {recipe.seed}", pluralize(recipe.steps, "step"), f"guidance {recipe.guidance:g}"]
    parts.append(f"{recipe.width} × {recipe.height}")
    parts += [f"{adapter.title} at {adapter.strength:g}" for adapter in recipe.adapters]
    prompt = re.sub(r"\s+", " ", recipe.prompt).strip()
    return f"{prompt if len(prompt) <= 90 else prompt[:89] + '…'} · " + " · ".join(parts)


def image_path(workspace: Workspace, name: str) -> Path:
    """The image of this name among the outputs: `NAME.png`, or `grids/GRID/NAME.png`. Raises WorkspaceError."""
    parts = str(name).split("/")
    if len(parts) == 3 and parts[0] == "grids":
        path = workspace.outputs / "grids" / checked_name(parts[1], "grid") / checked_name(parts[2], "image")
    else:
        path = workspace.outputs / checked_name(name, "image")
    if path.is_symlink():
        raise WorkspaceError(f"{name[:60]!r} is a link to another place: put the image itself there.")
    return path
