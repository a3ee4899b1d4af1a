"""Measure an adapter over strengths: against images of a dataset, in the background."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from studio.errors import DatasetError, GenerationError, StudioError
from studio.server.permissions import BUILT_IN
from studio.services import adapter_files, datasets, generation
from studio.services.adapter_files import AdapterName, adapter_name
from studio.services.generation import RecipeFields
from studio.services.image_groups import member_name, new_group
from studio.services.jobs import Job, fetching, jobs, latest, remember
from studio.services.operations import Expanded, operation, plain
from studio.services.parameters import Seeds
from studio.text import duration
from studio.workspace import Workspace, atomic_write, checked_name

if TYPE_CHECKING:
    from studio.datasets import Item
    from studio.generation.evaluation import Measured

OWN, NONE, SET = "own:", "none:", "set:"  # a training set: the adapter's own, none, or a dataset by its name
MOST_SEEDS = 8
_TRIGGERS = ("studio.trigger", "modelspec.trigger_phrase")  # where a file names its trigger words


def training_sets(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what images can be compared with."""
    named = [(label, f"{SET}{name}") for label, name in datasets.dataset_choices(workspace)]
    return [("Its own", OWN), *named, ("None", NONE)]


@operation()
def measure_adapter(
    workspace: Workspace,
    adapter: AdapterName,
    against: Annotated[
        str, Field(max_length=255, description="Dataset to compare with; empty: the one it was trained on.")
    ] = "",
    seeds: Seeds = 3,
    **fields: Expanded[RecipeFields],
) -> Job:
    """Measure the adapter over strengths in the background: see job_status, then measured."""
    wanted = f"{SET}{against}" if against else OWN
    return start_measuring(workspace, generation.composed(workspace, fields), adapter, wanted, seeds)


def _measured_answer(workspace: Workspace, found: "Measured | None") -> dict[str, Any]:
    """With "strips" beside "sweeps" and "pictures" beside "images", as version 0.1 answered."""
    table = plain(found) if found else {}
    return table | {"strips": [sweep | {"pictures": sweep["images"]} for sweep in table["sweeps"]]} if table else {}


@operation(answer=_measured_answer)
def measured(workspace: Workspace) -> "Measured | None":
    """What was measured last: a row for each strength, and the range that is suggested."""
    return newest(workspace)


def start_measuring(
    workspace: Workspace,
    recipe: Any,
    key: str,
    against: str = OWN,
    seeds: int = 3,
    encoder: str = "",
    download: bool = False,
) -> Job:
    """Generate strength sweeps of one adapter in the background, and measure them; the result is a Measured.

    key      the adapter, as `generation.available_adapters` has it
    against  what `training_sets` offers
    encoder  a CLIP's folder or hub id; "": the built-in one

    What was measured when it is stopped is kept. Raises StudioError.
    """
    file = generation.applied_fields(workspace, key)["file"]
    index = next((at for at, one in enumerate(recipe.adapters) if one.file == file), None)
    if index is None:
        raise GenerationError(f"{adapter_name(key)} is off: switch it on to measure it.")
    if not 1 <= seeds <= MOST_SEEDS:
        raise GenerationError(f"Measure with 1 to {MOST_SEEDS} seeds.")
    encoder = encoder.strip()
    _check_encoder(workspace, recipe.base, encoder)
    workspace.refuse_if_full()
    items, name = training_images(workspace, key, against)
    words = trigger_words(workspace, key)

    def work(job: Job) -> None:
        from studio.captioning.models import DownloadStopped
        from studio.captioning.scoring import load_clip

        job.message = "Loading the image encoder"
        try:
            clip = load_clip(encoder or None, download, fetching(job, "the image encoder"), job.stop_event)
        except DownloadStopped:
            return
        try:
            facts = (adapter_name(key), _held_out(workspace, key), _verdict(workspace, key))
            _measure(workspace, job, recipe, index, facts, items, name, words, seeds, clip, encoder)
        except GenerationError:
            if not job.stop_event.is_set():
                raise
        finally:
            clip.close()

    job = jobs.start("measure", f"Measuring {adapter_name(key)}", work, device=False, limit=workspace.allows.longest)
    remember(job, adapter_name(key))
    return job


def _check_encoder(workspace: Workspace, base: str, encoder: str) -> None:
    """Raises StudioError when it may not be used, or knows nothing of what the base generates."""
    from studio.hub import is_hub_id

    workspace.allows.check_model(encoder)
    if encoder and not is_hub_id(encoder):
        workspace.allows.need("folders")
    if not encoder and base != BUILT_IN:
        raise GenerationError(
            "The built-in image encoder knows only what the built-in base model generates: name a CLIP as the image "
            "encoder, like openai/clip-vit-base-patch32."
        )


def _measure(
    workspace: Workspace,
    job: Job,
    recipe: Any,
    index: int,
    facts: tuple[str, float | None, str],
    items: "list[Item]",
    dataset: str,
    triggers: tuple[str, ...],
    seeds: int,
    clip: Any,
    encoder: str,
) -> None:
    """facts: the adapter's name, the held-out loss of its run and the verdict on it, see Measured."""
    from studio.generation import evaluation, save_image
    from studio.generation.strength_sweep import STRENGTHS, at_strength, draw_strength_sweep

    def reading(done: int, total: int) -> None:
        job.done, job.total, job.message = done, total, f"Reading the training images: {done:,} of {total:,}"

    known = None
    if items:
        known = evaluation.embed_training_images(items, clip, workspace.cache / "embedded", job.stop_event, reading)
    words = evaluation.plain_words(recipe.prompt, triggers)
    found = evaluation.Measured(
        facts[0],
        words,
        encoder or "the built-in one",
        STRENGTHS,
        (),
        dataset,
        *((len(known.seen), known.usual, known.alike) if known else (0, None, None)),
        *facts[1:],
    )
    began, parts, group = time.monotonic(), generation.PARTS, new_group("measure")
    job.done, job.total = 0, seeds * parts
    for number in range(seeds):
        one = recipe.model_copy(update={"seed": recipe.seed + number, "count": 1})
        job.message = f"Strength sweep {number + 1} of {seeds}"
        progress = _progress(job, number, seeds, began)
        with jobs.device():
            images = draw_strength_sweep(one, STRENGTHS, index, job.stop_event, progress)
        recipes = [at_strength(one, strength, index) for strength in STRENGTHS]
        files = [member_name(group, len(STRENGTHS) * number + place, each) for place, each in enumerate(recipes)]
        names = [
            save_image(image, each, workspace.outputs, file).name
            for image, each, file in zip(images, recipes, files, strict=True)
        ]
        sweep = evaluation.score_sweep(images, names, one.seed, words, clip, known)
        found = evaluation.Measured(**{**vars(found), "sweeps": (*found.sweeps, sweep)})
        job.result = found
        job.done = (number + 1) * parts
    atomic_write(_file(workspace), _adapter().dump_json(found))
    job.message = "Measured."


def _progress(job: Job, number: int, seeds: int, began: float) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        share = (number + done / total) / seeds
        left = (time.monotonic() - began) * (1 - share) / share
        job.done = int(job.total * share)
        job.message = f"Strength sweep {number + 1} of {seeds}, step {done} of {total} · {duration(left)} left"

    return progress


def newest(workspace: Workspace) -> "Measured | None":
    """What was measured last, also before the studio was opened again."""
    last = latest.get("measure")
    if last and last.job.result:
        found: Measured = last.job.result
        return found
    try:
        return _adapter().validate_json(_file(workspace).read_bytes())
    except (OSError, ValidationError):
        return None


def _file(workspace: Workspace) -> Path:
    return workspace.cache / "measured.json"


def _adapter() -> "TypeAdapter[Measured]":
    from studio.generation.evaluation import Measured

    return TypeAdapter(Measured)


# What an adapter was trained on -------------------------------------------------------------------------------------


def training_images(workspace: Workspace, key: str, against: str) -> "tuple[list[Item], str]":
    """(images to compare with, the name of their set); ([], "") for none. Raises StudioError."""
    if against == NONE:
        return [], ""
    if against != OWN:
        opened = datasets.open_named(workspace, against.removeprefix(SET))
        return opened.items, opened.name
    config = run_config(workspace, key)
    if config is None:
        raise DatasetError(
            f"{adapter_name(key)} came as a file, which doesn't hold its training images: choose a dataset to "
            "compare with, or none."
        )
    folder = Path(config.data.folder)
    if not folder.is_dir():
        raise DatasetError(
            f"The folder {folder.name!r} that {adapter_name(key)} was trained on is gone: choose a dataset to compare "
            "with, or none."
        )
    return _trained_on(config), folder.name


def _trained_on(config: Any) -> "list[Item]":
    """The images of its folder that were not held out."""
    from studio.datasets import open_dataset
    from studio.training.selection import sources_of, split

    if config.data.held_out:  # they lie in a folder of their own
        return [item for source in sources_of(config.data) for item in open_dataset(source.place).items]
    alone = config.data.model_copy(update={"regularisation": ""})
    return split(config.model_copy(update={"data": alone})).items


def trigger_words(workspace: Workspace, key: str) -> tuple[str, ...]:
    """The words that its run or its file names; never the commonest tags, which mean something to an image encoder."""
    from studio.adapters import read_adapter
    from studio.generation import adapter_info
    from studio.training.folders import triggers_of

    config = run_config(workspace, key)
    if config is not None:
        return tuple(triggers_of(config.data))
    written = read_adapter(adapter_files.adapter_path(workspace, key)).metadata
    return adapter_info.trigger_words({name: written.get(name, "") for name in _TRIGGERS})


def _held_out(workspace: Workspace, key: str) -> float | None:
    """See Measured; None for a file, and where nothing was held out."""
    from studio.training.summary import summary

    kind, _, name = key.partition(":")
    if f"{kind}:" not in ("run:", generation.LIVE):
        return None
    with suppress(OSError, StudioError):
        return summary(workspace, checked_name(name, "run")).against_base
    return None


def _verdict(workspace: Workspace, key: str) -> str:
    """See Measured; the one that Train shows."""
    from studio.training import read_run

    kind, _, name = key.partition(":")
    if f"{kind}:" not in ("run:", generation.LIVE):
        return ""
    with suppress(OSError, StudioError):
        found = read_run(workspace, checked_name(name, "run")).verdict
        return f"{found.sentence} {found.remedy}".strip() if found else ""
    return ""


def run_config(workspace: Workspace, key: str) -> Any:
    """The settings of the run that an adapter is of; None when it is a file."""
    from studio.training import config_from_toml

    kind, _, name = key.partition(":")
    if f"{kind}:" not in ("run:", generation.LIVE):
        return None
    try:
        return config_from_toml(workspace.runs / checked_name(name, "run") / "run.toml")
    except (OSError, StudioError) as error:
        raise DatasetError(
            f"What {name[:60]!r} was trained on can't be read: choose a dataset to compare with, or none."
        ) from error
