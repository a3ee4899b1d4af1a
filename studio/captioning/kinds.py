"""The captioners there are, in one dict. Adding one is adding a file, and a line here."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from studio.building import building
from studio.captioning.blip import Blip2Settings, BlipCaptioner, BlipSettings
from studio.captioning.chat import ChatCaptioner, ChatSettings, JoySettings
from studio.captioning.chat_server import ServerCaptioner, ServerSettings
from studio.captioning.florence import FlorenceCaptioner, FlorenceSettings
from studio.captioning.models import SAFETENSORS, Progress, find_model
from studio.captioning.wd import FILES, WdSettings, WdTagger
from studio.errors import ConfigError
from studio.schema import explain


class Captioner(Protocol):
    """What every captioner is: loaded once, then asked as often as wanted, then closed.

    side        images may come smaller than they are, with no side below this in pixels; 0: whole
    batch_size  how many images it takes at once
    """

    side: int
    batch_size: int

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One line of text for each image; tags with ", " between them."""

    def close(self) -> None:
        """Give the memory back. It can't be used any more."""


class StarterSettings(BaseModel):
    """It has none."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Kind:
    """about: one line; settings: their schema; files: what the model's folder must hold, () when it has none of its
    own; make(folder, settings) loads it.
    """

    about: str
    settings: type[BaseModel]
    files: tuple[str, ...]
    make: Callable[[Path, Any], Any]

    @property
    def model(self) -> str:
        """The hub id that is taken when none is named; "" when it is part of the studio."""
        return self.settings.model_fields["model"].default if self.files else ""


def _starter(folder: Path, settings: BaseModel) -> Captioner:
    from studio.captioning.starter import StarterCaptioner

    return StarterCaptioner()


CAPTIONERS: dict[str, Kind] = {
    "starter": Kind("The built-in tagger: names the thing and the background; offline", StarterSettings, (), _starter),
    "blip": Kind("BLIP: a short sentence; 2 GB, runs anywhere", BlipSettings, SAFETENSORS, BlipCaptioner),
    "blip2": Kind("BLIP-2: a short sentence, better seen; 15 GB", Blip2Settings, SAFETENSORS, BlipCaptioner),
    "florence": Kind(
        "Florence-2: a sentence, a few, or a paragraph; 2 GB", FlorenceSettings, SAFETENSORS, FlorenceCaptioner
    ),
    "chat": Kind("Qwen-VL, LLaVA and their kind: answers your own prompt", ChatSettings, SAFETENSORS, ChatCaptioner),
    "joycaption": Kind("JoyCaption: made for captions of art; 17 GB", JoySettings, SAFETENSORS, ChatCaptioner),
    "server": Kind(
        "A model of Ollama, LM Studio, vLLM and their kind, by a prompt", ServerSettings, (), ServerCaptioner
    ),
    "wd": Kind("WD v3: Danbooru tags, for anime and drawings; 1 GB", WdSettings, FILES, WdTagger),
}


def list_captioners() -> dict[str, Kind]:
    """{name: what it is, its default model and the schema of its settings}, the built-in one first."""
    return dict(CAPTIONERS)


def captioner_settings(name: str, settings: BaseModel | Mapping[str, Any] | None = None) -> BaseModel:
    """The settings of captioner `name` with these changes, checked. Raises ConfigError."""
    kind = CAPTIONERS.get(name)
    if kind is None:
        raise ConfigError(f"There is no captioner {name[:60]!r}: choose {' or '.join(CAPTIONERS)}.")
    if isinstance(settings, kind.settings):
        return settings
    given = settings.model_dump() if isinstance(settings, BaseModel) else dict(settings or {})
    try:
        return kind.settings.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{name}.{explain(error)}") from error


def load_captioner(
    name: str,
    settings: BaseModel | Mapping[str, Any] | None = None,
    download: bool = False,
    download_progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Captioner:
    """Captioner `name`, ready. Its model is only fetched from the hub with `download`.

    download_progress  called with (bytes done, bytes in all)
    stop               ends a download (DownloadStopped), and later the sentence that is being written

    Raises ConfigError for settings that can't be, BaseModelError when the model is missing or unfit, saying what to do.
    """
    chosen = captioner_settings(name, settings)
    kind, folder = CAPTIONERS[name], Path()
    if kind.files:
        folder = find_model(chosen.model, kind.files, download, download_progress, stop)  # type: ignore[attr-defined]
    with building:
        captioner = kind.make(folder, chosen)
    if hasattr(captioner, "stop"):
        captioner.stop = stop
    return captioner
