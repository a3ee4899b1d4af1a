"""Images that carry the texts of other programs, and what is said of them."""

import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def png(path, **texts):
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text if isinstance(text, str) else json.dumps(text))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def said(found, *parts):
    """Each part stands in one problem, and there are no others."""
    assert len(found.problems) == len(parts), found.problems
    assert all(part in problem for part, problem in zip(parts, found.problems)), found.problems


def node(kind, **inputs):
    """A node of ComfyUI's graph."""
    return {"class_type": kind, "inputs": inputs}
