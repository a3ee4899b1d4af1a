"""What was dropped on the page: each file is recognized, checked, and said where it belongs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import ConfigError, GenerationError, StudioError
from studio.services import adapter_files, runs
from studio.text import pluralize
from studio.workspace import Workspace

MANY = 40  # adapters of one drop; more are left, and said
LONGEST = 200_000  # bytes of a run.toml
CAPTIONS = (".txt", ".caption", ".json", ".jsonl", ".csv")  # beside images


@dataclass
class Dropped:
    """The files of one drop by what they are.

    adapters   keys of those that are kept in the workspace now; an unusable one is among the problems
    recipe     an image with its recipe inside, dropped alone
    images     images without one, or several; with captions and zips they are for a dataset
    settings   a run.toml, or what another program wrote in its place
    """

    adapters: list[str] = field(default_factory=list)
    recipe: Path | None = None
    images: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    captions: list[Path] = field(default_factory=list)
    settings: Path | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def for_dataset(self) -> list[Path]:
        return [*self.images, *self.archives, *self.captions] if self.images or self.archives else []


def sort_files(workspace: Workspace, paths: Sequence[str | Path]) -> Dropped:
    """Each file by what it is. Adapters are checked and kept; nothing else is written."""
    from studio.datasets.images import SUFFIXES

    found, settings = Dropped(), list[Path]()
    for path in map(Path, paths):
        suffix = path.suffix.lower()
        if suffix == ".safetensors":
            _keep_adapter(workspace, path, found)
        elif suffix == ".toml":
            settings.append(path)
        elif suffix == ".zip":
            found.archives.append(path)
        elif suffix in SUFFIXES:
            found.images.append(path)
        elif suffix in CAPTIONS:
            found.captions.append(path)
        else:
            found.problems.append(f"{path.name[:80]}: no adapter, image, zip or run.toml, so it was left out.")
    found.settings = settings[0] if settings else None
    found.problems += [f"{path.name[:80]}: one run.toml at a time, so it was left out." for path in settings[1:]]
    if found.captions and not found.for_dataset:
        many = pluralize(len(found.captions), "file")
        found.problems.append(f"{many} of captions came without images: drop both together.")
    if len(found.images) == 1 and len(found.for_dataset) == 1 and has_recipe(found.images[0]):
        found.recipe = found.images.pop()
    return found


def _keep_adapter(workspace: Workspace, path: Path, found: Dropped) -> None:
    if len(found.adapters) >= MANY:
        found.problems.append(f"{path.name[:80]}: {MANY} adapters at once is the most, so it was left out.")
        return
    try:
        key = adapter_files.add_adapter_file(workspace, path)
    except StudioError as error:
        found.problems.append(str(error))
        return
    if key not in found.adapters:
        found.adapters.append(key)


def has_recipe(path: Path) -> bool:
    """Whether an image says how it was made."""
    from studio.generation import read_recipe

    try:
        read_recipe(path)
    except GenerationError:
        return False
    return True


def dropped_settings(workspace: Workspace, path: Path) -> tuple[dict[str, Any], list[str]]:
    """(settings for the Train form, lines on what was translated) of a run.toml from anywhere. Raises ConfigError."""
    if path.stat().st_size > LONGEST:
        raise ConfigError(f"{path.name[:80]} is too long for settings: drop the run.toml of a run.")
    return runs.settings_from_file(workspace, path)


def restored_text(name: str, values: dict[str, Any], adapters: Sequence[dict[str, Any]]) -> str:
    """What the form took from the image `name`: "Restored from x.png: prompt, seed 7, 20 steps, ink at 0.8"."""
    parts = [label for key, label in (("prompt", "prompt"), ("negative_prompt", "negative prompt")) if values.get(key)]
    parts += [
        f"{label} {values[key]}" for key, label in (("seed", "seed"), ("scheduler", "scheduler")) if key in values
    ]
    if values.get("steps"):
        parts.append(pluralize(values["steps"], "step"))
    if values.get("guidance") is not None:
        parts.append(f"guidance {values['guidance']:g}")
    if values.get("width") and values.get("height"):
        parts.append(f"{values['width']} × {values['height']}")
    if values.get("base"):
        parts.append(f"base model {values['base']}")
    if values.get("source"):
        parts.append("image to image")
    parts += [f"{adapter_files.adapter_name(one['key'])} at {one.get('strength', 1.0):g}" for one in adapters]
    return f"Restored from {name}: {', '.join(parts)}." if parts else f"{name} has an empty recipe."
