"""What a base takes is said before it is loaded; what is not needed leaves; a large VAE works in tiles."""

import weakref

import pytest
import torch
from PIL import Image, ImageChops

from studio.basemodels.vram import estimate, placement
from studio.errors import BaseModelError
from studio.generation import draw
from tests import tiers
from tests.basemodels.test_training import RECIPE
from tests.basemodels.tiny import MAKERS


@pytest.mark.parametrize("name", MAKERS)
def test_parameters_are_counted_from_the_headers_alone(bases, folders, name):
    base = bases(name)
    parts = base.modules() | {"vae": base.pipeline.vae}
    found = estimate(folders(name))
    tied = {part: {p.data_ptr(): p.numel() for p in module.state_dict().values()} for part, module in parts.items()}
    for part, sizes in tied.items():
        assert found.parameters[part] == pytest.approx(sum(sizes.values()), rel=0.01)
    assert found.gigabytes == pytest.approx(4 * sum(found.parameters.values()) / 1e9)
    assert estimate(folders(name), "bf16").gigabytes < found.gigabytes
    assert base.placed().startswith(base.title) and "\n" not in base.placed()


def test_where_it_runs_is_one_sentence():
    assert placement(torch.device("cpu"), "fp32") == "On the CPU in fp32."
    assert placement(torch.device("mps"), "bf16") == "On the Apple GPU in bf16, the VAE in fp32."


def test_a_folder_without_weights_is_said(tmp_path):
    with pytest.raises(BaseModelError, match="no .safetensors weights"):
        estimate(tmp_path)


@pytest.mark.parametrize("name", tiers.default(MAKERS, "sdxl", "flux-dev"))
def test_what_is_cached_leaves_the_device(bases, name, monkeypatch):
    """Released parts are sent off, drawing fetches all of them again; the denoiser stays."""
    base, sent = bases(name), []
    own = torch.nn.Module.to
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda module, where, *more: sent.append((module, str(where))) or own(module, where)
    )
    base.offload_encoders()
    beside = [base.pipeline.vae, *(part for part in base.modules().values() if part is not base.model)]
    assert [module for module, _ in sent] == beside and {where for _, where in sent} == {"cpu"}
    sent.clear()
    with monkeypatch.context() as elsewhere:  # as if what was sent off lay on another device than the base's
        elsewhere.setattr(torch.nn.Module, "to", lambda module, where: sent.append((module, str(where))))
        elsewhere.setattr(base, "device", torch.device("meta"))
        base.onload()
    assert [module for module, _ in sent if module in beside] == beside and {where for _, where in sent} == {"meta"}
    loaded, onload = [], base.onload
    monkeypatch.setattr(base, "onload", lambda: loaded.append(onload()))
    draw(base, RECIPE)
    assert len(loaded) == 1
    sent.clear()
    base.offload_encoders(text=False)
    assert [module for module, _ in sent] == [base.pipeline.vae]


def test_a_vae_out_of_memory_goes_on_in_tiles(bases, monkeypatch):
    base, vae = bases("sdxl"), bases("sdxl").pipeline.vae
    image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    plain, latents = draw(base, RECIPE), base.encode_image([image])[0]

    def too_large_whole(work):
        def tiles_only(x):
            if not (vae.use_slicing and vae.use_tiling):
                raise torch.OutOfMemoryError("too large")
            return work(x)

        return tiles_only

    monkeypatch.setattr(vae, "decode", too_large_whole(vae.decode))
    monkeypatch.setattr(vae, "encode", too_large_whole(vae.encode))
    try:
        assert ImageChops.difference(draw(base, RECIPE), plain).getbbox() is None
        vae.disable_slicing()
        vae.disable_tiling()
        assert torch.equal(base.encode_image([image])[0], latents)
    finally:
        vae.disable_slicing()
        vae.disable_tiling()


def test_what_the_failed_attempt_held_is_let_go_before_the_vae_tries_again(bases):
    class Held:
        pass

    base, held, there = bases("sdxl"), [], []

    def work():
        there.append([one for one in held if one() is not None])
        large = Held()
        held.append(weakref.ref(large))
        if len(there) == 1:
            raise torch.OutOfMemoryError("too large")
        return "done"

    try:
        assert base._tiled(work) == "done" and there == [[], []]
    finally:
        base.pipeline.vae.disable_slicing()
        base.pipeline.vae.disable_tiling()
