"""Which program made an image, by the texts that it carries, and what it says of how.

program                        where it writes
A1111, Forge, SD.Next          parameters: a text (`foreign_text`); JPEG and WebP: EXIF UserComment
SwarmUI                        parameters: JSON with sui_image_params; the same in EXIF
Fooocus                        parameters: JSON, beside fooocus_scheme
ComfyUI                        prompt and workflow: JSON; WebP: EXIF Model and Make
InvokeAI                       invokeai_metadata: JSON; version 2: sd-metadata and Dream
NovelAI                        Comment: JSON, beside Software "NovelAI"; also behind the pixels (`hidden_text`)
Draw Things                    UserComment: JSON, in PNG inside XMP
"""

import json
from collections.abc import Mapping
from typing import Any

from studio.errors import GenerationError
from studio.generation.foreign_comfyui import read_comfyui
from studio.generation.foreign_json import (
    read_draw_things,
    read_dream,
    read_fooocus,
    read_invokeai,
    read_novelai,
    read_sd_metadata,
    read_swarmui,
)
from studio.generation.foreign_text import read_parameters
from studio.generation.found_recipe import ForeignRecipe, FoundRecipe, checked

_PLAIN = {"Software", "Author", "Copyright", "Title", "icc_profile"}  # what any image has
_DAMAGED = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError)


def read_foreign(texts: Mapping[str, str], name: str) -> FoundRecipe | None:
    """The recipe in an image's texts; None where no known program wrote one. Raises GenerationError.

    name: of the file, for the message.
    """
    try:
        found = _read(texts)
    except _DAMAGED as error:
        raise GenerationError(f"The recipe inside {name} is damaged.") from error
    return checked(found) if isinstance(found, ForeignRecipe) else found


def unread_texts(texts: Mapping[str, str]) -> str:
    """The keys of texts long enough to be a recipe, for a message; "" where there is none."""
    keys = [key for key, text in texts.items() if len(text) > 40 and not key.startswith("XML:") and key not in _PLAIN]
    return ", ".join(key[:40] for key in keys[:4])


def _read(texts: Mapping[str, str]) -> ForeignRecipe | FoundRecipe | None:
    if "invokeai_metadata" in texts:
        return read_invokeai(_object(texts["invokeai_metadata"]))
    if "Dream" in texts:
        return read_dream(texts["Dream"])
    if "sd-metadata" in texts:
        return read_sd_metadata(_object(texts["sd-metadata"]))
    if "NovelAI" in texts.get("Software", "") and "Comment" in texts:
        return read_novelai(_object(texts["Comment"]), texts.get("Source", ""))
    text = texts.get("parameters", "").strip()
    if text.startswith("{"):
        return _of_json(_object(text), texts)
    if text:
        return read_parameters(text)
    if "prompt" in texts or "workflow" in texts:
        return read_comfyui(_json_or_none(texts.get("prompt")), _json_or_none(texts.get("workflow")))
    return None


def _of_json(data: Mapping[str, Any], texts: Mapping[str, str]) -> ForeignRecipe | None:
    if "sui_image_params" in data:
        return read_swarmui(data)
    if "Comment" in data and "NovelAI" in str(data.get("Software", "")):  # NovelAI's WebP
        return read_novelai(_object(data["Comment"]), str(data.get("Source", "")))
    if {"c", "uc"} <= set(data):
        return read_draw_things(data)
    if texts.get("fooocus_scheme") or {"prompt", "base_model"} <= set(data):
        return read_fooocus(data)
    if "nodes" in data or any(isinstance(one, Mapping) and "class_type" in one for one in data.values()):
        return read_comfyui(data, data)
    return None


def _object(text: str) -> Mapping[str, Any]:
    """Raises ValueError where it is no object of JSON."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _json_or_none(text: str | None) -> Any:
    """ComfyUI writes NaN where a node answers it, which Python's reader takes."""
    return json.loads(text) if text else None
