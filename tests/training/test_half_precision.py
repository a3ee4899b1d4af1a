"""Runs in half precision stay near the run in fp32, with the VAE in fp32; see tests/benchmarks/half_precision."""

import pytest
import torch

from tests.basemodels import tiny
from tests.benchmarks import half_precision

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.full
@pytest.mark.parametrize("name", half_precision.FAMILIES)
def test_losses_stay_near_those_of_fp32(tmp_path, name):
    images = half_precision.discs(tmp_path / "images")
    base = tiny.save(name, tmp_path)
    found = dict(half_precision.compare(base, images, tmp_path / "runs", 4))
    assert set(found) == {"bf16", "fp16"}
    for precision, apart in found.items():
        assert apart.finite and apart.most < half_precision.BOUND[precision], (precision, apart)
        assert apart.denoiser == HALF[precision] and apart.vae == torch.float32
