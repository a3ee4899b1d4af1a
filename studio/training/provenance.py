"""What a run was made of, in made_of.json of its folder: with the same, the same run.toml gives the same bits.

{"versions": {program: version}, "base": {file: sha256}, "weights": one hash of what the base draws with,
 "data": sha256 of all pictures and words, "pictures": how many, "adapter": sha256 of adapter.safetensors, once it is
 written}
"""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studio import __version__
from studio.basemodels import Family
from studio.basemodels.weights import weights_hash
from studio.datasets import Item
from studio.errors import DatasetError, RunError
from studio.training.cache import Cache, key_of
from studio.workspace import sha256_of, write_whole

FILE = "made_of.json"
PROGRAMS = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow")


def keep(folder: Path, base: Family, cache: Cache, items: list[Item]) -> list[str]:
    """Write down what the run is made of when it begins; a line for each thing that is another one when it goes on."""
    now = {
        "versions": {"studio": __version__, "python": platform.python_version()} | _versions(),
        "base": {name: sha256_of(file) for name, file in _weights(base)},
        "weights": weights_hash(base.folder),
        "data": data_hash(cache, items),
        "pictures": len(items),
    }
    before = read(folder)
    if not before:
        write_whole(folder / FILE, json.dumps(now, indent=1, ensure_ascii=False))
        return []
    words = {
        "base": "The base model's files are not those that this run began with.",
        "data": "The pictures or their captions are not those that this run began with.",
        "versions": "This run began with other versions of the programs: its losses may differ in the last digits.",
    }
    return [said for key, said in words.items() if before.get(key) not in (None, now[key])]


def refuse_other_weights(folder: Path, base: Family) -> None:
    """A run goes on with the weights that it began with, or not at all. Raises RunError."""
    before = read(folder)
    same = before.get("weights") == weights_hash(base.folder)
    if isinstance(old := before.get("base"), dict) and "weights" not in before:  # written by release 0.1
        now = {name: sha256_of(file) for name, file in _weights(base)}
        same = all(now.get(name) == hash_ for name, hash_ in old.items() if not name.startswith("image_encoder"))
    if before and not same:
        raise RunError(
            f"This run began on other weights of {base.choice.short}, so its checkpoints don't fit: start it anew, or "
            "set its base to a folder with those weights (for the starter: assets/starter of the earlier release)."
        )


def begun_under(folder: Path) -> str:
    """The studio's version that the run began under: this one where it has not begun, "0" where nothing says it."""
    found = read(folder).get("versions")
    if isinstance(found, dict) and isinstance(found.get("studio"), str):
        return found["studio"]
    return "0" if (folder / "checkpoints").is_dir() else __version__


def keep_adapter(folder: Path) -> None:
    """Add the hash of the run's result."""
    known = read(folder) | {"adapter": sha256_of(folder / "adapter.safetensors")}
    write_whole(folder / FILE, json.dumps(known, indent=1, ensure_ascii=False))


def read(folder: Path) -> dict:
    """What is written there; {} when there is nothing, or it is damaged."""
    try:
        found = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def data_hash(cache: Cache, items: list[Item]) -> str:
    """One hash of every picture's bytes, its caption and how often it is seen, whatever the files are called."""
    facts = []
    for item in items:
        try:
            facts.append((cache.facts(item)[0], item.caption, item.repeats))
        except (DatasetError, OSError):  # left out of the run, which says so
            continue
    return key_of(sorted(facts))


def _weights(base: Family) -> list[tuple[str, Path]]:
    if base.folder.is_file():
        return [(base.folder.name, base.folder)]
    return [(file.relative_to(base.folder).as_posix(), file) for file in sorted(base.folder.rglob("*.safetensors"))]


def _versions() -> dict[str, str]:
    found = {}
    for name in PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
