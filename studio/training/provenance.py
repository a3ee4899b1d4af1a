"""What a run was made of: with the same, the same run.toml gives the same bits. It stands in made_of.json."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from studio import __version__, devices
from studio.basemodels import Family
from studio.basemodels.vae import vae_files
from studio.basemodels.weights import weights_hash
from studio.datasets import Item
from studio.datasets.captions import text_lines
from studio.errors import DatasetError, RunError
from studio.text import pluralize
from studio.training import made_of, runs
from studio.training.cache import Cache, key_of
from studio.training.config import RunConfig, config_from_toml
from studio.training.config_sections import DataConfig
from studio.training.examples import Example
from studio.training.made_of import short
from studio.training.run_resources import precision_of
from studio.training.selection import Selection
from studio.workspace import sha256_of

PROGRAMS = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow")
_CHANGED = {
    "base": "The base model's files are not those that this run began with.",
    "data": "The images or their captions are not those that this run began with.",
    "held_out": "The held-out images are not those that this run began with.",
    "regularization": "The regularization images are not those that this run began with.",
    "masks": "The masks are not those that this run began with.",
    "versions": "This run began with other versions of the programs: its losses may differ in the last digits.",
}


def keep(
    folder: Path,
    base: Family,
    cache: Cache,
    chosen: Selection,
    examples: Sequence[Example],
    held_out: Sequence[Example],
) -> list[str]:
    """Write down what the run is made of when it begins; a line for each thing that is another one when it goes on.

    examples: what is trained on, regularization images included; held_out: what is measured on.
    """
    now = _facts(base, cache, chosen, examples)
    before = made_of.read(folder)
    if not before:  # a run that goes on keeps what it began with
        now |= _of_its_own(folder, cache, chosen)
    record = made_of.image_record(folder) or made_of.ImageRecord()
    trained = record.trained | {short(e.digest) for e in examples}
    images = {"trained": sorted(trained), "held_out": sorted({short(e.digest) for e in held_out})}
    made_of.update(folder, {**now, **before, "images": images})
    return _differences(before, now)


def changed(folder: Path, base: Family, cache: Cache, chosen: Selection, examples: Sequence[Example]) -> list[str]:
    """A line for each thing that is not what the run began with. Writes nothing."""
    return _differences(made_of.read(folder), _facts(base, cache, chosen, examples))


def _facts(base: Family, cache: Cache, chosen: Selection, examples: Sequence[Example]) -> dict[str, Any]:
    return {
        "versions": versions(),
        "base": base_files(base),
        "weights": weights_hash(base.folder),
        "data": data_hash(cache, chosen.items),
        "held_out": data_hash(cache, chosen.held_out),
        "regularization": data_hash(cache, chosen.regularization),
        "masks": key_of(sorted({(e.digest, e.mask) for e in examples if e.mask not in ("", "alpha")})),
        "image_count": len(chosen.items),
    }


def _of_its_own(folder: Path, cache: Cache, chosen: Selection) -> dict[str, Any]:
    """What another one needs to be the same run: device, each image with its caption, adapters that it begins from."""
    config = config_from_toml(folder / "run.toml")
    copies = {"adapter.init_from": runs.INIT, "training.training_adapter": runs.TRAINING_ADAPTER}
    return {
        "device": device_of(config),
        "files": {} if config.slider.positive else files_of(cache, chosen, config.data),
        "copies": {key: sha256_of(folder / name) for key, name in copies.items() if (folder / name).is_file()},
    }


def device_of(config: RunConfig) -> str:
    """What computes, and in which precision, in words: losses are the same bits on the same only."""
    device = devices.best_device()
    name = devices.device_name(device)
    if not devices.is_accelerator(device):
        threads = pluralize(torch.get_num_threads(), "thread")
        name = f"{name} with {torch.backends.cpu.get_cpu_capability()}, {threads}"
    return f"{name}, {precision_of(config.training)}"


def files_of(cache: Cache, chosen: Selection, data: DataConfig) -> dict[str, dict[str, list[str]]]:
    """{kind: {image: [short hash of its bytes, of its captions, of its mask or "", repeats]}} of a run's images."""
    found: dict[str, dict[str, list[str]]] = {}
    groups = {"trained": chosen.items, "held_out": chosen.held_out, "regularization": chosen.regularization}
    for kind, items in groups.items():
        for item in items:
            try:
                words = [item.caption, *(text_lines(item.path.with_name(file)) for file in item.variants)]
                mask = item.mask_file if chosen.data_of(item, data).masks else None
                facts = [short(cache.facts(item)[0]), short(key_of(words)), short(cache.digest(mask)) if mask else ""]
            except (DatasetError, OSError):  # left out of the run, which says so
                continue
            found.setdefault(kind, {})[item.file] = [*facts, str(item.repeats)]
    return found


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [sentence for key, sentence in _CHANGED.items() if before.get(key) not in (None, now[key])]


def refuse_other_weights(folder: Path, base: Family) -> None:
    """A run goes on with the weights that it began with, or not at all. Raises RunError."""
    before = made_of.read(folder)
    same = before.get("weights") == weights_hash(base.folder)
    if isinstance(old := before.get("base"), dict) and "weights" not in before:  # written by release 0.1
        now = base_files(base)
        same = all(now.get(name) == hash_ for name, hash_ in old.items() if not name.startswith("image_encoder"))
    if before and not same:
        raise RunError(
            f"This run began on other weights of {base.choice.short}, so its checkpoints don't fit: start it anew, or "
            "set its base to a folder with those weights (for the starter: assets/starter of the earlier release)."
        )


def begun_under(folder: Path) -> str:
    """The studio's version that the run began under: this one where it has not begun, "0" where nothing says it."""
    found = made_of.read(folder).get("versions")
    if isinstance(found, dict) and isinstance(found.get("studio"), str):
        return str(found["studio"])
    return "0" if (folder / "checkpoints").is_dir() else __version__


def keep_adapter(folder: Path) -> None:
    """Add the hash of the run's result."""
    made_of.update(folder, {"adapter": sha256_of(folder / "adapter.safetensors")})


def data_hash(cache: Cache, items: Sequence[Item]) -> str:
    """One hash of every image's bytes, its caption and how often it is seen, whatever the files are called."""
    facts = []
    for item in items:
        try:
            more = [text_lines(item.path.with_name(file)) for file in item.variants]
            facts.append((cache.facts(item)[0], item.caption, item.repeats, *([more] if more else [])))
        except (DatasetError, OSError):  # left out of the run, which says so
            continue
    return key_of(sorted(facts))


def base_files(base: Family) -> dict[str, str]:
    """{file: SHA-256} of the base's weights, and of a VAE that was chosen in place of its own."""
    if base.folder.is_file():
        files = {base.folder.name: base.folder}
    else:
        files = {file.relative_to(base.folder).as_posix(): file for file in base.folder.rglob("*.safetensors")}
    files |= {f"?vae={file.name}": file for file in vae_files(base.choice.vae) if file.suffix == ".safetensors"}
    return {name: sha256_of(file) for name, file in sorted(files.items())}


def versions() -> dict[str, str]:
    """{program: version} of what computes."""
    found = {"studio": __version__, "python": platform.python_version()}
    for name in PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
