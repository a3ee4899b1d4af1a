"""What a run says while it goes on: plain data, one JSON line each in the run folder."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Started:
    step: int  # 0, or where a resumed run goes on
    steps: int
    process: int  # of the process that trains, with its start time: tells a running run from an interrupted one
    process_started: float
    parameters: str  # "trainable / total (share)"


@dataclass(frozen=True)
class Step:
    step: int
    loss: float
    smoothed: float
    learning_rate: float
    rate: float  # steps a second
    seconds_left: float


@dataclass(frozen=True)
class Validation:
    step: int
    loss: float  # on held-out pictures, at the same noise and timesteps every time
    base_loss: float  # the same without the adapter


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
class Warned:
    step: int
    message: str


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


Event = Started | Step | Validation | Preview | Checkpoint | Warned | Finished | Stopped | Failed
KINDS = {
    cls.__name__: cls for cls in (Started, Step, Validation, Preview, Checkpoint, Warned, Finished, Stopped, Failed)
}


def to_dict(event: Event) -> dict:
    return {"event": type(event).__name__, **asdict(event)}


def from_dict(values: dict) -> Event:
    """Raises KeyError or TypeError on what is no event."""
    values = dict(values)
    return KINDS[values.pop("event")](**values)
