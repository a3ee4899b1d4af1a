"""The recipe inside an image: written as PNG text, ours as JSON and `parameters` as other programs read it."""

import functools
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio import __version__
from studio.adapters import autov3_hash
from studio.basemodels import BaseChoice, base_folder
from studio.basemodels.weights import weights_hash
from studio.errors import BaseModelError, GenerationError
from studio.generation.foreign import read_foreign, unread_texts
from studio.generation.foreign_text import LONGEST, adapter_tag
from studio.generation.found_recipe import FoundRecipe
from studio.generation.hidden_text import hidden_text
from studio.generation.image_texts import image_texts
from studio.generation.prompts import NamedAdapter
from studio.generation.recipe import Recipe
from studio.generation.schedulers import OWN
from studio.workspace import atomic_write, free_path, sha256_of

KEY = "lora-studio"  # the PNG text chunk that holds ours
BASE_HASH = "base_hash"  # in ours, beside the recipe's own fields: which weights `base` stood for
FOREIGN = "parameters"  # A1111's, which Forge, ComfyUI's readers and the sites for images know


# Writing ------------------------------------------------------------------------------------------------------------


def save_image(
    image: Image.Image, recipe: Recipe, folder: Path, name: str | None = None, also: Mapping[str, str] | None = None
) -> Path:
    """Write a PNG with the recipe inside, under a free name made from seed and prompt (or exactly `name`).

    also: more text chunks, {key: text}
    """
    info = PngInfo()
    for key, text in (also or {}).items():
        info.add_itxt(key, text)
    info.add_itxt(FOREIGN, parameters_text(recipe))
    info.add_itxt(KEY, _json(recipe))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    path = folder / name if name else free_path(folder, f"{stem_of(recipe)}.png")
    atomic_write(path, stream.getvalue())
    return path


def stem_of(recipe: Recipe) -> str:
    """What a file is called by its recipe: the beginning of the prompt, and the seed."""
    words = "".join(c if c.isalnum() else "-" for c in recipe.prompt[:40]).strip("-") or "image"
    return f"{words}-{recipe.seed}"


def parameters_text(recipe: Recipe) -> str:
    """The text that A1111, Forge and ComfyUI's readers show."""
    tags = "".join(
        f" {adapter_tag(NamedAdapter(one.title, one.strength, one.text_strength))}" for one in recipe.adapters
    )
    negative = f"\nNegative prompt: {recipe.negative_prompt}" if recipe.negative_prompt else ""
    facts: dict[str, Any] = {"Steps": recipe.steps}
    if recipe.scheduler != OWN:
        karras = recipe.scheduler.endswith(" Karras")
        facts |= {"Sampler": recipe.scheduler.removesuffix(" Karras")} | ({"Schedule type": "Karras"} if karras else {})
    rescale = {"CFG rescale": f"{recipe.guidance_rescale:g}"} if recipe.guidance_rescale else {}
    facts |= {
        "CFG scale": f"{recipe.guidance:g}",
        **rescale,
        "Seed": recipe.seed,
        "Size": f"{recipe.width}x{recipe.height}",
    }
    facts["Model"] = BaseChoice.of(recipe.base).short
    if recipe.source:
        facts["Denoising strength"] = f"{recipe.denoising:g}"
    if recipe.clip_skip > 1:
        facts["Clip skip"] = recipe.clip_skip
    hashes = ", ".join(f"{one.title}: {autov3_hash(one.file)}" for one in recipe.adapters if autov3_hash(one.file))
    if hashes:
        facts["Lora hashes"] = json.dumps(hashes, ensure_ascii=False)
    facts["Version"] = f"LoRA Studio {__version__}"
    return f"{recipe.prompt}{tags}{negative}\n" + ", ".join(f"{name}: {value}" for name, value in facts.items())


def _json(recipe: Recipe) -> str:
    """Adapters, base and images by their names alone: no path of this machine travels in an image."""
    values = recipe.model_dump(mode="json")
    for adapter, written in zip(recipe.adapters, values["adapters"]):
        written |= {"file": adapter.title, "hash": sha256_of(adapter.file)}
    for key in ("source", "mask"):
        values[key] = Path(values[key]).name if values[key] else None
    values["base"] = BaseChoice.of(recipe.base).title
    values[BASE_HASH] = _base_hash(recipe.base)
    return json.dumps(values | {"made with": _versions()})


def _base_hash(base: str) -> str:
    """ "" for a base that is gone since it drew."""
    try:
        return weights_hash(base_folder(base))
    except BaseModelError:
        return ""


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"studio": __version__} | {name: version(name) for name in ("torch", "diffusers")}


# Reading ------------------------------------------------------------------------------------------------------------


def read_recipe(path: Path) -> FoundRecipe:
    """How an image was made, as it says itself: by this program, or by one of those in `foreign`.

    The image is decoded only where its texts say nothing, since some programs hide theirs behind the pixels. Raises
    GenerationError when it says nothing, or nothing that can be read.
    """
    name, texts = Path(path).name, image_texts(path)
    if KEY in texts:
        return _ours(texts[KEY], name)
    found = read_foreign(texts, name)
    if found is None and (hidden := hidden_text(path)):
        found = read_foreign({"parameters": hidden}, name)
    if found is None and (others := unread_texts(texts)):
        raise GenerationError(f"{name} has no recipe inside that is known here; other texts in it: {others}.")
    if found is None:
        raise GenerationError(f"{name} has no recipe inside: it was not made here, or another program removed it.")
    return found


def texts_in(path: Path, *keys: str) -> dict[str, str]:
    """The texts of these keys in an image. Raises GenerationError."""
    return {key: text for key, text in image_texts(path).items() if key in keys}


def _ours(text: str, name: str) -> FoundRecipe:
    try:
        values = json.loads(text[:LONGEST])
        adapters = [dict(one) for one in values.pop("adapters", [])][:20]
        recipe = Recipe(
            **{key: value for key, value in values.items() if key in Recipe.model_fields}, adapters=adapters
        )
    except (ValueError, TypeError, AttributeError, RecursionError, GenerationError) as error:
        raise GenerationError(f"The recipe inside {name} is damaged.") from error
    kept = recipe.model_dump(exclude={"adapters"})
    kept |= {key: path.name for key, path in (("source", recipe.source), ("mask", recipe.mask)) if path}
    applied = [adapter.model_dump() | {"file": adapter.title} for adapter in recipe.adapters]
    found_hash = values.get(BASE_HASH)
    return FoundRecipe(kept, applied, base_hash=found_hash if isinstance(found_hash, str) else "")
