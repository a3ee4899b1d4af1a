"""Whether every file under its final name reads whole."""

import json
import tomllib
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image

from studio.training.cache import Cache

IMAGES = (".png", ".webp", ".jpg", ".jpeg")


def broken_files(root: Path) -> list[str]:
    """A line for each file below `root` that has its final name and does not read whole. Hidden names, `.tmp` and
    folders called `.part` are not final.
    """
    found = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if any(_aside(part) for part in inside.parts) or not path.is_file():
            continue
        try:
            _read(path, root)
        except Exception as error:
            found.append(f"{inside.as_posix()} is broken ({type(error).__name__}: {str(error)[:80]})")
    return found


def _aside(part: str) -> bool:
    return (part.startswith(".") and part not in (".studio", ".bin")) or part.endswith((".tmp", ".part"))


def _read(path: Path, root: Path) -> None:
    """Raises whatever the reader of such files raises."""
    match path.suffix.lower():
        case ".safetensors":
            safetensors.torch.load(path.read_bytes())
            if "encoded" in path.parts and Cache(path.parent.parent).read(path.stem) is None:
                raise ValueError("the cache does not take it")
        case ".json":
            json.loads(path.read_bytes())
        case ".toml":
            tomllib.loads(path.read_text("utf-8"))
        case ".pt":
            torch.load(path, weights_only=True, map_location="cpu")
        case suffix if suffix in IMAGES:
            with Image.open(path) as image:
                image.load()
        case ".txt":
            path.read_text("utf-8")
