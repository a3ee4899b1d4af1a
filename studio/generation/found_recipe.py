"""A recipe that was found inside an image: what of it can be used here, and what not, in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.errors import GenerationError
from studio.generation.applied_adapter import MAX_STRENGTH
from studio.generation.prompts import take_adapters
from studio.generation.recipe import Recipe
from studio.generation.sampler_names import scheduler_named

MAX_ADAPTERS = 20
FROM_IMAGE = "It was made from another image (image to image), which is not inside: choose it again."
_MAX_IGNORED = 12  # settings that are named one by one


@dataclass(frozen=True)
class FoundRecipe:
    """What an image says of itself.

    values    fields of a Recipe, without `adapters`; of those from other programs only what could be read. `source`
              and `mask` are names alone, to be looked for by whoever keeps them
    adapters  fields of an AppliedAdapter each, `file` being a name alone, to be looked for by whoever has the adapters
    problems  one line for each thing that could not be taken over
    base_hash of the weights that the base's name stood for; "" when it is not told (release 0.1, other programs)
    """

    values: dict[str, Any]
    adapters: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    base_hash: str = ""


@dataclass
class ForeignRecipe:
    """What another program wrote, sorted by its reader and not yet checked.

    values             under the names of Recipe's fields, also texts of numbers
    sampler, schedule  in that program's own words
    adapters           (name, strength, strength on the text encoder or None)
    ignored            {its name: its value} of what changes an image and has nothing like it here
    """

    program: str
    values: dict[str, Any] = field(default_factory=dict)
    sampler: str = ""
    schedule: str = ""
    adapters: list[tuple[str, float, float | None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: dict[str, Any] = field(default_factory=dict)


def checked(found: ForeignRecipe) -> FoundRecipe:
    """What of it fits a Recipe; adapters are taken out of the prompt, and everything else is said."""
    problems = list(found.problems)
    prompt = take_adapters(str(found.values.get("prompt") or "").strip())
    negative = take_adapters(str(found.values.get("negative_prompt") or "").strip(), negative=True)
    problems += [*prompt.errors, *prompt.problems, *negative.problems]
    values: dict[str, Any] = {}
    for key, text in (("prompt", prompt.text), ("negative_prompt", negative.text)):
        values[key] = text[:4000]
        if len(text) > 4000:
            problems.append(f"The {key.replace('_', ' ')} has {len(text)} characters: it was cut to 4000.")
    for key, value in found.values.items():
        if key in values or value is None or value == "":
            continue
        try:
            values[key] = Recipe(prompt="", **{key: as_number(value)}).model_dump()[key]
        except GenerationError as error:
            problems.append(str(error))
    if found.sampler or found.schedule:
        scheduler, problem = scheduler_named(found.sampler, found.schedule)
        if scheduler:
            values["scheduler"] = scheduler
        if problem:
            problems.append(problem)
    adapters = []
    for name, strength, apart in (*prompt.adapters, *found.adapters):
        if abs(strength) <= MAX_STRENGTH and abs(apart or 0) <= MAX_STRENGTH:
            adapters.append({"file": name, "strength": strength, "text_strength": apart})
        else:
            problems.append(f"The adapter {name[:60]!r} was left out: its strength is not within ±{MAX_STRENGTH:g}.")
    if len(adapters) > MAX_ADAPTERS:
        problems.append(f"It names {len(adapters)} adapters: the first {MAX_ADAPTERS} were taken.")
    if found.ignored:
        problems.append(_ignored(found.ignored))
    return FoundRecipe(values, adapters[:MAX_ADAPTERS], list(dict.fromkeys(problems)))


def as_number(value: Any) -> Any:
    """The number that a text says; anything else as it is, for the recipe to refuse."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value.strip())
            except ValueError:
                continue
    return value


def file_stem(name: Any) -> str:
    """The name of a model's file without its folders and ending, wherever it was written."""
    stem = str(name).replace("\\", "/").rpartition("/")[2]
    for ending in (".safetensors", ".ckpt", ".pt", ".gguf", ".sft"):
        stem = stem.removesuffix(ending)
    return stem[:200]


def _ignored(ignored: Mapping[str, Any]) -> str:
    named = [f"{str(key)[:40]} {_shown(value)}".strip() for key, value in list(ignored.items())[:_MAX_IGNORED]]
    more = f" and {len(ignored) - len(named)} more" if len(ignored) > len(named) else ""
    return f"Not taken over, as there is nothing like it here: {', '.join(named)}{more}."


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
