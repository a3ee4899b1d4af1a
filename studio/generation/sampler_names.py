"""Samplers and schedules by the names that other programs write, as the schedulers here."""

import re

from studio.generation.schedulers import NAMES

# ComfyUI's, Fooocus', SwarmUI's, InvokeAI's and NovelAI's names (without k_ in front); A1111's are ours.
_SAMPLERS = {
    "euler_ancestral": "Euler a",
    "euler_a": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpm++_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpm++_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2s": "DPM++ 2S",
    "dpm_2": "DPM2",
    "kdpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "kdpm_2_a": "DPM2 a",
    "pndm": "PLMS",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
    "ddim_v3": "DDIM",
    "euler_flow_match": "Euler",
    "flowmatch_euler": "Euler",
}
_PLAIN = {"", "normal", "simple", "uniform", "native", "default", "discrete", "linear"}  # the sampler's own spacing
# What A1111's "Automatic" stands for, by sampler (its sd_samplers_kdiffusion); for others the sampler's own.
_AUTOMATIC = {"DPM++ 2M": "karras", "DPM2": "karras", "DPM2 a": "karras", "DPM++ 2M SDE": "exponential"}


def scheduler_named(sampler: str, schedule: str = "") -> tuple[str, str]:
    """(our scheduler or "", what is wrong in one sentence or "") of another program's sampler and schedule."""
    sampler, schedule = " ".join(sampler.split()), " ".join(schedule.split())
    known = {name.lower(): name for name in NAMES}
    plain = re.sub(r"^k_|_gpu$", "", sampler.lower().replace(" ", "_"))
    whole = known.get(sampler.lower())
    if whole and whole.endswith(" Karras"):  # A1111 before 1.9 wrote both in one
        return whole, ""
    if plain.endswith("_k") or plain.endswith("_karras"):
        plain, schedule = re.sub(r"_k(arras)?$", "", plain), schedule or "karras"
    for word in ("Karras", "Exponential", "Automatic", "Uniform", "Normal", "Simple"):
        if not whole and not schedule and sampler.lower().endswith(f" {word.lower()}"):
            plain, schedule = plain.removesuffix(f"_{word.lower()}"), word
    name = whole or _SAMPLERS.get(plain) or known.get(plain.replace("_", " "))
    if not name:
        return "", f"The sampler {sampler[:40]!r} is not known here: the base's own is taken." if sampler else ""
    wanted = schedule.lower()
    if wanted == "automatic":
        wanted = _AUTOMATIC.get(name, "")
    if wanted in _PLAIN:
        return name, ""
    if f"{name} {wanted}".lower() in known:
        return known[f"{name} {wanted}".lower()], ""
    return name, f"The schedule {wanted[:40]!r} of {name} is not known here: the sampler's own is taken."
