"""A file by its header alone: its layers in milliseconds, whatever its size."""

from pathlib import Path

import torch

from studio.adapters import names
from studio.adapters.files import AdapterFile
from studio.adapters.header import read_header
from studio.adapters.update import Update, update_of
from studio.errors import AdapterError


def read_outline(path: str | Path) -> AdapterFile:
    """The file as `read_adapter` gives it, with tensors that have a shape and no numbers (torch's "meta" device).

    So alphas are the ranks, the hash is empty, and what is not finite is not known. Raises AdapterError.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            entries, metadata, _ = read_header(stream, path, size)
    except OSError as error:
        raise AdapterError(f"Can't read {path.name}: {error.strerror}.") from error
    parts: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    unknown, kohya = {}, False
    for entry in entries:
        kohya = kohya or entry.name.startswith(tuple(names.KOHYA_PREFIXES))
        found = names.parse_key(entry.name)
        if found is None:
            unknown[entry.name] = names.why_not(entry.name)
        elif found.component != names.EMBEDDING and found.part != "alpha":
            tensor = torch.empty(entry.shape, device="meta")
            parts.setdefault((found.component, found.layer), {})[found.part] = tensor
    layers: dict[tuple[str, str], Update] = {}
    for place, tensors in parts.items():
        try:
            layers[place] = update_of(tensors)
        except (AdapterError, ValueError) as error:
            unknown[place[1]] = str(error)
    if not layers:
        raise AdapterError(f"{path.name} holds no adapter: choose an adapter's file.")
    return AdapterFile(path.stem, path, size, "", "kohya" if kohya else "diffusers", layers, metadata, unknown)
