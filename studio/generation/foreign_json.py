"""Recipes that other programs write as JSON: InvokeAI, Fooocus, SwarmUI, NovelAI and Draw Things."""

import re
from collections.abc import Mapping
from typing import Any

from studio.generation.found_recipe import FROM_IMAGE, ForeignRecipe, file_stem
from studio.text import pluralize

_FIELDS = {  # the programs' names: ours
    "steps": "steps",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "cfg_scale": "guidance",
    "cfgscale": "guidance",
    "cfg_rescale_multiplier": "guidance_rescale",
    "cfg_rescale": "guidance_rescale",
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
        if _FIELDS.get(key) == "guidance_rescale" and not value:
            continue  # off
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
    style = values.get("positive_style_prompt")
    if style and style != values.get("positive_prompt"):
        found.problems.append(f"Its style prompt {str(style)[:60]!r} is not taken over: there is one prompt here.")
    drawn_on = _canvas(values.get("canvas_v2_metadata"))
    if drawn_on:
        found.problems.append(f"Its canvas is not taken over: {', '.join(drawn_on)}.")
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


def _canvas(metadata: Any) -> list[str]:
    """What of InvokeAI's canvas acted on the image: {"controlLayers": [...], "regionalGuidance": [...], ...}."""
    layers = metadata if isinstance(metadata, Mapping) else {}
    return [str(name)[:40] for name, drawn in layers.items() if isinstance(drawn, list) and drawn][:10]


def read_sd_metadata(data: Mapping[str, Any]) -> ForeignRecipe:
    """InvokeAI 2's `sd-metadata` (its RFC 266): {"model_weights", "image": {…}}, in a grid "images".

    A prompt is a list of {"prompt", "weight"}; words in square brackets are the negative prompt, as in `Dream`.
    """
    found = ForeignRecipe("InvokeAI")
    images = data.get("images") or [data["image"]]
    values = dict(images[0])
    if len(images) > 1:
        found.problems.append(f"It is a grid of {len(images)} images: this is the recipe of the first.")
    found.values["base"] = file_stem(data.get("model_weights") or data.get("model_id") or "")
    found.sampler = str(values.pop("sampler", "") or "")
    prompts = values.pop("prompt", None) or []
    if isinstance(prompts, str):
        words = prompts
    else:
        words = ", ".join(str(one["prompt"]) for one in prompts)
        if len({one.get("weight", 1) for one in prompts}) > 1:
            found.problems.append("The weights of the parts of its prompt are not taken over: write (part:1.2).")
    found.values["prompt"], found.values["negative_prompt"] = _bracketed(words)
    if values.pop("type", "txt2img") == "img2img":
        found.values["denoising"] = values.pop("strength", values.pop("strength_steps", None))
        found.problems.append(FROM_IMAGE)
    _take(values, found, ("orig_hash", "init_image_path", "fit", "step_number"))
    return found


def _bracketed(words: str) -> tuple[str, str]:
    """(prompt, negative prompt) of InvokeAI 2's text, which has the latter in square brackets."""
    negative = ", ".join(one.strip() for one in re.findall(r"\[([^\[\]]*)\]", words))
    return re.sub(r"\[[^\[\]]*\]", "", words).strip(), negative


def read_dream(text: str) -> ForeignRecipe:
    """InvokeAI 2's `Dream`: "prompt [negative]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms."""
    found = ForeignRecipe("InvokeAI")
    whole = re.match(r'\s*"((?:\\.|[^"\\])*)"(.*)', text[:20_000], re.DOTALL)
    words, options = (whole[1], whole[2]) if whole else (text[:4000], "")
    found.values["prompt"], found.values["negative_prompt"] = _bracketed(words)
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
    listed = {name for name, _, _ in found.adapters}
    for key, value in data.items():  # lora_combined_1: "name : 0.5"; what is also in `loras` is the same one
        if key.startswith("lora_combined_"):
            name, _, strength = str(value).rpartition(" : ")
            enabled, _, name = name.rpartition(" : ") if name.startswith(("True : ", "False : ")) else ("", "", name)
            if file_stem(name) not in listed and enabled != "False":
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
    if found.ignored.get("refiner_model") is None:
        found.ignored.pop("refiner_switch", None)
    if found.ignored.get("vae") == "Default (model)":
        del found.ignored["vae"]
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
        scale, values["cfgscale"] = values.get("cfgscale"), values.pop("fluxguidancescale")
        if scale is not None and float(scale) != 1:
            found.problems.append(
                f"Of its CFG scale {scale} and FLUX guidance {values['cfgscale']}, the second was taken."
            )
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
    for key, what in (("v4_prompt", "prompt"), ("v4_negative_prompt", "negative prompt")):
        caption = dict((data.get(key) or {}).get("caption") or {})
        people = [str(one.get("char_caption", "")) for one in caption.get("char_captions") or ()]
        if any(people):
            found.problems.append(
                f"The {what} of {pluralize(len(people), 'character')} is not taken over: {'; '.join(people)[:80]!r}."
            )
    if re.search(r"[{}]|\d::", str(data.get("prompt", ""))):
        found.problems.append("NovelAI's emphasis ({word}, 1.2::word::) is not read here: write (word:1.2).")
    return found


def read_draw_things(data: Mapping[str, Any]) -> ForeignRecipe:
    """Draw Things' UserComment: c and uc are the prompts, size is "512x768"."""
    found = ForeignRecipe("Draw Things")
    values = dict(data)
    found.values["prompt"], found.values["negative_prompt"] = values.pop("c", ""), values.pop("uc", "")
    found.sampler = str(values.pop("sampler", "") or "")
    found.values["base"] = file_stem(values.pop("model", "") or "")
    width, cross, height = str(values.pop("size", "")).partition("x")
    if cross:
        found.values |= {"width": width, "height": height}
    for one in values.pop("lora", None) or ():
        found.adapters.append((file_stem(one.get("model", "")), _number(one.get("weight"), 1.0), None))
    strength = values.pop("strength", 1)
    if isinstance(strength, int | float) and strength < 1:
        found.values["denoising"] = strength
        found.problems.append(FROM_IMAGE)
    _take(values, found, ("v2", "profile", "seed_mode", "shift", "mask_blur"))  # v2: the same again, with every default
    return found


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",") if one.strip()]
    return list(value or ())
