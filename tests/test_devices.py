"""One file names devices: another accelerator in torch's place is chosen, measured and emptied without another word."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from studio import devices
from studio.errors import BaseModelError
from studio.server import zero_gpu

ROOT = Path(__file__).parent.parent
CPU, XPU, MPS = torch.device("cpu"), torch.device("xpu"), torch.device("mps")


@pytest.fixture
def another(monkeypatch):
    """another(kind, **functions of its module): as if torch found that device. What torch was asked is in `.asked`."""

    def put(kind, **functions):
        asked = []

        def note(name, answer):
            def called(*args):
                asked.append((name, *map(str, args)))
                return answer

            return called

        answers = {
            "get_memory_info": (6, 10),
            "memory_reserved": 3,
            "max_memory_allocated": 2,
            "empty_cache": None,
            "reset_peak_memory_stats": None,
            "synchronize": None,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.accelerator, name, note(name, answer), raising=False)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device(kind))
        monkeypatch.setattr(torch, "get_device_module", lambda device=None: SimpleNamespace(**functions))
        return SimpleNamespace(asked=asked)

    return put


def test_the_accelerator_that_torch_finds_is_taken(another):
    found = another("xpu", get_device_name=lambda device: "Arc B580", is_bf16_supported=lambda **_: True)
    assert devices.best_device() == devices.choose("auto") == devices.choose("xpu") == XPU
    assert devices.choose("cpu") == CPU and devices.is_accelerator(XPU) and not devices.is_accelerator(CPU)
    assert devices.device_name(XPU) == "Arc B580" and devices.default_precision() == "bf16"
    assert devices.memory_info(XPU) == (6, 10) and devices.available_memory(XPU) == 9 and devices.peak_memory(XPU) == 2
    found.asked.clear()
    devices.reset_peak_memory(XPU)
    devices.synchronize(XPU)
    devices.empty_cache()
    assert found.asked == [("reset_peak_memory_stats", "xpu"), ("synchronize", "xpu"), ("empty_cache",)]


def test_emulated_bf16_is_not_taken(another):
    another("cuda", is_bf16_supported=lambda including_emulation=True: including_emulation)
    assert devices.default_precision() == "fp16"
    another("mps")
    assert devices.default_precision() == "fp32" and devices.device_name(MPS) == "Apple GPU"


def test_what_a_device_does_not_count_is_the_machine_s(another, monkeypatch):
    def unknown(*_):
        raise RuntimeError("not a DeviceAllocator")

    another("mps")
    for name in (
        "get_memory_info",
        "memory_reserved",
        "max_memory_allocated",
        "reset_peak_memory_stats",
        "empty_cache",
    ):
        monkeypatch.setattr(torch.accelerator, name, unknown)
    assert devices.memory_info(MPS)[1] == psutil.virtual_memory().total
    assert devices.available_memory(MPS) > devices.memory_info(MPS)[0] // 2 and devices.peak_memory(MPS) is None
    devices.reset_peak_memory(MPS)
    devices.empty_cache()


def test_out_of_memory_is_not_taken_for_a_missing_function(another, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("out of memory")

    another("cuda")
    monkeypatch.setattr(torch.accelerator, "synchronize", full)
    with pytest.raises(torch.OutOfMemoryError):
        devices.synchronize(torch.device("cuda"))


def test_only_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert devices.accelerator() is None and devices.best_device() == CPU and devices.default_precision() == "fp32"
    assert devices.device_name(CPU) == "CPU" and devices.peak_memory(CPU) is None
    with pytest.raises(BaseModelError, match="There is no cuda device"):
        devices.choose("cuda")


def test_a_zero_gpu_is_not_there_for_this_process(another, monkeypatch):
    another("cuda")
    monkeypatch.setattr(zero_gpu, "is_cpu_process", lambda: True)
    assert devices.best_device() == CPU
    devices.empty_cache()


def test_seeded_numbers_leave_the_others_alone():
    torch.manual_seed(1)
    plain = torch.rand(3)
    torch.manual_seed(1)
    with devices.seeded(7):
        first = torch.rand(2)
    assert torch.equal(torch.rand(3), plain)
    with devices.seeded(7):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.rand(2, generator=devices.generator(3)), torch.rand(2, generator=devices.generator(3)))


def test_torch_is_not_loaded_by_the_file_or_by_an_empty_cache():
    script = "import sys; from studio import devices; devices.empty_cache(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_no_other_file_names_a_device():
    kinds = ("torch.cuda", "torch.xpu", "torch.mps", "torch.backends.mps", '"cuda"', '"xpu"', '"mps"')
    found = [
        f"{file.relative_to(ROOT)}: {kind}"
        for file in (ROOT / "studio").rglob("*.py")
        if file.name != "devices.py"
        for kind in kinds
        if kind in file.read_text("utf-8")
    ]
    assert not found
