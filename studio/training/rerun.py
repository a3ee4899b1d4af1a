"""A run as one file, with which it can be trained again elsewhere and compared: settings, what it was made of, losses.

Settings come from run.toml, hashes and versions from made_of.json, losses and scores from events.jsonl. The file names
no place of the machine that it was made on. No torch here.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.basemodels.choice import BaseChoice
from studio.errors import RunError
from studio.hub import is_hub_id
from studio.schema import explain
from studio.text import size
from studio.training import made_of
from studio.training.config import RunConfig, config_from_toml, dotted
from studio.training.folders import renamed
from studio.training.reading import read_run_folder
from studio.workspace import atomic_write

VERSION = 1
EXPECTED = "expected.json"  # in the folder of a run that is trained again: what it is compared with
MOST_BYTES, MOST_VALUES = 64_000_000, 3_500_000  # of a file, as a run of MOST_STEPS with many images has them
FROM_VISITORS = 1_000_000  # bytes where runs are short; a comparison reads the file again every few seconds
MOST_STEPS = 1_000_000
PLACES = ("data.folder", "data.held_out", "data.regularisation")  # settings that name a folder
FILES = ("adapter.init_from", "training.training_adapter")  # settings that name a file

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=1024)]
Hash = Annotated[str, Field(max_length=128)]
Facts = Annotated[list[Hash], Field(max_length=4)]  # short hash of the image, of its captions, of its mask, repeats
Files = Annotated[dict[Name, Facts], Field(max_length=100_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MadeOf(_Part):
    """See `made_of`; what an older run did not write down is empty."""

    versions: Annotated[dict[Name, Name], Field(max_length=100)] = {}
    device: Text = ""
    weights: Hash = ""
    base: Annotated[dict[Name, Hash], Field(max_length=10_000)] = {}
    data: Hash = ""
    files: Annotated[dict[Literal["trained", "held_out", "regularization"], Files], Field(max_length=3)] = {}
    copies: Annotated[dict[Name, Hash], Field(max_length=10)] = {}


class Held(_Part):
    step: int = Field(ge=0)
    loss: float
    base_loss: float


class Score(_Part):
    step: int = Field(ge=0)
    measures: Annotated[dict[Name, float], Field(max_length=100)] = {}


class Expected(_Part):
    """What the run wrote down. tensors: hash of the numbers in its adapter, whatever its metadata says."""

    state: Name = ""
    losses: Annotated[list[tuple[int, float]], Field(max_length=MOST_STEPS)] = []
    held_out: Annotated[list[Held], Field(max_length=100_000)] = []
    scores: Annotated[list[Score], Field(max_length=1000)] = []
    verdict: Text = ""
    kept: int = Field(0, ge=0)
    tensors: Hash = ""


class Rerun(_Part):
    """settings: as `config_from` takes them, folders and files by their last names alone."""

    format: Literal["lora-studio rerun"]
    version: int = Field(ge=1)
    name: Name
    settings: dict[str, Any]
    made_of: MadeOf
    expected: Expected


def rerun_of(folder: Path) -> Rerun:
    """Of a run in its folder. Raises RunError for one that is running, or has no step yet."""
    view = read_run_folder(folder)
    if view.state == "running":
        raise RunError(f"{folder.name} is running: its file is made when it has ended.")
    if not view.losses:
        raise RunError(f"{folder.name} has no step yet: there is nothing to compare with.")
    config = config_from_toml(folder / "run.toml")
    held = [Held(step=one.step, loss=one.loss, base_loss=one.base_loss) for one in view.validations if _finite(one)]
    scores = [
        Score(step=one.step, measures={name: measure.value for name, measure in one.measures.items()})
        for one in view.scores
    ]
    kept, tensors = tensors_of(folder / "adapter.safetensors")
    expected = Expected(
        state=view.state,
        losses=[(step, loss) for step, loss, _ in view.losses],
        held_out=held,
        scores=scores,
        verdict=view.verdict.sentence if view.verdict else "",
        kept=kept,
        tensors=tensors,
    )
    written = made_of.read(folder)
    try:
        made = MadeOf.model_validate({key: written[key] for key in MadeOf.model_fields if key in written})
    except ValidationError:  # damaged: as of a run that wrote nothing down
        made = MadeOf()
    return Rerun(
        format="lora-studio rerun",
        version=VERSION,
        name=folder.name,
        settings=portable(config),
        made_of=made,
        expected=expected,
    )


def portable(config: RunConfig) -> dict[str, Any]:
    """The settings without places of this machine."""
    values = {key: value for key, value in dotted(config).items() if value is not None}
    for key in (*PLACES, *FILES):
        values[key] = Path(values.get(key) or "").name
    values["data.folders"] = [renamed(line, lambda place: Path(place).name) for line in values["data.folders"]]
    choice = BaseChoice.of(values["base"])
    bare = choice.name if choice.name == "starter" or is_hub_id(choice.name) else Path(choice.name).name
    values["base"] = str(choice.model_copy(update={"name": bare, "vae": Path(choice.vae).name}))
    return values


def write(file: Path, record: Rerun) -> None:
    """Raises OSError."""
    atomic_write(file, json.dumps(record.model_dump(mode="json"), ensure_ascii=False, indent=1), lasting=False)


def read(file: Path, most: int = MOST_BYTES) -> Rerun:
    """Raises RunError for what is no such file, or has more bytes than `most`."""
    try:
        count = file.stat().st_size
        if count > most:
            raise RunError(f"{file.name} has {size(count)}, a rerun file at most {size(most)} here.")
        data = file.read_bytes()
        if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:  # each takes 50 to 130 bytes of memory
            raise RunError(f"{file.name} holds more than any run writes: choose a file of Reproduce → Download.")
        found = Rerun.model_validate_json(data)
    except OSError as error:
        raise RunError(f"{file.name} can't be read ({error.strerror}).") from error
    except ValidationError as error:
        raise RunError(f"{file.name} is no file of Reproduce → Download: {explain(error)}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file.name} is no file of Reproduce → Download.") from error
    if found.version > VERSION:
        raise RunError(f"{file.name} was made by a newer version of LoRA Studio: update it first.")
    return found


def tensors_of(file: Path) -> tuple[int, str]:
    """(step, hash of the tensors) as the adapter's metadata says; (0, "") where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            said = opened.metadata() or {}
        return int(said.get("studio.step", "0")), said.get("sshs_model_hash", "")[:128]
    except (OSError, SafetensorError, ValueError):
        return 0, ""


def _finite(one: Any) -> bool:
    return math.isfinite(one.loss) and math.isfinite(one.base_loss)
