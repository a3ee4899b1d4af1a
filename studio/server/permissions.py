"""What a server lets people do. Actions ask it, behind page and endpoints alike: a hidden button protects nothing.

OWN      the page of a person's own machine: everything
REACHED  the same, opened to others by --host or --share: no paths of this machine
VISITED  public: everyone has a small workspace that expires, the built-in models, and an end to every job
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.errors import NotAllowedError

BUILT_IN = "starter"  # the base model, the captioner and the encoder that are part of the repository
MB, GB = 10**6, 10**9
_REFUSED = {
    "folders": "Paths of this machine can't be typed here: drop the files instead.",
    "models": "Only the built-in models can be used here: open the studio on your own machine for others.",
    "patterns": "Layers can't be named by patterns here: open the studio on your own machine for that.",
    "publish": "Nothing can be published from here: download the adapter, or open the studio on your own machine.",
}
_YOURS = "open the studio on your own machine for more."


@dataclass(frozen=True)
class Capabilities:
    """Each None is no limit. `most`: (dotted setting of a run, its largest value; 0 forbids a switch)."""

    folders: bool = True  # paths of this machine, typed
    models: bool = True  # base models and captioners other than the built-in ones, also fetched from a hub
    publish: bool = True
    patterns: bool = True  # regular expressions on layers, which can take for ever
    longest: float | None = None  # seconds of a job that holds the device
    most: tuple[tuple[str, float], ...] = ()
    side: int | None = None  # pixels of an image to be drawn
    count: int | None = None  # images drawn at once
    steps: int | None = None  # denoising steps
    drawing: float | None = None  # seconds that the images of one call may hold the device
    shared: float | None = None  # and while others wait for it
    line: int | None = None  # calls of one visitor that draw now or wait to
    calls: int | None = None  # calls of one visitor that wait, of whatever kind
    upload: int = 2 * GB  # bytes of one file
    uploads: int = 40 * GB  # bytes of all files that wait in the upload folder
    room: int | None = None  # bytes of one workspace
    caption_server: str = ""  # the address of an OpenAI-compatible server that writes captions; "": none is opened
    caption_key: str = field(default="", repr=False)  # of its API

    def need(self, what: str) -> None:
        """Raises NotAllowedError, in one sentence, when this server does not let people do `what`."""
        if not getattr(self, what):
            raise NotAllowedError(_REFUSED[what])

    def check_model(self, name: Any) -> None:
        """Raises NotAllowedError for a model other than the built-in one where only that is for use."""
        if name and name != BUILT_IN:
            self.need("models")

    def check_run(self, values: Mapping[str, Any]) -> None:
        """Raises NotAllowedError when a run is larger than it may be. values: by dotted setting."""
        self.check_model(values.get("base"))
        if values.get("adapter.patterns"):
            self.need("patterns")
        for key, most in self.most:
            value = values.get(key)
            if key == "data.resolution":
                value = max([value or 0, *(values.get("data.more_resolutions") or ())])
            if value is not None and value > most:
                name = key.replace(".", ", ").replace("_", " ")
                limit = f"at most {most:g}" if most else "off"
                raise NotAllowedError(f"{name.capitalize()} must be {limit} here: {_YOURS}")

    def check_recipe(self, recipe: Any) -> None:
        """Raises NotAllowedError when a Recipe asks for more than may be drawn."""
        self.check_model(recipe.base)
        if self.side and max(recipe.width, recipe.height) > self.side:
            raise NotAllowedError(f"An image may have at most {self.side} pixels a side here: {_YOURS}")
        if self.count and recipe.count > self.count:
            raise NotAllowedError(f"At most {self.count} images at once can be generated here: {_YOURS}")
        if self.steps and recipe.steps > self.steps:
            raise NotAllowedError(f"An image may take at most {self.steps} steps here: {_YOURS}")


OWN = Capabilities()
REACHED = Capabilities(folders=False)
VISITED = Capabilities(
    folders=False,
    models=False,
    publish=False,
    patterns=False,
    longest=20 * 60,
    most=(
        ("training.steps", 1000),
        ("training.batch_size", 8),
        ("training.accumulation", 4),
        ("training.compile", 0),
        ("training.keep_checkpoints", 20),
        ("data.resolution", 256),
        ("data.class_images", 50),
        ("data.augmentations", 8),
        ("data.caption_draws", 32),
        ("adapter.rank", 64),
        ("preview.steps", 30),
        ("slider.images", 16),
    ),
    side=512,
    count=8,
    steps=50,
    drawing=5 * 60,
    shared=30,
    line=2,
    calls=40,
    upload=200 * MB,
    uploads=4 * GB,
    room=1 * GB,
)
