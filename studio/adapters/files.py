"""Reading adapter files: one normal form inside, whatever program wrote them. `writing` writes them."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from studio.adapters import names
from studio.adapters.header import Entry, read_header
from studio.adapters.peft_config import NEIGHBOUR, PeftConfig
from studio.adapters.update import Update, update_of
from studio.errors import AdapterError
from studio.text import pluralize

_CHUNK = 2**20  # bytes
_SMALL, _FLAGS = 64, ("alpha", "on_input", "neumann")  # bytes and parts of the tensors that are read with the header


@dataclass(frozen=True)
class AdapterFile:
    """A file's contents in one form.

    layers    {(component, key): its update}; component is "" when the file names none, key is a dotted path or,
              from kohya's layout, a flattened one
    embeddings  bundled words, {token: {part of the key, such as "clip_l": (words, width)}}
    not_finite  keys of tensors that hold NaN or infinity: `attach_file` refuses them unless forced
    metadata  what the file says about itself, as it stands there
    unknown   {key: why it is not used}: nothing is dropped silently
    notes     a sentence for each thing that was assumed, or that the file says and that has no effect
    keys      {place in `layers`: the keys that made it}; with those of embeddings and `unknown`, all of the file
    tensors   how many the file holds
    hash      SHA-256 of the whole file, "" from `read_outline`; size in bytes
    """

    name: str
    path: Path
    size: int
    hash: str
    layout: str
    layers: dict[tuple[str, str], Update] = field(repr=False)
    metadata: dict[str, str] = field(repr=False)
    unknown: dict[str, str] = field(repr=False)
    embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    not_finite: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    keys: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict, repr=False)
    tensors: int = 0

    def refuse_if_damaged(self) -> None:
        """Raises AdapterError when it holds NaN or infinity: even at strength 0 they would spoil an image."""
        if self.not_finite:
            more = f" and {len(self.not_finite) - 1} more" if len(self.not_finite) > 1 else ""
            raise AdapterError(
                f"{self.name} holds numbers that are not finite ({self.not_finite[0]}{more}): use an earlier copy."
            )

    @property
    def ranks(self) -> Counter[int]:
        """{rank: number of layers}."""
        return Counter(f.rank for f in self.layers.values())

    @property
    def alphas(self) -> Counter[float]:
        """{alpha: number of layers}."""
        return Counter(f.alpha for f in self.layers.values())

    @property
    def kinds(self) -> Counter[str]:
        """{kind as people call it: number of layers}."""
        return Counter(u.label for u in self.layers.values())

    @property
    def rank(self) -> int:
        """The commonest rank."""
        return self.ranks.most_common(1)[0][0]

    @property
    def alpha(self) -> float:
        """The commonest alpha."""
        return self.alphas.most_common(1)[0][0]


def read_adapter(path: str | Path) -> AdapterFile:
    """Read an adapter file safely: no code in it is run, and what it claims is checked before memory is allocated.

    Raises AdapterError in one sentence that says what is wrong and what to do.
    """
    return _read(Path(path), _read_tensors)


def read_outline(path: str | Path) -> AdapterFile:
    """The file as `read_adapter` gives it, from its header and alphas alone: in milliseconds, whatever its size.

    Its tensors have a shape and no numbers (torch's "meta" device); its hash is empty, and NaN is not looked for.
    Raises AdapterError.
    """
    return _read(Path(path), _read_small_tensors)


def autov3_hash(path: str | Path) -> str:
    """The first 12 digits of the SHA-256 of the file's tensors, without its header; "" when it can't be read.

    The hash by which image sites and other programs find an adapter: kohya's scripts write it into the metadata as
    `sshs_model_hash`, the sites call it AutoV3.
    """
    path = Path(path)
    try:
        stat = path.stat()
        return _body_hash(path, stat.st_size, stat.st_mtime_ns)[:12]
    except (OSError, OverflowError, ValueError):
        return ""


@lru_cache(256)
def _body_hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 of what follows the header. size, changed: of the file, so that a new one is read again."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read(path: Path, read_tensors: "_Reader") -> AdapterFile:
    if not path.is_file():
        raise AdapterError(f"There is no adapter file {path}: check the name.")
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            entries, metadata, head = read_header(stream, path, size)
            tensors, digest = read_tensors(stream, entries, head)
    except OSError as error:
        raise AdapterError(f"Can't read {path.name}: {error.strerror}.") from error
    except ValueError as error:
        raise AdapterError(f"{path.name} is damaged ({error}): save or download it again.") from error
    try:
        found = _group(entries, tensors)
        config = PeftConfig.of(metadata, path)
        notes = [*_complete_alphas(found, config, path), *_complete_turns(found, config)]
        notes += _scale_whole_products(found, config)
    except ValueError as error:
        raise AdapterError(f"{path.name} can't be used ({error}): save or download it again.") from error
    if not found.layers:
        why = Counter(found.unknown.values()).most_common(1)
        raise AdapterError(
            f"{path.name} holds no adapter ({why[0][0] if why else 'it has no tensors'}): choose an adapter's file."
        )
    layout = "kohya" if any(entry.name.startswith(tuple(names.KOHYA_PREFIXES)) for entry in entries) else "diffusers"
    not_finite = [
        key for key, tensor in tensors.items() if not (_is_alpha(key) or tensor.is_meta or _is_finite(tensor))
    ]
    return AdapterFile(
        path.stem,
        path,
        size,
        digest,
        layout,
        found.layers,
        metadata,
        found.unknown,
        found.embeddings,
        not_finite,
        tuple(notes),
        found.keys,
        len(entries),
    )


_Reader = Callable[[BinaryIO, list[Entry], bytes], tuple[dict[str, Tensor], str]]


def _read_tensors(stream: BinaryIO, entries: list[Entry], head: bytes) -> tuple[dict[str, Tensor], str]:
    """The tensors that an adapter is made of, as float32, and the SHA-256 of all bytes of the file."""
    tensors, digest = {}, hashlib.sha256(head)
    for entry in entries:
        if entry.dtype is None or names.parse_key(entry.name) is None:
            for chunk in _chunks(stream, entry.length):
                digest.update(chunk)
            continue
        data = torch.empty(entry.length, dtype=torch.uint8)
        view, done = memoryview(data.numpy()), 0  # type: ignore[arg-type]
        while done < entry.length:
            count = stream.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
            if not count:
                raise ValueError("it ends too early")
            digest.update(view[done : done + count])
            done += count
        tensors[entry.name] = data.view(entry.dtype).reshape(entry.shape).to(torch.float32)
    return tensors, digest.hexdigest()


def _read_small_tensors(stream: BinaryIO, entries: list[Entry], head: bytes) -> tuple[dict[str, Tensor], str]:
    """The numbers of alphas and flags, the shapes of all other tensors; no hash."""
    tensors, place = {}, len(head)
    for entry in entries:
        parsed = names.parse_key(entry.name)
        if parsed is not None and entry.dtype is not None:
            if entry.length <= _SMALL and parsed.part in _FLAGS:
                stream.seek(place)
                data = bytearray(stream.read(entry.length))
                if len(data) != entry.length:
                    raise ValueError("it ends too early")
                tensors[entry.name] = torch.frombuffer(data, dtype=entry.dtype).reshape(entry.shape).to(torch.float32)
            else:
                tensors[entry.name] = torch.empty(entry.shape, device="meta")
        place += entry.length
    return tensors, ""


def _chunks(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        chunk = stream.read(min(length, _CHUNK))
        if not chunk:
            raise ValueError("it ends too early")
        length -= len(chunk)
        yield chunk


def _is_alpha(key: str) -> bool:
    """Those that count were checked with their layers."""
    parsed = names.parse_key(key)
    return parsed is not None and parsed.part == "alpha"


def _is_finite(tensor: Tensor) -> bool:
    """One pass that allocates nothing, since NaN and infinity survive a sum; a second one where the sum overflows."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


@dataclass
class _Found:
    """What the keys of a file make. without_alpha: layers with a rank whose alpha the file's tensors don't give."""

    layers: dict[tuple[str, str], Update] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    without_alpha: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


def _group(entries: list[Entry], tensors: dict[str, Tensor]) -> _Found:
    """Layers from keys, why each other key is not one, and the bundled words.

    Raises ValueError for a layer that contradicts itself.
    """
    found = _Found()
    parts: dict[tuple[str, str], dict[str, str]] = {}  # layer -> part -> key
    odd: dict[str, str] = {}
    for entry in entries:
        parsed = names.parse_key(entry.name)
        if parsed is None:
            found.unknown[entry.name] = names.why_not(entry.name)
            continue
        if entry.dtype is None:
            odd[entry.name] = f"stores numbers as {entry.format}, which adapters don't use"
        if parts.setdefault((parsed.component, parsed.layer), {}).setdefault(parsed.part, entry.name) != entry.name:
            raise ValueError(f"it holds {parsed.layer} twice")
    useless = 0
    for (component, layer), keys in parts.items():
        if unread := [odd[key] for key in keys.values() if key in odd]:
            found.unknown |= {key: odd.get(key, f"its layer {unread[0]}") for key in keys.values()}
            continue
        if component == names.EMBEDDING:
            found.embeddings[layer] = {part: tensors[key] for part, key in keys.items()}
            continue
        try:
            update = update_of({part: tensors[key] for part, key in keys.items()})
        except AdapterError as error:  # a kind that is not read
            found.unknown |= dict.fromkeys(keys.values(), str(error))
            continue
        except ValueError as error:
            raise ValueError(f"{layer} {error}") from error
        if not math.isfinite(update.alpha):
            if update.uses_alpha:
                raise ValueError(f"{layer} has an alpha that is not a number")
            update, useless = replace(update, alpha=1.0), useless + 1
        if "alpha" not in keys and update.rank:
            found.without_alpha.append((component, layer))
        found.layers[component, layer], found.keys[component, layer] = update, tuple(keys.values())
    if useless:
        found.notes.append(f"the alpha of {pluralize(useless, 'layer')} is not finite; it has no effect there")
    return found


def _complete_alphas(found: _Found, config: PeftConfig, path: Path) -> list[str]:
    """Give the layers without an alpha that of the configuration, else their rank. Returns the file's notes."""
    notes = found.notes
    if not found.without_alpha:
        return notes
    ranks = {place: found.layers[place].rank for place in found.without_alpha if found.layers[place].kind == "lora"}
    if not config.is_for(path, ranks):
        notes.append(f"{NEIGHBOUR} beside it says other ranks than the file has: not used")
        config = PeftConfig({})
    assumed = 0
    for component, layer in found.without_alpha:
        update = found.layers[component, layer]
        alpha = config.alpha(component, layer, update.rank)
        assumed += alpha is None
        found.layers[component, layer] = replace(update, alpha=float(update.rank if alpha is None else alpha))
    if config.source == NEIGHBOUR:
        notes.append(f"alpha read from {NEIGHBOUR} beside it")
    if assumed == len(found.layers):
        notes.append("gives no alpha: taken as the rank")
    elif assumed:
        notes.append(f"gives no alpha for {assumed} of {len(found.layers)} layers: taken as the rank")
    return [*notes, *config.notes]


def _scale_whole_products(found: _Found, config: PeftConfig) -> list[str]:
    """PEFT scales every LoKr by alpha / r, LyCORIS those alone that have a rank: what the file's factors lack goes into
    the first of them. Returns a note where there are such layers."""
    if config.values.get("peft_type") != "LOKR":
        return []
    scaled = 0
    for (component, layer), update in found.layers.items():
        rank = config.rank(component, layer, 0)
        if update.kind != "lokr" or update.rank or type(rank) is not int or rank < 1:
            continue
        alpha = config.alpha(component, layer, rank)
        parts = {**update.parts, "lokr_w1": update.parts["lokr_w1"] * ((rank if alpha is None else alpha) / rank)}
        found.layers[component, layer] = replace(update, parts=parts)
        scaled += 1
    return (
        [f"{pluralize(scaled, 'LoKr layer')} of two whole factors scaled by alpha / rank, as PEFT does"]
        if scaled
        else []
    )


def _complete_turns(found: _Found, config: PeftConfig) -> list[str]:
    """Give the layers of PEFT's OFT the series that the configuration says. Returns a note where it says nothing."""
    assumed = False
    for (component, layer), update in found.layers.items():
        if update.kind != "oftv2" or any(key.endswith(".neumann") for key in found.keys[component, layer]):
            continue
        terms = config.neumann_terms(component)
        assumed = assumed or terms is None
        if terms is not None:
            parts = {**update.parts, "neumann": torch.tensor(float(terms))}
            found.layers[component, layer] = replace(update, parts=parts)
    return ["says nothing of how its turns are made: taken as PEFT's default"] if assumed else []
