"""Packing and unpacking what 0.1 made, and comparing what is answered today with what 0.1 answered.

Imports nothing of the studio: make.py uses it beside 0.1, the tests beside today's version.
"""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ARCHIVE, RECORDING = HERE / "0.1.tar.xz", HERE / "0.1.json"
ROOT = "@ROOT@"  # stands in the packed files for the folder that they lie in
TEXTS = (".toml", ".json", ".jsonl", ".txt", ".csv")
SKIPPED = ("cache/downloads", "cache/thumbnails", "cache/embedded")  # below workspace/, made again when missing
EACH = "*"  # in a shape: every value of a table whose keys are data


def pack(root: Path) -> None:
    """Write `root` into the archive, without the place where it lies. Times of change are kept to the nanosecond.

    Raises ValueError when a file that can't be rewritten names that place.
    """
    skipped = [root / "workspace" / part for part in SKIPPED]
    with tarfile.open(ARCHIVE, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as archive:
        for path in sorted(root.rglob("*")):
            if any(path.is_relative_to(folder) for folder in skipped) or path.name in ("lock", ".DS_Store"):
                continue
            data = b"" if path.is_dir() else path.read_bytes()
            if path.suffix in TEXTS:
                data = data.replace(str(root).encode(), ROOT.encode())
            if str(root).encode() in data:
                raise ValueError(f"{path} names {root}")
            info = tarfile.TarInfo(path.relative_to(root).as_posix())
            info.type = tarfile.DIRTYPE if path.is_dir() else tarfile.REGTYPE
            info.mode, info.size = 0o755 if path.is_dir() else 0o644, len(data)
            seconds, rest = divmod(path.stat().st_mtime_ns, 10**9)
            info.pax_headers = {"mtime": f"{seconds}.{rest:09d}"}
            info.mtime = seconds + 0.5  # no whole number, or the header above is not written
            archive.addfile(info, io.BytesIO(data))


def unpack(target: Path) -> Path:
    """The archive's files in `target`, which they then name as the folder that they lie in. Returns `target`."""
    target.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    with tarfile.open(ARCHIVE) as archive:
        members = archive.getmembers()
        archive.extractall(target, filter="data")
    for member in reversed(members):  # folders after what is in them
        path = target / member.name
        if path.suffix in TEXTS:
            path.write_bytes(path.read_bytes().replace(ROOT.encode(), str(target).encode()))
        seconds, rest = member.pax_headers["mtime"].split(".")
        changed = int(seconds) * 10**9 + int(rest)
        os.utime(path, ns=(changed, changed))
    return target


def recording() -> dict[str, Any]:
    return json.loads(RECORDING.read_text("utf-8"))


def filled(value: Any, places: dict[str, Any]) -> Any:
    """`value` with "@NAME@" replaced by places["NAME"]: whole where it is all of a text, else within it."""
    if isinstance(value, dict):
        return {key: filled(one, places) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, places) for one in value]
    if isinstance(value, str):
        for name, place in places.items():
            if value == f"@{name}@":
                return place
            if isinstance(place, (str, Path)):
                value = value.replace(f"@{name}@", str(place))
    return value


# Shapes ---------------------------------------------------------------------------------------------------------------


def shape(value: Any, maps: tuple[str, ...] = (), at: str = "") -> Any:
    """What an answer is made of: {key: shape}, [shape of all elements together], or the name of a kind.

    maps: places like "" or "losses.*" of tables whose keys are data; their values are put together under EACH.
    """
    if isinstance(value, dict):
        if at in maps:
            return {EACH: _together([shape(one, maps, f"{at}.{EACH}".strip(".")) for one in value.values()])}
        return {str(key): shape(one, maps, f"{at}.{key}".strip(".")) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_together([shape(one, maps, at) for one in value])] if value else []
    kinds = {bool: "bool", int: "number", float: "number", str: "text"}
    return kinds.get(type(value))


def _together(shapes: list[Any]) -> Any:
    """One shape that all fit: of tables, the keys that each of them has."""
    known = [one for one in shapes if one is not None]
    if not known:
        return None
    if all(isinstance(one, dict) for one in known):
        keys = [key for key in known[0] if all(key in one for one in known)]
        return {key: _together([one[key] for one in known]) for key in keys}
    if all(isinstance(one, list) for one in known):
        inner = [one[0] for one in known if one]
        return [_together(inner)] if inner else []
    return known[0] if all(one == known[0] for one in known) else None


def lacking(old: Any, new: Any, at: str = "answer") -> list[str]:
    """Where the answer `new` is not what the shape `old` promises; more keys than it are fine, and so is null."""
    if old is None or new is None:
        return []
    if isinstance(old, dict):
        if not isinstance(new, dict):
            return [f"{at} is no table any more"]
        if EACH in old:
            return [line for key, one in new.items() for line in lacking(old[EACH], one, f"{at}.{key}")]
        gone = [f"{at}.{key} is gone" for key in old if key not in new]
        return gone + [line for key in old if key in new for line in lacking(old[key], new[key], f"{at}.{key}")]
    if isinstance(old, list):
        if not isinstance(new, (list, tuple)):
            return [f"{at} is no list any more"]
        return [line for one in new for line in lacking(old[0], one, f"{at}[]")] if old else []
    return [] if shape(new) == old else [f"{at} is {shape(new) or type(new).__name__} and was {old}"]
