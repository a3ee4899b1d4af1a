"""The recipe inside an image: written as PNG text, ours as JSON and `parameters` as other programs read it."""

import functools
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio import __version__
from studio.basemodels import BaseChoice, base_folder
from studio.basemodels.weights import weights_hash
from studio.errors import BaseModelError, GenerationError
from studio.generation.prompts import take_adapters
from studio.generation.recipe import Recipe
from studio.generation.schedulers import NAMES, OWN
from studio.workspace import free_path, sha256_of, write_whole

KEY = "lora-studio"  # the PNG text chunk that holds ours
BASE_HASH = "base_hash"  # in ours, beside the recipe's own fields: which weights `base` stood for
FOREIGN = "parameters"  # A1111's, which Forge, ComfyUI's readers and the sites for images know
LONGEST = 200_000  # characters of a text that is looked into
_FACTS = 20_000  # characters of the facts below a prompt
_SCHEDULES = ("Karras", "Exponential", "Automatic", "Uniform", "Normal", "Simple")
_FACT = re.compile(r'([A-Z][\w /-]{0,40}):\s*("(?:\\.|[^"\\]){0,2000}"|[^,]{0,500})(?:,|$)')


@dataclass(frozen=True)
class FoundRecipe:
    """What an image says of itself.

    values    fields of a Recipe, without `adapters`; of those from other programs only what could be read. `source`
              and `mask` are names alone, to be looked for by whoever keeps them
    adapters  fields of an AdapterUse each, `file` being a name alone, to be looked for by whoever knows the adapters
    problems  one line for each thing that could not be taken over
    base_hash of the base's weights (`basemodels.weights`); "" where none is written
    """

    values: dict[str, Any]
    adapters: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    base_hash: str = ""


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
    words = "".join(c if c.isalnum() else "-" for c in recipe.prompt[:40]).strip("-") or "image"
    path = folder / name if name else free_path(folder, f"{words}-{recipe.seed}.png")
    write_whole(path, stream.getvalue())
    return path


def parameters_text(recipe: Recipe) -> str:
    """The text that A1111, Forge and ComfyUI's readers show."""
    tags = "".join(
        f" <lora:{use.title}:{use.strength:g}"
        + (f":{use.text_strength:g}" if use.text_strength is not None else "")
        + ">"
        for use in recipe.adapters
    )
    negative = f"\nNegative prompt: {recipe.negative_prompt}" if recipe.negative_prompt else ""
    facts: dict[str, Any] = {"Steps": recipe.steps}
    if recipe.scheduler != OWN:
        karras = recipe.scheduler.endswith(" Karras")
        facts |= {"Sampler": recipe.scheduler.removesuffix(" Karras")} | ({"Schedule type": "Karras"} if karras else {})
    facts |= {"CFG scale": f"{recipe.guidance:g}", "Seed": recipe.seed, "Size": f"{recipe.width}x{recipe.height}"}
    facts["Model"] = BaseChoice.of(recipe.base).short
    if recipe.source:
        facts["Denoising strength"] = f"{recipe.denoising:g}"
    if recipe.clip_skip > 1:
        facts["Clip skip"] = recipe.clip_skip
    hashes = ", ".join(f"{use.title}: {sha256_of(use.file)[:12]}" for use in recipe.adapters if sha256_of(use.file))
    if hashes:
        facts["Lora hashes"] = json.dumps(hashes, ensure_ascii=False)
    facts["Version"] = f"LoRA Studio {__version__}"
    return f"{recipe.prompt}{tags}{negative}\n" + ", ".join(f"{name}: {value}" for name, value in facts.items())


def _json(recipe: Recipe) -> str:
    """Adapters, base and images by their names alone: no path of this machine travels in an image."""
    values = recipe.model_dump(mode="json")
    for use, written in zip(recipe.adapters, values["adapters"]):
        written |= {"file": use.title, "hash": sha256_of(use.file)}
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
    """What a PNG says of how it was made, by this program or another one. Raises GenerationError when it says nothing.

    The image itself is not decoded.
    """
    name, texts = Path(path).name, texts_in(path, KEY, FOREIGN)
    if KEY in texts:
        return _ours(texts[KEY], name)
    if FOREIGN in texts:
        return read_parameters(texts[FOREIGN])
    raise GenerationError(f"{name} has no recipe inside: it was not made here, or another program took it out.")


def texts_in(path: Path, *keys: str) -> dict[str, str]:
    """The texts of these keys in a PNG, without half characters. Raises GenerationError when it is none."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = {key: str(image.info[key]) for key in keys if isinstance(image.info.get(key), str)}
    except Exception as error:  # on damaged files Pillow raises nearly anything
        raise GenerationError(f"{Path(path).name} can't be read as an image with a recipe: drop a PNG.") from error
    return {key: text[: 10 * LONGEST].encode("utf-8", "ignore").decode() for key, text in found.items()}


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
    uses = [use.model_dump() | {"file": use.title} for use in recipe.adapters]
    said = values.get(BASE_HASH)
    return FoundRecipe(kept, uses, base_hash=said if isinstance(said, str) else "")


def read_parameters(text: str) -> FoundRecipe:
    """A1111's text: the prompt, perhaps "Negative prompt: …", and a last line of facts that begins with "Steps:"."""
    lines = text[:LONGEST].strip().split("\n")
    facts = dict(_FACT.findall(lines.pop()[:_FACTS])) if lines[-1].lstrip().startswith("Steps:") else {}
    words, unwanted = "\n".join(lines), ""
    if "Negative prompt:" in words:
        words, _, unwanted = words.partition("Negative prompt:")
    prompt, named = take_adapters(words.strip())
    values: dict[str, Any] = {"prompt": prompt[:4000], "negative_prompt": unwanted.strip()[:4000]}
    width, _, height = facts.get("Size", "").partition("x")
    given = {
        "steps": facts.get("Steps"),
        "guidance": facts.get("CFG scale"),
        "seed": facts.get("Seed"),
        "width": width,
        "height": height,
        "clip_skip": facts.get("Clip skip"),
        "denoising": facts.get("Denoising strength"),
    }
    problems = []
    for key, value in given.items():
        if not value:
            continue
        try:
            values[key] = Recipe(prompt="", **{key: _number(value.strip())}).model_dump()[key]
        except GenerationError as error:
            problems.append(str(error))
    scheduler = _scheduler(facts.get("Sampler", ""), facts.get("Schedule type", ""))
    if scheduler in NAMES:
        values["scheduler"] = scheduler
    elif facts.get("Sampler"):
        problems.append(f"The sampler {facts['Sampler'].strip()[:40]!r} is not known here.")
    adapters = [{"file": one.name, "strength": one.strength, "text_strength": one.text_strength} for one in named[:20]]
    return FoundRecipe(values, adapters, problems)


def _number(text: str) -> int | float | str:
    """The number that a text says; the text where it says none, for the recipe to refuse."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _scheduler(sampler: str, schedule: str) -> str:
    """Our name of A1111's sampler, whose schedule older versions wrote behind it."""
    sampler, schedule = sampler.strip(), schedule.strip()
    known = {name.lower(): name for name in NAMES}
    for one in (f"{sampler} {schedule}", sampler, *(sampler.removesuffix(f" {word}") for word in _SCHEDULES)):
        if one.strip().lower() in known:
            return known[one.strip().lower()]
    return ""
