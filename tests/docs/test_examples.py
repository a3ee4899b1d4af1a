"""The scripts in examples/ run, and print what their text promises."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example with these arguments; what it prints."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_any_module_learns_saves_and_loads(run):
    printed = run("any_module.py", "--steps", "20")
    losses = re.findall(r"loss ([\d.]+) -> ([\d.]+); from the file ([\d.]+); (\d+) of (\d+) layers", printed)
    assert len(losses) == 2
    for before, after, loaded, matched, total in losses:
        assert float(after) < float(before) and loaded == after and matched == total


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_an_adapter_is_described_and_placed(run, tmp_path, layout):
    unet = load_base("starter").modules()["unet"]
    adapter = attach(unet, AdapterSpec(rank=2, targets="attention"))
    count = len(list(adapter.layers))
    adapter.save(tmp_path / "mine.safetensors", layout=layout)
    adapter.detach()
    printed = run("read_any_adapter.py", str(tmp_path / "mine.safetensors"), "--base", "starter")
    assert f"{layout} layout" in printed and f"{count} of {count} layers applied" in printed


def test_a_key_without_a_place_is_named(run, tmp_path):
    unet = load_base("starter").modules()["unet"]
    path = next(name for name, _ in unet.named_modules() if name.endswith("to_q"))
    width = unet.get_submodule(path).weight.shape[0]
    tensors = {f"unet.{path}.lora_A.weight": torch.zeros(2, width), f"unet.{path}.lora_B.weight": torch.zeros(width, 2)}
    tensors |= {"unet.nowhere.lora_A.weight": torch.zeros(2, 8), "unet.nowhere.lora_B.weight": torch.zeros(8, 2)}
    save_file(tensors, tmp_path / "odd.safetensors")
    printed = run("read_any_adapter.py", str(tmp_path / "odd.safetensors"), "--base", "starter")
    assert "1 of 2 layers applied" in printed and re.search(r"unused: .*nowhere", printed)


@pytest.mark.full
def test_two_runs_are_compared(run, tmp_path):
    settings = ("adapter.rank=2", "adapter.targets=attention", "training.batch_size=1", "validation.fraction=0.05")
    flags = [word for setting in settings for word in ("--set", setting)]
    printed = run("train_and_sweep.py", "--steps", "2", "--workspace", str(tmp_path), *flags)
    losses = dict(re.findall(r"learning rate ([\d.e-]+)\n(?:.*\n)*?  lowest validation loss ([\d.]+)", printed))
    assert len(losses) == 2 and f"best: learning rate {min(losses, key=losses.get)}" in printed
    assert len(list((tmp_path / "outputs").glob("**/*.png"))) == 3
