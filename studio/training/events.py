"""What a run says while it goes on: plain data, one JSON line each in the run folder."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from studio.workspace import is_valid_unicode


@dataclass(frozen=True)
class Preparing:
    """Images and captions are being encoded, or `what` says what else is being done; before Started."""

    step: int
    done: int
    total: int
    what: str = ""


@dataclass(frozen=True)
class Started:
    step: int  # 0, or where a resumed run goes on
    steps: int
    process: int  # of the process that trains, with its start time: tells a running run from an interrupted one
    process_started: float
    parameters: str  # "trainable / total (share)"
    setup: str = ""  # device, precision, images and buckets, in words


@dataclass(frozen=True)
class Step:
    step: int
    loss: float
    smoothed: float
    learning_rate: float
    steps_per_second: float
    seconds_left: float
    gradient_norm: float = 0.0  # before clipping
    memory: float = 0.0  # GB: held on the accelerator, else by the process
    text_encoder_lr: float = 0.0


@dataclass(frozen=True)
class Validation:
    step: int
    loss: float  # on held-out images, at the same noise and timesteps every time
    base_loss: float  # the same without the adapter
    spread: float = 0.0  # standard error of loss - base_loss over images and draws
    bands: list[float] = field(default_factory=list)  # loss by quarter of the noise schedule, least noise first
    base_bands: list[float] = field(default_factory=list)
    verdict: str = ""  # one of verdict.WORDS
    held_out: str = ""  # names what was measured on; losses under another name can't be compared with these


@dataclass(frozen=True)
class Preview:
    step: int
    prompt: str
    file: str  # in the run folder


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: str  # in the run folder


@dataclass(frozen=True)
class RolledBack:
    step: int  # where the run goes on from
    message: str


@dataclass(frozen=True)
class Warned:
    step: int
    message: str


@dataclass(frozen=True)
class ExportChecked:
    """The saved file, loaded into a clean pipeline, against the adapter as it was trained."""

    step: int
    difference: float  # mean over the pixels of an image, in steps of 1/255
    unused: int  # keys of the file that found no place
    message: str


@dataclass(frozen=True)
class Scored:
    """A checkpoint's scorecard, see `scorecard.scores`."""

    step: int  # whose weights were measured; the run may be farther
    measures: dict[str, list[float]]  # name: [value, its standard error, images]
    strengths: list[float] = field(default_factory=list)
    strength_losses: list[float] = field(default_factory=list)  # held-out, as shares of the base's, at each of them
    suspects: list[str] = field(default_factory=list)
    encoder: str = ""
    rows: int = 0
    seconds: float = 0.0
    sheet: str = ""  # in the run folder


@dataclass(frozen=True)
class Judged:
    """The verdict on the run, see `scorecard.verdict`."""

    step: int
    outcome: str
    checkpoint: int
    strength: float
    sentence: str
    remedy: str = ""
    link: str = ""
    scoring: float = 0.0  # share of the run's time that scorecards took


@dataclass(frozen=True)
class Finished:
    step: int
    kept: int  # the step whose weights adapter.safetensors holds
    message: str


@dataclass(frozen=True)
class Stopped:
    step: int
    message: str


@dataclass(frozen=True)
class Failed:
    step: int
    message: str


Event = (
    Preparing
    | Started
    | Step
    | Validation
    | Preview
    | Checkpoint
    | RolledBack
    | Warned
    | ExportChecked
    | Scored
    | Judged
    | Finished
    | Stopped
    | Failed
)
KINDS: dict[str, type] = {cls.__name__: cls for cls in Event.__args__}
_OLD_KINDS = {"Certified": "ExportChecked"}
_OLD_FIELDS = {"Step": {"rate": "steps_per_second", "text_encoder_rate": "text_encoder_lr"}}
MOST = 2**63  # of a number: what is larger was never written here, and breaks whoever draws with it


def to_dict(event: Event) -> dict[str, Any]:
    return {"event": type(event).__name__, **asdict(event)}


def from_dict(values: dict[str, Any]) -> Event:
    """Raises KeyError or TypeError on what is no event, or holds other things than one does.

    Logs of before 0.2 are read by their own names.
    """
    values = dict(values)
    name = values.pop("event")
    kind = KINDS[_OLD_KINDS.get(name, name)]
    for old, new in _OLD_FIELDS.get(name, {}).items():
        if old in values:
            values[new] = values.pop(old)
    for name, value in values.items():
        if not _FITS[kind][name](value):
            raise TypeError(f"{name} of {kind.__name__}")
    event: Event = kind(**values)
    return event


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_integer(value)


def _is_integer(value: Any) -> bool:
    return type(value) is int and -MOST < value < MOST


def _is_text(value: Any) -> bool:
    return type(value) is str and is_valid_unicode(value)


def _are_numbers(value: Any) -> bool:
    return type(value) is list and all(map(_is_number, value))


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(map(_is_text, value))


def _is_table(value: Any) -> bool:
    return type(value) is dict and all(_is_text(key) and _are_numbers(row) for key, row in value.items())


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    int: _is_integer,
    float: _is_number,
    str: _is_text,
    list[float]: _are_numbers,
    list[str]: _are_texts,
    dict[str, list[float]]: _is_table,
}
_FITS = {cls: {one.name: _CHECKS[one.type] for one in fields(cls)} for cls in KINDS.values()}
