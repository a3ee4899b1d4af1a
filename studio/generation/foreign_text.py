"""The text that A1111, Forge, SD.Next and their kin write into images ("infotext").

    the prompt, in any number of lines
    Negative prompt: in any number of lines
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model: name, …

The facts stand in the last line that begins with "Steps:"; extensions write lines of their own below it (A1111's
`infotext_utils.parse_generation_parameters`, and dynamic prompts' "Template:"). Only a line that begins with "Negative
prompt:" ends the prompt.
"""

import json
import re
from typing import Any

from studio.generation.found_recipe import FROM_IMAGE, ForeignRecipe, FoundRecipe, checked, file_stem
from studio.generation.prompts import NamedAdapter

LONGEST = 200_000  # characters of a text that is read
_MAX_FACTS = 20_000  # characters of the line of facts
_FACT = re.compile(r'(\w[\w /+-]{0,60}):\s*("(?:\\.|[^"\\]){0,2000}"|[^,]{0,500})(?:,|$)')
_OLD_TAG = re.compile(r"<lora:([^:<>]+):([^:<>=]+):([^:<>=]+)>")
_NEGATIVE = "Negative prompt:"
_FIELDS = {
    "Steps": "steps",
    "CFG scale": "guidance",
    "Seed": "seed",
    "Clip skip": "clip_skip",
    "CLIP skip": "clip_skip",
    "Denoising strength": "denoising",
    "CFG rescale": "guidance_rescale",
}
_TEMPLATES = ("Template:", "Negative Template:")  # what a prompt was made from; it is written out above
_NO_EFFECT = re.compile(
    r"Version|App|Backend|Pipeline|Operations|Parser|Time|User|Created Date|Model hash|VAE hash|Batch (size|pos)|"
    r"(Lora |Refiner |Hypernet )?[Hh]ashes|Raw (negative )?prompt|Hires (Module|prompt|negative).*|Civitai .*|"
    r"Module \d+|Index|Diffusion in .*"
)


def read_parameters(text: str) -> FoundRecipe:
    """What such a text says. Everything that it says and that is not taken over is a problem of its own."""
    lines = text[:LONGEST].strip().split("\n")
    place = next((n for n in reversed(range(len(lines))) if lines[n].lstrip().startswith("Steps:")), len(lines))
    line = lines[place][:_MAX_FACTS] if place < len(lines) else ""
    line, resources = _without_resources(line)
    facts = {key.strip(): _unquoted(value.strip()) for key, value in _FACT.findall(line)}
    found = ForeignRecipe(facts.get("Version", "A1111"))
    words, negative = _split(lines[:place])
    if found.program.startswith("LoRA Studio"):  # 0.1 wrote the text encoder's strength second
        words = _OLD_TAG.sub(r"<lora:\1:te=\3:unet=\2>", words)
    found.values |= {"prompt": words, "negative_prompt": negative}
    rest = " ".join(one for one in lines[place + 1 :] if one.strip() and not one.lstrip().startswith(_TEMPLATES))
    if rest.strip():
        found.problems.append(f"The lines below the settings were not read: {rest.strip()[:60]!r}.")
    for name, key in _FIELDS.items():
        if facts.get(name):
            found.values[key] = facts.pop(name)
    _take_size(facts, found)
    found.sampler, found.schedule = facts.pop("Sampler", ""), facts.pop("Schedule type", facts.pop("Scheduler", ""))
    if facts.get("Model"):
        found.values["base"] = file_stem(facts.pop("Model"))
    _take_distilled(facts, found)
    _take_resources(resources, found)
    _take_beside_the_prompt(facts, found)
    if found.values.get("denoising") and "Hires upscale" not in facts and not facts.get("Hires resize"):
        found.problems.append(FROM_IMAGE)
    found.ignored |= {key: value for key, value in facts.items() if not _NO_EFFECT.fullmatch(key)}
    return checked(found)


def _split(lines: list[str]) -> tuple[str, str]:
    """(prompt, negative prompt)."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith(_NEGATIVE):
            rest = [line.lstrip().removeprefix(_NEGATIVE), *lines[number + 1 :]]
            return "\n".join(lines[:number]).strip(), "\n".join(rest).strip()
    return "\n".join(lines).strip(), ""


def _unquoted(value: str) -> str:
    """A1111 puts a value that holds a comma, a colon or a line break into quotation marks, as JSON does."""
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value.strip('"')


def _without_resources(line: str) -> tuple[str, list[dict[str, Any]]]:
    """(the line without Civitai's list of models, that list): JSON, whose commas part no facts."""
    before, found, behind = line.partition("Civitai resources: ")
    if not found:
        return line, []
    try:
        resources, end = json.JSONDecoder().raw_decode(behind)
        return before + behind[end:].lstrip(", "), [one for one in resources if isinstance(one, dict)]
    except (ValueError, TypeError):
        return line, []


def _take_resources(resources: list[dict[str, Any]], found: ForeignRecipe) -> None:
    """Civitai's own generator names its adapters nowhere else: by the names of their pages, not of their files."""
    for one in resources:
        kind, name = str(one.get("type", "")).lower(), str(one.get("modelName") or "")[:200]
        if kind == "checkpoint" and name:
            found.values.setdefault("base", name)
        elif kind in ("lora", "locon", "lycoris", "dora") and name:
            weight = one.get("weight", 1.0)
            found.adapters.append((name, float(weight) if isinstance(weight, int | float) else 1.0, None))
        else:
            found.ignored[f"Civitai's {kind or 'model'}"] = name or one.get("modelVersionId", "")


def _take_beside_the_prompt(facts: dict[str, str], found: ForeignRecipe) -> None:
    """Adapters that Fooocus names in "Lora weights", and embeddings that A1111 names in "TI hashes"."""
    for one in filter(None, facts.pop("Lora weights", "").split(", ")):
        name, _, weight = one.rpartition(": ")
        if re.fullmatch(r"-?\d+(\.\d+)?", weight):
            found.adapters.append((file_stem(name), float(weight), None))
        else:
            found.ignored["Lora weights"] = one
    embeddings = [one.partition(":")[0].strip() for one in facts.pop("TI hashes", "").split(", ") if one.strip()]
    if embeddings:
        named = ", ".join(repr(name[:40]) for name in dict.fromkeys(embeddings))
        found.problems.append(f"It used the embeddings {named}, which are drawn as plain words here.")


def _take_size(facts: dict[str, str], found: ForeignRecipe) -> None:
    width, cross, height = facts.pop("Size", "").partition("x")
    if cross:
        found.values |= {"width": width, "height": height}


def _take_distilled(facts: dict[str, str], found: ForeignRecipe) -> None:
    """FLUX's guidance is an input of the model; Forge calls it so and writes a CFG scale of 1 beside it."""
    distilled = facts.pop("Distilled CFG Scale", "")
    if not distilled:
        return
    scale = found.values.get("guidance")
    if scale is not None and str(scale).strip() not in ("1", "1.0"):
        found.problems.append(f"Of its CFG scale {scale} and distilled CFG scale {distilled}, the second was taken.")
    found.values["guidance"] = distilled


def adapter_tag(adapter: NamedAdapter) -> str:
    """The tag that A1111 and Forge read, with the text encoder's strength by name where it stands apart."""
    apart = "" if adapter.text_strength is None else f"te={adapter.text_strength:g}:unet="
    return f"<lora:{adapter.name}:{apart}{adapter.strength:g}>"
