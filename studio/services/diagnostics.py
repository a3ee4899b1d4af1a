"""What this machine has and what works on it: one report that a person can read or paste into a question."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from studio import __version__, devices
from studio.errors import StudioError
from studio.workspace import ASSETS, Workspace

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "gradio", "safetensors", "pillow", "pydantic", "numpy")
GIB = 2**30
ROOM = 2.0  # GiB of disk below which a run may not fit


def examine(workspace: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Everything found, as plain JSON data; sizes in GiB. `works` has one row {name, works, note} a thing to do."""
    works: list[dict[str, Any]] = []

    def check(name: str, works_here: bool, note: str = "") -> bool:
        works.append({"name": name, "works": bool(works_here), "note": note})
        return works_here

    place = _workspace(workspace, check)
    free = _gib(shutil.disk_usage(place).free) if place else None
    device = _device()
    computes = check("compute", "error" not in device, device.get("error", f"on {device['name']}"))
    starter = (ASSETS / "starter" / "model_index.json").is_file()
    missing = "" if starter else "assets/starter is not complete: get the repository's assets again"
    check("train", computes and starter and bool(place), missing or _short_of_room(free))
    check("generate", computes and starter, missing)
    names = (ASSETS / "starter" / "vocabulary.json").is_file() and (ASSETS / "starter" / "image_encoder").is_dir()
    check("caption", computes and names, "" if names else "assets/starter has no image encoder or vocabulary.json")
    for bits, package in (("8 bits", "torchao"), ("4 bits", "bitsandbytes")):
        there = importlib.util.find_spec(package) is not None and (bits == "8 bits" or bool(device.get("packs")))
        check(f"in {bits}", there, "" if there else _lacks(package, device))
    page = importlib.util.find_spec("gradio") is not None
    check("page", page, "" if page else "Gradio is missing: pip install -r requirements.txt")
    return {
        "studio": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "processors": os.cpu_count(),
        "memory": _gib(psutil.virtual_memory().total),
        "memory_free": _gib(psutil.virtual_memory().available),
        "workspace": str(place) if place else None,
        "disk_free": free,
        "works": works,
    }


def report(found: dict[str, Any]) -> str:
    """`examine`'s answer as lines for a terminal."""
    device = found["device"]
    memory = f", {device['memory']} GiB" if "memory" in device else ""
    rows = {
        "studio": f"{found['studio']}, Python {found['python']}",
        "system": found["system"],
        "packages": ", ".join(f"{name} {number or 'missing'}" for name, number in found["packages"].items()),
        "device": f"{device['name']}{memory}; {found['processors']} processors, {device.get('threads', '?')} threads",
        "bases": f"{device.get('placement', 'nowhere')}",
        "memory": f"{found['memory']} GiB, {found['memory_free']} free",
        "workspace": f"{found['workspace'] or 'none'}, {found['disk_free']} GiB free",
    }
    lines = [f"{label:<10} {value}" for label, value in rows.items()]
    for row in found["works"]:
        lines.append(f"{row['name']:<10} {'works' if row['works'] else 'does not work'}" + _after(row["note"]))
    return "\n".join(lines)


def _after(note: str) -> str:
    return f" ({note})" if note else ""


def _workspace(wanted: str | os.PathLike[str] | None, check: Callable[[str, bool, str], bool]) -> Path | None:
    try:
        root = Workspace.open(wanted).root
    except StudioError as error:
        check("workspace", False, str(error))
        return None
    writable = os.access(root, os.W_OK)
    check("workspace", writable, str(root) if writable else f"{root} can't be written: choose another with --workspace")
    return root if writable else None


def _device() -> dict[str, Any]:
    """The device that training would use, tried with one small gradient. `error` says why nothing computes."""
    try:
        import torch

        device = devices.best_device()
        found: dict[str, Any] = {"kind": device.type, "name": devices.device_name(device)}
        found["threads"] = torch.get_num_threads()
        if devices.is_accelerator(device):
            found |= {"memory": _gib(devices.memory_info(device)[1]), "bf16": devices.supports_bf16(device)}
        else:
            found["name"] = platform.processor() or platform.machine() or found["name"]
        found["packs"] = devices.supports_bitsandbytes(device)
        from studio.basemodels.vram import placement

        found["placement"] = placement(device, devices.default_precision(device))
        x = torch.ones(4, 4).to(device).requires_grad_()
        torch.autograd.backward((x @ x).sum())
        if x.grad is None or not bool((x.grad == 8).all()):
            found["error"] = "a small product came out wrong: check the driver and reinstall torch"
    except Exception as error:  # a doctor reports whatever a broken installation throws
        line = str(error).strip().splitlines()
        return {"kind": "none", "name": "none", "error": f"{type(error).__name__}: {line[0] if line else 'no message'}"}
    return found


def _lacks(package: str, device: dict[str, Any]) -> str:
    unfit = package == "bitsandbytes" and not device.get("packs")
    return "needs a GPU (CUDA, ROCm or XPU)" if unfit else f"pip install {package}"


def _short_of_room(free: float | None) -> str:
    return f"only {free} GiB of disk left: a run may not fit" if free is not None and free < ROOM else ""


def _gib(count: int) -> float:
    return round(count / GIB, 1)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
