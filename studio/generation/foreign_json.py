"""Recipes that other programs write as JSON: InvokeAI, Fooocus, SwarmUI and NovelAI."""

import re
from collections.abc import Mapping
from typing import Any

from studio.generation.found_recipe import FROM_IMAGE, ForeignRecipe, file_stem

_FIELDS = {  # the programs' names: ours
    "steps": "steps",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "cfg_scale": "guidance",
    "cfgscale": "guidance",
    "guidance_scale": "guidance",
    "scale": "guidance",
    "clip_skip": "clip_skip",
    "clipskip": "clip_skip",
    "positive_prompt": "prompt",
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "negativeprompt": "negative_prompt",
    "uc": "negative_prompt",
}


def _take(values: Mapping[str, Any], found: ForeignRecipe, quiet: tuple[str, ...]) -> None:
    """Plain fields by name; what is not known is ignored aloud, unless it has no effect or is off."""
    for key, value in values.items():
        if key in _FIELDS:
            found.values[_FIELDS[key]] = value
        elif key not in quiet and value not in (None, "", False, 0, [], {}, "None"):
            found.ignored[key] = value


def _number(value: Any, default: float) -> float:
    """A strength; the default where there is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def read_invokeai(data: Mapping[str, Any]) -> ForeignRecipe:
    """`invokeai_metadata`, of InvokeAI 3 and later."""
    found = ForeignRecipe("InvokeAI")
    found.sampler = str(data.get("scheduler") or "")
    model = data.get("model")
    if isinstance(model, Mapping):
        found.values["base"] = file_stem(model.get("name") or model.get("model_name") or "")
    for one in data.get("loras") or ():
        named = one.get("model") or one.get("lora") or {}
        name = named.get("name") or named.get("model_name") if isinstance(named, Mapping) else named
        found.adapters.append((file_stem(name), _number(one.get("weight"), 0.75), None))
    values = dict(data)
    if _number(values.get("guidance"), 0) and "flux" in str(values.get("generation_mode", "")):
        values["cfg_scale"] = values["guidance"]  # FLUX's own; its cfg_scale is 1
    if values.get("strength") and values.get("init_image"):
        found.values["denoising"] = values["strength"]
        found.problems.append(f"It was made from the image {str(values['init_image'])[:60]!r}: choose it again.")
    mode = str(values.get("generation_mode") or "")
    if mode and not mode.endswith("txt2img") and "img2img" not in mode:
        found.problems.append(f"It was made by {mode[:40]!r}, which is not taken over.")
    done = (
        "scheduler",
        "model",
        "loras",
        "guidance",
        "strength",
        "init_image",
        "generation_mode",
        "app_version",
        "rand_device",
        "positive_style_prompt",
        "negative_style_prompt",
        "canvas_v2_metadata",
        "_canvas_objects",
        "t5_encoder",
        "clip_embed_model",
        "ui_mode",
    )
    _take(values, found, done)
    return found


def read_dream(text: str) -> ForeignRecipe:
    """InvokeAI 2's `Dream`: "prompt [negative]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms."""
    found = ForeignRecipe("InvokeAI")
    whole = re.match(r'\s*"((?:\\.|[^"\\])*)"(.*)', text[:20_000], re.DOTALL)
    words, options = (whole[1], whole[2]) if whole else (text[:4000], "")
    found.values["negative_prompt"] = ", ".join(one.strip() for one in re.findall(r"\[([^\[\]]*)\]", words))
    found.values["prompt"] = re.sub(r"\[[^\[\]]*\]", "", words).strip()
    names = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "guidance"}
    for key, value in re.findall(r"(?:^|\s)-([A-Za-z])\s*([^\s-][^\s]*)", options):
        if key in names:
            found.values[names[key]] = value
        elif key == "A":
            found.sampler = value
        else:
            found.ignored[f"-{key}"] = value
    return found


def read_fooocus(data: Mapping[str, Any]) -> ForeignRecipe:
    """Fooocus' own scheme (`fooocus_scheme`: fooocus); its a1111 scheme is A1111's text."""
    found = ForeignRecipe("Fooocus")
    found.sampler, found.schedule = str(data.get("sampler") or ""), str(data.get("scheduler") or "")
    found.values["base"] = file_stem(data.get("base_model") or "")
    size = re.findall(r"\d+", str(data.get("resolution") or ""))
    if len(size) == 2:
        found.values |= {"width": size[0], "height": size[1]}
    for one in data.get("loras") or ():
        name, strength = (one[0], one[1]) if isinstance(one, list) else (one.get("name"), one.get("weight"))
        found.adapters.append((file_stem(name), _number(strength, 1.0), None))
    for key, value in data.items():  # lora_combined_1: "name : 0.5"
        if key.startswith("lora_combined_"):
            name, _, strength = str(value).rpartition(" : ")
            found.adapters.append((file_stem(name), float(strength), None))
    if data.get("full_prompt") and data.get("styles") not in (None, "", "[]", []):
        found.problems.append("Fooocus' styles were not taken over: the prompt is as it was typed.")
    quiet = (
        "sampler",
        "scheduler",
        "base_model",
        "base_model_hash",
        "resolution",
        "loras",
        "full_prompt",
        "styles",
        "full_negative_prompt",
        "version",
        "metadata_scheme",
        "created_by",
        "refiner_model_hash",
        "performance",
        *(key for key in data if key.startswith("lora_combined_")),
    )
    _take(data, found, quiet)
    if found.ignored.get("adm_guidance") in ("(1.5, 0.8, 0.3)", "(1.0, 1.0, 0.0)"):
        del found.ignored["adm_guidance"]  # Fooocus' default, not a choice
    return found


def read_swarmui(data: Mapping[str, Any]) -> ForeignRecipe:
    """SwarmUI's `sui_image_params`, of PNG, JPEG and WebP alike."""
    found = ForeignRecipe("SwarmUI")
    values = dict(data["sui_image_params"])
    found.sampler = str(values.pop("sampler", values.pop("comfyuisampler", "")) or "")
    found.schedule = str(values.pop("scheduler", values.pop("comfyuischeduler", "")) or "")
    found.values["base"] = file_stem(values.pop("model", ""))
    names, weights = _list(values.pop("loras", [])), _list(values.pop("loraweights", []))
    texts = _list(values.pop("loratencweights", []))
    for place, name in enumerate(names):
        strength = float(weights[place]) if place < len(weights) else 1.0
        text = float(texts[place]) if place < len(texts) else None
        found.adapters.append((file_stem(name), strength, None if text == strength else text))
    if values.get("fluxguidancescale"):
        values["cfgscale"] = values.pop("fluxguidancescale")
    if values.get("initimage") or values.get("initimagecreativity"):
        found.values["denoising"] = values.pop("initimagecreativity", None)
        values.pop("initimage", None)
        found.problems.append(FROM_IMAGE)
    quiet = (
        "swarm_version",
        "images",
        "aspectratio",
        "sidelength",
        "automaticvae",
        "modelspecificenhancements",
        "resolution",
        "outputintermediateimages",
    )
    _take(values, found, quiet)
    return found


def read_novelai(data: Mapping[str, Any], source: str = "") -> ForeignRecipe:
    """NovelAI's `Comment`; its prompt is in NovelAI's own syntax."""
    found = ForeignRecipe("NovelAI")
    found.sampler, found.schedule = str(data.get("sampler") or ""), str(data.get("noise_schedule") or "")
    found.values["base"] = source[:100]
    quiet = (
        "sampler",
        "noise_schedule",
        "request_type",
        "signed_hash",
        "version",
        "n_samples",
        "v4_prompt",
        "v4_negative_prompt",
        "legacy",
        "legacy_v3_extend",
        "legacy_uc",
        "prefer_brownian",
        "explike_fine_detail",
        "extra_passthrough_testing",
        "noise_schedule",
        "stream",
        "deliberate_euler_ancestral_bug",
        "uncond_scale" if data.get("uncond_scale") in (0, 1) else "",
        "params_version",
        "dynamic_thresholding_percentile",
        "dynamic_thresholding_mimic_scale",
        "skip_cfg_below_sigma",
        "lora_unet_weights",
        "lora_clip_weights",
        "image_noise_seed",
    )
    _take(data, found, quiet)
    if data.get("strength") and data.get("request_type") == "Img2ImgRequest":
        found.values["denoising"] = found.ignored.pop("strength", None)
        found.problems.append(FROM_IMAGE)
    if re.search(r"[{}]|\d::", str(data.get("prompt", ""))):
        found.problems.append("NovelAI's emphasis ({word}, 1.2::word::) is not read here: write (word:1.2).")
    return found


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",") if one.strip()]
    return list(value or ())
