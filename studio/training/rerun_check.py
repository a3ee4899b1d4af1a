"""Before a run is trained again: what is not as it was there. Images, captions, base, versions, device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.basemodels import base_folder
from studio.basemodels.choice import BaseChoice
from studio.basemodels.vae import vae_files
from studio.basemodels.weights import SHORT, weights_hash
from studio.errors import StudioError
from studio.text import pluralize
from studio.training import provenance
from studio.training.cache import Cache
from studio.training.config import RunConfig
from studio.training.rerun import FILES, Rerun
from studio.training.selection import Selection, split
from studio.workspace import Workspace, sha256_of

NAMED = 3  # images
KINDS = {"trained": "image", "held_out": "held-out image", "regularization": "regularization image"}


@dataclass(frozen=True)
class Differs:
    """One thing that is not as it was. decides: whether the losses can't be the same."""

    what: str  # "image", "base", "versions", "device" or "file"
    sentence: str
    decides: bool = True


def check(record: Rerun, config: RunConfig, workspace: Workspace) -> list[Differs]:
    """What differs between a run and its training with `config`. Reads files, trains nothing. Raises StudioError."""
    return [
        *_base(record, config),
        *_images(record, config, workspace),
        *_files(record, config),
        *_machine(record, config),
    ]


def _base(record: Rerun, config: RunConfig) -> list[Differs]:
    made = record.made_of
    try:
        now = weights_hash(base_folder(config.base))
        vae = {f"?vae={file.name}": sha256_of(file) for file in vae_files(BaseChoice.of(config.base).vae)}
    except (StudioError, OSError) as error:
        reason = str(error) if isinstance(error, StudioError) else "it can't be read."
        return [Differs("base", f"The base is not here: {reason}")]
    if made.weights and made.weights != now:
        return [Differs("base", f"Another base: its weights are {made.weights[:SHORT]} there, {now[:SHORT]} here.")]
    before = {name: one for name, one in made.base.items() if name.startswith("?vae=")}
    here = {name: one for name, one in vae.items() if name.endswith(".safetensors")}
    return [Differs("base", "Another VAE than there.")] if before != here and made.base else []


def _images(record: Rerun, config: RunConfig, workspace: Workspace) -> list[Differs]:
    if config.slider.positive:  # drawn by the base
        return []
    cache = Cache(workspace.cache / "encoded")
    chosen = split(config, lambda item: cache.facts(item)[0])
    now = provenance.files_of(cache, chosen, config.data)
    if not record.made_of.files:
        return _by_hash(record, cache, chosen)
    there = {kind: dict(record.made_of.files.get(kind, {})) for kind in KINDS}  # type: ignore[call-overload]
    here = {kind: now.get(kind, {}) for kind in KINDS}
    held_out = [sorted(groups["held_out"]) for groups in (there, here)]
    if not config.data.held_out:  # a share of the same folders, which follows from all their images
        for groups in (there, here):
            groups["trained"] = groups["trained"] | groups.pop("held_out")
    if config.data.class_images:  # the base draws them when the run begins
        there.pop("regularization")
    found = [one for kind in there for one in _compared(there[kind], here[kind], KINDS[kind])]
    if not found and held_out[0] != held_out[1]:
        found.append(
            Differs("image", f"Other images are held out: {_some(held_out[0])} there, {_some(held_out[1])} here.")
        )
    return found


def _by_hash(record: Rerun, cache: Cache, chosen: Selection) -> list[Differs]:
    """Of a run that wrote down one hash of all its images."""
    data = record.made_of.data
    if not data:
        return [
            Differs("image", "The run did not write down its images: whether these are the same is not known.", False)
        ]
    same = provenance.data_hash(cache, chosen.items) == data
    return [] if same else [Differs("image", "The images or captions are not those of the run; it did not say which.")]


def _compared(before: Mapping[str, Sequence[str]], here: Mapping[str, Sequence[str]], what: str) -> list[Differs]:
    found = []
    missing, more = sorted(before.keys() - here.keys()), sorted(here.keys() - before.keys())
    where = {facts[0]: name for name, facts in here.items()}
    moved = [f"{name} is called {where[before[name][0]]} here" for name in missing if before[name][0] in where]
    for names, verb in ((missing, "missing"), (more, "more than there")):
        if names:
            found.append(Differs("image", f"{pluralize(len(names), what)} {verb}: {_some(names)}."))
    if moved:
        found.append(Differs("image", f"Other names, which change the order: {'; '.join(moved[:NAMED])}."))
    both = sorted(before.keys() & here.keys())
    for place, said in enumerate(
        ("with other content", "with another caption", "with another mask", "with other repeats")
    ):
        other = [name for name in both if list(before[name])[place : place + 1] != list(here[name])[place : place + 1]]
        if other:
            found.append(Differs("image", f"{pluralize(len(other), what)} {said}: {_some(other)}."))
    return found


def _files(record: Rerun, config: RunConfig) -> list[Differs]:
    found = []
    for key in FILES:
        section, _, leaf = key.partition(".")
        place, expected = str(getattr(getattr(config, section), leaf)), record.made_of.copies.get(key, "")
        if not place:
            continue
        file = Path(place).expanduser()
        if not file.is_file():
            found.append(Differs("file", f"{key} is not here: {file.name}."))
        elif expected and sha256_of(file) != expected:
            found.append(Differs("file", f"{key} is another file than there: {file.name}."))
    return found


def _machine(record: Rerun, config: RunConfig) -> list[Differs]:
    made, found = record.made_of, []
    now = provenance.versions()
    other = [
        f"{name} {one} there, {now.get(name, 'none')} here"
        for name, one in made.versions.items()
        if now.get(name) != one
    ]
    if other:
        found.append(Differs("versions", f"Other versions: {'; '.join(other)}.", False))
    device = provenance.device_of(config)
    if made.device and made.device != device:
        found.append(Differs("device", f"Another device: {made.device} there, {device} here.", False))
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
