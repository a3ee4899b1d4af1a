"""The schedulers by the names that people know them by; the arithmetic is diffusers'."""

from typing import Any

from studio.errors import GenerationError

OWN = "as the base"

# Name: diffusers' class, and what differs from the base's own config. The betas and the prediction type stay.
DIFFUSION: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}
FLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    "UniPC": ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
}
NAMES = (OWN, *DIFFUSION)


def suitable(prediction_type: str) -> tuple[str, ...]:
    """The names that go with a base."""
    return (OWN, *(FLOW if prediction_type == "flow" else DIFFUSION))


def make_scheduler(own: Any, name: str) -> Any:
    """The scheduler `name` for a base whose own one is `own` (which is not changed; for OWN it is taken as it is).

    Raises GenerationError for a name that is not known or does not suit the base.
    """
    if name == OWN:
        return own
    flow = type(own).__name__.startswith("FlowMatch") or own.config.get("use_flow_sigmas", False)
    known = FLOW if flow else DIFFUSION
    if name not in known:
        raise GenerationError(f"There is no scheduler {name[:40]!r} for this base: choose {', '.join((OWN, *known))}.")
    from studio.libraries.diffusers import diffusers

    kind, changes = known[name]
    if kind == type(own).__name__ and not changes:
        return own
    config = dict(own.config)
    if flow and "use_flow_sigmas" in changes:  # theirs is called otherwise
        changes = {**changes, "flow_shift": config.get("shift", 1.0)}
    for key in ("use_karras_sigmas", "algorithm_type"):  # a base's own must not turn one name into another
        config.pop(key, None)
    return getattr(diffusers, kind).from_config(config, **changes)
