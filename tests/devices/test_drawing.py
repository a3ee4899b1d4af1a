"""Images, sweeps and measures on the pretend device: the CPU's pixels, with everything on the device."""

import gc

import numpy as np
import pytest
import torch
from PIL import Image

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.generation import Recipe, generate
from studio.generation.adapter_cache import cache_of
from studio.generation.drawing import draw_rows
from studio.generation.grids import Axis, draw_cells
from studio.generation.latent_preview import preview_latents
from studio.generation.strength_sweep import draw_strength_sweep
from tests import tiers
from tests.basemodels.tiny import MAKERS
from tests.devices.conftest import forget_bases
from tests.devices.runs import run
from tests.devices.second_device import NAME, pretend

TINY = {"prompt": "red apple", "seed": 1, "steps": 2, "width": 64, "height": 64, "guidance": 3.0}


@pytest.fixture(scope="session")
def adapter_file(folders, tmp_path_factory):
    """adapter_file(base, kind, text): a file of loud random numbers."""
    made = {}

    def file(name, kind="lora", text=False):
        if (name, kind, text) not in made:
            base = load_base(str(folders(name)), shared=False, precision="fp32")
            module = base.pipeline.text_encoder if text else base.model
            torch.manual_seed(len(made))
            adapter = attach(module, AdapterSpec(rank=2, kind=kind, targets="attention" if text else "all"))
            draw = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in adapter.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=draw).to(parameter) * 0.1)
            made[name, kind, text] = tmp_path_factory.mktemp("adapters") / f"{kind}.safetensors"
            adapter.save(made[name, kind, text], prefix="text_encoder" if text else base.denoiser)
        return made[name, kind, text]

    return file


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """An image, and a mask of half of it."""
    folder = tmp_path_factory.mktemp("source")
    Image.radial_gradient("L").convert("RGB").save(folder / "image.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(folder / "mask.png")
    return folder / "image.png", folder / "mask.png"


def recipes(base, files, source) -> dict[str, Recipe]:
    image, mask = source
    first, second, text = files
    plain = TINY | {"base": str(base)}
    blocks = {"file": first, "strength": 0.8, "blocks": {"unet.up_blocks": 0.5}, "start": 0.4}
    return {
        "plain": Recipe(**plain),
        "one adapter": Recipe(**plain, adapters=((first, 1.0),)),
        "several adapters, blocks, a part of the steps": Recipe(
            **plain, adapters=(blocks, (second, 0.7), (text, 1.0)), negative_prompt="green", guidance_rescale=0.5
        ),
        "image to image": Recipe(**plain, source=image, denoising=0.6, adapters=((first, 1.0),)),
        "inpainting": Recipe(**plain, source=image, mask=mask, denoising=0.9),
        "ancestral": Recipe(**plain, scheduler="Euler a") if "flux" not in str(base) else Recipe(**plain),
    }


def apart(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).max())


NO_CLIP = ("z-image",)


@pytest.mark.parametrize("name", tiers.default(MAKERS, "sd1"))
def test_images_are_those_of_the_cpu(folders, adapter_file, source, in_fp32, name):
    text = adapter_file(name) if name in NO_CLIP else adapter_file(name, text=True)
    todo = recipes(folders(name), (adapter_file(name), adapter_file(name, "loha"), text), source)
    if name in ("sd3", "flux-dev", "flux-schnell", "z-image"):
        del todo["ancestral"]
    images = []
    for device in ("cpu", NAME):
        forget_bases()
        if device == NAME:
            with pretend():
                images.append({what: generate(recipe) for what, recipe in todo.items()})
                assert load_base(str(folders(name))).device.type == NAME
                forget_bases()
        else:
            images.append({what: generate(recipe) for what, recipe in todo.items()})
    for what in todo:
        assert apart(images[0][what], images[1][what]) <= 2, what
    assert apart(images[1]["plain"], images[1]["one adapter"]) > 2


@pytest.mark.full
def test_a_sweep_in_one_batch_is_its_images_one_by_one(folders, adapter_file, memory, in_fp32):
    recipe = Recipe(**TINY, base=str(folders("sd1")), adapters=((adapter_file("sd1"), 1.0),))
    swept = draw_strength_sweep(recipe, (0.0, 1.0))
    alone = [generate(recipe.model_copy(update={"adapters": ()})), generate(recipe)]
    assert [apart(*pair) <= 2 for pair in zip(swept, alone)] == [True, True]
    peak = memory.peak
    forget_bases()
    memory.peak = memory.allocated
    generate(recipe)
    one = memory.peak
    memory.limit = (one + peak) // 2  # less than both together take, more than one does
    halves = draw_strength_sweep(recipe, (0.0, 1.0))
    memory.limit = None
    assert [apart(*pair) <= 2 for pair in zip(halves, alone)] == [True, True]


@pytest.mark.full
def test_a_grid_and_a_latent_preview(folders, adapter_file, memory):
    recipe = Recipe(**TINY, base=str(folders("sd1")), adapters=((adapter_file("sd1"), 1.0),))
    axes = [Axis("strength", (0.5, 1.0)), Axis("steps", (1, 2))]
    cells = list(draw_cells(recipe, axes))
    assert not any(cell.problem for cell in cells) and sum(len(cell.images) for cell in cells) == 4
    seen = []
    base = load_base(recipe.base)
    draw_rows(base, recipe, 1, preview=seen.append)
    assert seen[0].device.type == NAME and preview_latents(base, seen[0]).size == (8, 8)


@pytest.mark.full
def test_a_run_s_result_is_drawn_after_it(folders, images, tmp_path, memory, in_fp32):
    """The export check has sent the base away; the adapters that are attached then come back with it."""
    run(folders("sd1"), images, tmp_path, **{"adapter.text_encoder": True})
    file = tmp_path / "runs" / "run" / "adapter.safetensors"
    recipe = Recipe(**TINY, base=str(folders("sd1")), adapters=((file, 1.0),))
    base = load_base(recipe.base)  # the one that the run had
    assert next(base.model.parameters()).device.type == "cpu"
    first = generate(recipe)
    base.offload()
    assert apart(first, generate(recipe)) == 0


def test_a_base_that_leaves_takes_its_adapters_along(folders, adapter_file, memory):
    empty = memory.allocated
    base = load_base(str(folders("sd1")), shared=False, precision="fp32")
    recipe = Recipe(**TINY, adapters=((adapter_file("sd1"), 1.0),))
    with cache_of(base).active(recipe.adapters) as step:
        drawn = draw_rows(base, recipe, 1, before=step)[0]
        full = memory.allocated
        base.offload()
        gc.collect()
        assert memory.allocated - empty < 0.02 * (full - empty)  # no merged weights and no adapters are left there
        base.onload()
        assert apart(draw_rows(base, recipe, 1, before=step)[0], drawn) == 0
