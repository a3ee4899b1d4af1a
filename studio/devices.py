"""The device that computes: which one, its name, its memory and what it can do. The only file that names a device.

Built on `torch.accelerator`, so CUDA, ROCm (which torch calls "cuda"), XPU and MPS are one path, and a test can put
another device in its place. torch is imported when a function needs it, never when this file is imported.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from studio.errors import BaseModelError, out_of_memory
from studio.server import zero_gpu

if TYPE_CHECKING:
    import torch

Choice = Literal["auto", "cpu", "cuda", "xpu", "mps"]  # what a setting can ask for
Precision = Literal["fp32", "bf16", "fp16"]

_APPLE = "mps"  # torch's name for it
_BITSANDBYTES = ("cuda", "xpu")  # devices on which it packs weights in 4 and 8 bits
_DECOMPOSES = ("cuda", "xpu")  # devices on which torch computes singular values
_PINS = ("cuda", "xpu")  # devices that copy from pinned memory while they compute
_UNSUPPORTED = (RuntimeError, NotImplementedError, AttributeError, TypeError)  # what torch raises of a device's gaps


# Which ---------------------------------------------------------------------------------------------------------------


def accelerator() -> "torch.device | None":
    """The accelerator that this process may compute on, without an index; None where there is only the CPU.

    On a ZeroGPU Space the GPU belongs to other processes most of the time: then it is None as well.
    """
    import torch

    if zero_gpu.is_cpu_process():
        return None
    return torch.accelerator.current_accelerator(check_available=True)


def best_device() -> "torch.device":
    """The accelerator, else the CPU."""
    import torch

    return accelerator() or torch.device("cpu")


def choose(wanted: str) -> "torch.device":
    """The device of a setting (one of Choice). Raises BaseModelError where this machine lacks it."""
    import torch

    best = best_device()
    if wanted == "auto":
        return best
    if wanted not in ("cpu", best.type):
        raise BaseModelError(f"There is no {wanted} device on this machine: set the device to auto.")
    return torch.device(wanted)


def is_accelerator(device: "torch.device") -> bool:
    """Whether it is anything but the CPU: has memory of its own, and works while Python goes on."""
    return device.type != "cpu"


def device_name(device: "torch.device") -> str:
    """For people: "NVIDIA H200", "Apple GPU", "CPU"."""
    import torch

    if not is_accelerator(device):
        return "CPU"
    if device.type == _APPLE:
        return "Apple GPU"
    try:
        return str(torch.get_device_module(device).get_device_name(device))
    except _UNSUPPORTED:
        return f"{device.type} device"


# Precision -----------------------------------------------------------------------------------------------------------


def supports_bf16(device: "torch.device") -> bool:
    """Whether it computes in bfloat16 by itself; emulated, as on NVIDIA's Turing, it is slower than fp16."""
    import torch

    if not is_accelerator(device):
        return True
    try:
        return bool(torch.get_device_module(device).is_bf16_supported(including_emulation=False))
    except _UNSUPPORTED:
        return False


def default_precision(device: "torch.device | None" = None) -> Precision:
    """fp32 on a CPU and on Apple's; elsewhere bf16 where the device has it, else fp16. device: the best one if None."""
    device = device or best_device()
    if device.type in ("cpu", _APPLE):
        return "fp32"
    return "bf16" if supports_bf16(device) else "fp16"


def autocast(device: "torch.device", dtype: "torch.dtype") -> AbstractContextManager:
    """Where matrix products and convolutions run in `dtype`; nothing changes in float32."""
    import torch

    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def supports_bitsandbytes(device: "torch.device") -> bool:
    """Whether bitsandbytes can pack a model's weights for it (its optimizers need the same)."""
    return device.type in _BITSANDBYTES


# Memory --------------------------------------------------------------------------------------------------------------


def memory_info(device: "torch.device") -> tuple[int, int]:
    """(free, total) bytes: of the device's own memory, or of the machine's where the device tells no figure."""
    import psutil

    found = _ask(device, "get_memory_info", "mem_get_info")
    machine = psutil.virtual_memory()
    return found or (machine.available, machine.total)


def available_memory(device: "torch.device") -> int:
    """Bytes that this process could hold in all: what is free, and what it holds already."""
    import psutil

    free, _ = memory_info(device)
    held = _ask(device, "memory_reserved")
    return free + (psutil.Process().memory_info().rss if held is None else held)


def peak_memory(device: "torch.device") -> int | None:
    """Bytes of tensors on the device, at the most since `reset_peak_memory`; None where the device does not count."""
    return _ask(device, "max_memory_allocated")


def reset_peak_memory(device: "torch.device") -> None:
    """Begin `peak_memory` again from what is held now."""
    _ask(device, "reset_peak_memory_stats")


def empty_cache() -> None:
    """Give back to the device what torch keeps of its memory for later. Does nothing where torch is not loaded."""
    if "torch" in sys.modules:
        device = accelerator()
        if device is not None:
            _ask(device, "empty_cache")


def synchronize(device: "torch.device") -> None:
    """Wait until all that was asked of the device is done."""
    _ask(device, "synchronize")


def _ask(device: "torch.device", name: str, own: str = "") -> Any:
    """The answer of torch.accelerator's function, else of the device's own module (which may call it `own`).

    None on the CPU, and where neither knows the function.
    """
    import torch

    if not is_accelerator(device):
        return None
    for module, function in ((torch.accelerator, name), (torch.get_device_module(device), own or name)):
        try:
            return getattr(module, function)(*([] if name == "empty_cache" else [device]))
        except _UNSUPPORTED as error:
            if out_of_memory(error):
                raise
    return None


def pinned(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """A CPU tensor where copies to `device` need not wait; the same tensor where that has no use."""
    return tensor.pin_memory() if device.type in _PINS else tensor


# Random numbers ------------------------------------------------------------------------------------------------------


def for_singular_values() -> "torch.device":
    """The device that decomposes matrices fastest: the accelerator where torch can do it there, else the CPU."""
    import torch

    device = accelerator()
    return device if device and device.type in _DECOMPOSES else torch.device("cpu")


def generator(seed: int) -> "torch.Generator":
    """A generator on the CPU: the same numbers whatever the device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def device_generator(device: "torch.device", seed: int) -> "torch.Generator":
    """A generator on this device; on the CPU where torch has none for it."""
    import torch

    try:
        return torch.Generator(device).manual_seed(seed)
    except NotImplementedError:
        return generator(seed)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Whatever draws inside: outside, global random numbers of the CPU and the accelerator go on as before."""
    import torch

    device = accelerator()
    with torch.random.fork_rng(device_type=device.type) if device else torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random numbers of the CPU and the accelerator begin at `seed` inside, and go on as before outside."""
    import torch

    with random_numbers_kept():
        torch.manual_seed(seed)
        yield
