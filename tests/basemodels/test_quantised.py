"""A base in fewer bits: with what, and what is said where nothing can do it."""

import importlib.util

import diffusers
import pytest
import torch

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base, quantising
from studio.errors import BaseModelError
from studio.generation import draw
from studio.training import config_from, train
from studio.training.events import ExportChecked, Finished
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels.test_training import RECIPE, settings
from tests.basemodels.tiny import MAKERS

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def only(monkeypatch):
    """only(*packages): nothing else is installed."""

    def installed(*names):
        monkeypatch.setattr(quantising, "find_spec", lambda name: name in names or None)

    return installed


@pytest.mark.parametrize(
    "wanted, device, words",
    [
        ("8bit", CPU, "pip install torchao"),
        ("8bit", GPU, "pip install torchao"),
        ("4bit", GPU, "pip install bitsandbytes"),
        ("4bit", CPU, "needs a GPU"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(only, wanted, device, words):
    only()
    with pytest.raises(BaseModelError, match=words) as error:
        quantising.quantisation(wanted, device, torch.bfloat16)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_on_a_gpu_bitsandbytes_packs(only):
    only("bitsandbytes")
    four = quantising.quantisation("4bit", GPU, torch.bfloat16)
    assert isinstance(four, diffusers.BitsAndBytesConfig) and four.load_in_4bit and four.bnb_4bit_quant_type == "nf4"
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantising.quantisation("8bit", GPU, torch.bfloat16).load_in_8bit


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("name", tiers.default(MAKERS, "flux-dev"))
def test_a_base_in_eight_bits_draws_and_trains(folders, name):
    base = load_base(f"{folders(name)}?quantise=8bit", shared=False, precision="bf16")
    assert any("Int8" in type(p).__name__ for p in base.model.parameters())
    assert draw(base, RECIPE).size == (64, 64)
    adapter = attach(base.model, AdapterSpec(rank=2))
    x, t = torch.randn(1, base.channels, 8, 8), torch.tensor([500])
    base.predict(x, t, base.encode_prompt(["red"])).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())
    adapter.detach()


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_a_whole_run_goes_on_a_base_in_eight_bits(folders, image, tmp_path):
    config = settings(
        f"{folders('sd3')}?quantise=8bit",
        image,
        **{"training.steps": 3, "training.warmup": 1, "training.precision": "bf16"},
    )
    events = list(train(config_from(config), Workspace.open(tmp_path)))
    proof = next(event for event in events if isinstance(event, ExportChecked))
    assert isinstance(events[-1], Finished) and not proof.unused
    assert any("in 8 bits" in getattr(event, "setup", "") for event in events)


def test_without_the_package_the_base_says_so(only, folders):
    only()
    with pytest.raises(BaseModelError, match="pip install torchao"):
        load_base(f"{folders('sd1')}?quantise=8bit", shared=False)
