"""Base models: inspect one, keep it on the list, choose it, download it.

The page knows bases by name. A path or a hub id is typed only where the page is the owner's own (`base_chooser`); from
then on the workspace's list says what the name stands for.
"""

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from studio.basemodels.choice import BaseChoice
from studio.errors import BaseModelError, StudioError
from studio.hub import is_hub_id
from studio.schema import explain
from studio.services.jobs import Job, jobs
from studio.services.operations import operation
from studio.services.parameters import BaseName, Table
from studio.workspace import Workspace, atomic_write, expanded, is_valid_unicode

if TYPE_CHECKING:
    from studio.basemodels.card import Card
    from studio.basemodels.token_counter import TokenCounter
    from studio.training.config_sections import AdapterConfig
    from studio.training.parameter_count import CaughtLayers

STARTER = "starter"
DEFAULT_SIZE = 128  # pixels: the starter's size
MOST = 100  # bases on the list
_STARTERS_OWN = "The built-in starter: small and quick, generates things on plain backgrounds, needs no download."
_lock = threading.Lock()  # around each change of the list


# The list -----------------------------------------------------------------------------------------------------------


@operation()
def list_bases(workspace: Workspace) -> list[str]:
    """Base models that are known here, by name."""
    return [name for _, name in base_choices(workspace)]


@operation()
def describe_base(workspace: Workspace, base: BaseName = "starter") -> dict[str, Any]:
    """What a base model is and what it takes, from its settings and headers alone."""
    return asdict(inspect_base(line_of(workspace, base)))


@operation()
def add_base(
    workspace: Workspace,
    place: Annotated[
        str, Field(max_length=2000, description="A folder, a .safetensors file or owner/name of the Hub.")
    ],
) -> str:
    """Put a base model on the list. Answers its name."""
    return remember(workspace, line_from(workspace, place, {}))


@operation()
def download_base(
    workspace: Workspace,
    place: Annotated[str, Field(max_length=2000, description="owner/name of the Hub.")],
    token: Annotated[str, Field(max_length=500, description="The Hub's token; it is not kept.")] = "",
) -> Job:
    """Download a base model from the Hub in the background and put it on the list."""
    return start_download(workspace, line_from(workspace, place, {}), token)


@operation()
def remove_base(workspace: Workspace, base: BaseName) -> bool:
    """Remove a base model from the list. Its files stay, and so do runs and images made with it."""
    forget(workspace, base)
    return True


def base_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, name) of the starter and of every base that was used before, the newest first."""
    known = _read(workspace)[0] if workspace.allows.models else {}
    return [("Starter (built in)", STARTER), *((name, name) for name in reversed(known))]


def line_of(workspace: Workspace, name: str | None) -> str:
    """The line that a name of the list stands for, as `load_base` takes it. Raises BaseModelError, NotAllowedError."""
    workspace.allows.check_model(name)
    if name in (None, "", STARTER):
        return STARTER
    known = _read(workspace)[0]
    if not isinstance(name, str) or name not in known:
        raise BaseModelError(f"There is no base model {str(name)[:60]!r} on the list: choose another one.")
    return known[name]


def name_of(workspace: Workspace, line: str) -> str:
    """The name on the list of a base that a run or a recipe names; "" when it is not there."""
    if line == STARTER:
        return STARTER
    return next((name for name, known in _read(workspace)[0].items() if line in (name, known)), "")


def remember(workspace: Workspace, line: str) -> str:
    """Put a base on the list, as its newest one; returns its name. Raises BaseModelError when it can't be used."""
    _own_page(workspace)
    inspect_base(line)
    with _lock:
        known, chosen = _read(workspace)
        name = next((name for name, there in known.items() if there == line), "")
        if not name:
            name, count = BaseChoice.of(line).title, 1
            while name in known or name == STARTER:
                count += 1
                name = f"{BaseChoice.of(line).title} {count}"
        known.pop(name, None)
        known[name] = line
        _write(workspace, dict(list(known.items())[-MOST:]), chosen)
    return name


def forget(workspace: Workspace, name: str) -> None:
    """Take a base off the list. Its files stay, and so do runs and images made with it."""
    with _lock:
        known, chosen = _read(workspace)
        known.pop(name, None)
        _write(workspace, known, chosen if chosen in known else STARTER)


def choose(workspace: Workspace, name: str) -> None:
    """The base that will be trained on: what counts tokens and sizes in the Dataset tab follows it."""
    line_of(workspace, name)
    with _lock:
        known, chosen = _read(workspace)
        if name != chosen:
            _write(workspace, known, name)


def chosen(workspace: Workspace) -> str:
    """The line of the base that was chosen last for training; the starter where that is gone."""
    known, name = _read(workspace)
    return known.get(name, STARTER)


def size_of(line: str) -> int:
    """The side in pixels that a base is trained at; the starter's where it can't be read."""
    try:
        return DEFAULT_SIZE if line == STARTER else inspect_base(line).resolution
    except StudioError:
        return DEFAULT_SIZE


def _read(workspace: Workspace) -> tuple[dict[str, str], str]:
    """({name: line}, the chosen name); whatever is damaged counts as nothing."""
    try:
        found = json.loads((workspace.root / "bases.json").read_bytes())
        known = {
            name: line
            for name, line in found["bases"].items()
            if isinstance(line, str) and is_valid_unicode(name, line)
        }
        return known, str(found.get("chosen", STARTER))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, STARTER


def _write(workspace: Workspace, known: dict[str, str], chosen: str) -> None:
    atomic_write(workspace.root / "bases.json", json.dumps({"chosen": chosen, "bases": known}, indent=2))


# One base -----------------------------------------------------------------------------------------------------------


def line_from(workspace: Workspace, place: str, options: dict[str, Any]) -> str:
    """The line of a base that was typed: a folder, a .safetensors file or a hub id, with settings of BaseChoice.

    Raises BaseModelError, and NotAllowedError where nothing may be typed.
    """
    _own_page(workspace)
    place = (place or "").strip().strip("\"'")
    if not place:
        raise BaseModelError("Say which base: a folder, a .safetensors file, or owner/name from huggingface.co.")
    typed = BaseChoice.of(place)
    given = {key: value for key, value in options.items() if value not in (None, "", False)}
    path = expanded(typed.name)
    name = str(path.resolve()) if _is_there(path) else typed.name
    try:
        return str(BaseChoice(**{**typed.model_dump(), **given, "name": name}))
    except ValidationError as error:
        raise BaseModelError(explain(error)) from error


def _own_page(workspace: Workspace) -> None:
    workspace.allows.need("models")
    workspace.allows.need("folders")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def inspect_base(line: str) -> "Card":
    """What the base is, from its settings and headers alone. Raises BaseModelError."""
    from studio.basemodels.card import describe_base

    return describe_base(line)


def card_lines(workspace: Workspace, name: str) -> str:
    """The card of a base on the list, in lines; what is wrong with it where it can't be used any more."""
    if name == STARTER:
        return _STARTERS_OWN
    return str(inspect_base(line_of(workspace, name)))


def can_be_fetched(line: str) -> bool:
    """Whether it is named as the hub names models, and not here."""
    from studio.basemodels import base_folder

    choice = BaseChoice.of(line)
    if not is_hub_id(choice.name) or _is_there(Path(choice.name)):
        return False
    try:
        base_folder(line)
    except BaseModelError:
        return True
    return False


OF_A_BASE = ("steps", "guidance", "guidance_rescale")


def usual(workspace: Workspace, name: str) -> dict[str, Any]:
    """How one draws with it: width, height, step of both, steps, guidance, and the schedulers that suit it."""
    from studio.generation.schedulers import suitable

    line = line_of(workspace, name)
    card = inspect_base(line)
    return {"step": card.step, "schedulers": suitable(card.prediction_type), **own_defaults(line)}


def own_defaults(line: str) -> dict[str, Any]:
    """Width, height, steps, guidance and its rescaling, as fields of a Recipe, where nothing else is said."""
    from studio.basemodels.defaults import variant_of
    from studio.training.config_sections import PreviewConfig

    own, side = variant_of(line).settings, inspect_base(line).resolution
    plain = {key: getattr(PreviewConfig(), key) for key in OF_A_BASE}
    return {"width": side, "height": side} | {key: own.get(f"preview.{key}", plain[key]) for key in OF_A_BASE}


def refuse_what_does_not_fit(line: str, width: Any, height: Any, scheduler: str | None) -> None:
    """Raises StudioError where the base can't draw that size, or not by that scheduler; nothing is loaded."""
    from studio.basemodels.sizes import refuse_size
    from studio.generation.schedulers import FLOW, OWN

    card = inspect_base(line)
    if isinstance(width, int) and isinstance(height, int):
        refuse_size(card.title, card.step, width, height)
    if card.prediction_type == "flow" and scheduler and scheduler not in (OWN, *FLOW):
        raise StudioError(f"{card.title} does not go with {scheduler}: choose {', '.join((OWN, *FLOW))}.")


def parameter_line(workspace: Workspace, name: str, adapter: dict[str, Any]) -> str:
    """How many numbers a run would train. adapter: settings of AdapterConfig as they stand in the form."""
    from studio.training.parameter_count import parameter_line

    line = line_of(workspace, name)
    return parameter_line(_adapter_of(workspace, line, adapter), line, by_line=False)


@operation()
def layer_table(
    workspace: Workspace,
    base: BaseName = "starter",
    more: Annotated[
        Table | None,
        Field(description='Adapter settings, such as {"targets": "attention", "patterns": ["attn1 rank=8 lr=5e-5"]}.'),
    ] = None,
) -> "list[CaughtLayers]":
    """How many layers and parameters each line of adapter.patterns trains, adapter.targets beside them, and all."""
    from studio.training.parameter_count import layer_table

    line = line_of(workspace, base)
    return layer_table(_adapter_of(workspace, line, more or {}), line)


def _adapter_of(workspace: Workspace, line: str, given: dict[str, Any]) -> "AdapterConfig":
    from studio.training.defaults import config_for

    if given.get("patterns"):
        workspace.allows.need("patterns")
    settings = {f"adapter.{key.removeprefix('adapter.')}": value for key, value in given.items()}
    return config_for({"data.folder": "-", "base": line, **settings}).adapter


def counter(workspace: Workspace, name: str | None = None) -> "TokenCounter":
    """How captions are counted: by the base `name`, else the chosen one; by the starter where that can't be read."""
    from studio.basemodels.tokens import token_counter

    try:
        return token_counter(chosen(workspace) if name is None else line_of(workspace, name))
    except StudioError:
        return token_counter()


# From the hub -------------------------------------------------------------------------------------------------------


def start_download(workspace: Workspace, line: str, token: str = "") -> Job:
    """Fetch a base from the hub in the background and put it on the list; the result is its name there.

    What came before it was stopped is not fetched again. The token goes to the hub and nowhere else.
    """
    _own_page(workspace)
    choice = BaseChoice.of(line)

    def work(job: Job) -> None:
        from studio.basemodels.hub import fetch_base
        from studio.hub import DownloadStopped

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total
            job.message = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"

        job.message = "Asking what there is"
        try:
            fetch_base(line, token.strip() or None, progress, job.stop_event)
        except DownloadStopped:
            job.message = "Stopped. The files that came whole stay; Download goes on with the others."
            return
        job.result = remember(workspace, line)
        job.message = f"{job.result} is here."

    return jobs.start("base", f"Fetching {choice.short}", work, device=False)


def download() -> Job | None:
    """The newest download, also after its end."""
    return jobs.beside.get("base")
