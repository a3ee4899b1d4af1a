"""Adapters at hand: apart by component, block and step, many strengths in one batch, and none acts between images."""

import pytest
import torch

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter, write_adapter
from studio.basemodels import load_base
from studio.errors import AdapterError
from studio.generation import AppliedAdapter, Recipe, draw, generate
from studio.generation.adapter_cache import cache_of
from studio.generation.strength_sweep import at_strength, draw_strength_sweep
from tests import tiers
from tests.generation.plain import apart, same

QUICK = {"prompt": "red apple, on a blue background", "steps": 4, "seed": 7}


def loud(path, seed=0, **spec):
    """An adapter for the starter's denoiser and text encoder, with weights large enough to change the image."""
    base = load_base(shared=False)
    parts = {name: attach(base.modules()[name], AdapterSpec(rank=4, alpha=4, **spec)) for name in base.modules()}
    chance = torch.Generator().manual_seed(seed)
    updates = {}
    for component, adapter in parts.items():
        for parameter in adapter.parameters():
            parameter.data = torch.randn(parameter.shape, generator=chance) * 0.05
        updates |= {(component, key): update for (_, key), update in adapter.updates.items()}
    write_adapter(path, updates)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return loud(folder / "one.safetensors"), loud(folder / "two.safetensors", 1, kind="lokr")


def drawn(*uses: AppliedAdapter):
    return generate(Recipe(**QUICK, adapters=uses))


def test_an_adapter_is_what_attaching_its_file_by_hand_gives(files):
    base = load_base(shared=False)
    adapter = attach_file(read_adapter(files[0]), base.modules(), 0.7)
    by_hand = draw(base, Recipe(**QUICK))
    adapter.detach()
    assert same(drawn(AppliedAdapter(file=files[0], strength=0.7)), by_hand)


def test_after_an_image_nothing_acts(files):
    bare = generate(Recipe(**QUICK))
    assert not same(drawn(AppliedAdapter(file=files[0])), bare)
    assert same(draw(load_base(), Recipe(**QUICK)), bare)


def test_a_file_is_read_once(files, monkeypatch):
    drawn(AppliedAdapter(file=files[0]))
    monkeypatch.setattr("studio.generation.adapter_cache.read_adapter", lambda path: pytest.fail("read again"))
    drawn(AppliedAdapter(file=files[0], strength=0.3, blocks={"unet.mid_block": 0.0}))


def test_a_file_that_changed_is_read_again(files, tmp_path):
    file = tmp_path / "same name.safetensors"
    file.write_bytes(files[0].read_bytes())
    before = drawn(AppliedAdapter(file=file))
    loud(file, seed=5)
    assert not same(drawn(AppliedAdapter(file=file)), before)


def test_the_text_encoders_strength_stands_apart(files):
    both, words = (
        drawn(AppliedAdapter(file=files[0])),
        drawn(AppliedAdapter(file=files[0], strength=0, text_strength=1)),
    )
    assert not same(both, words)
    assert not same(words, generate(Recipe(**QUICK)))
    assert same(drawn(AppliedAdapter(file=files[0], strength=0, text_strength=0)), generate(Recipe(**QUICK)))


@pytest.fixture
def by_hand(files):
    """(a base of its own, the first file's adapter on it, without the text encoder's part)."""
    base = load_base(shared=False)
    adapter = attach_file(read_adapter(files[0]), base.modules())
    adapter.set_layer_scales(lambda component, path: float(component == "unet"))
    return base, adapter


def test_blocks_have_factors_of_their_own(files, by_hand):
    base, adapter = by_hand
    adapter.set_layer_scales(
        lambda component, path: component == "unet" and (0.25 if path.startswith("down_blocks.1.") else 1)
    )
    use = AppliedAdapter(file=files[0], text_strength=0, blocks={"unet.down_blocks.1": 0.25})
    assert same(drawn(use), draw(base, Recipe(**QUICK)))
    assert not same(drawn(use), drawn(AppliedAdapter(file=files[0], text_strength=0)))


@pytest.mark.parametrize(
    "start, end, steps", tiers.default([(0.25, 0.5, {1}), (0.5, 1, {2, 3}), (0, 0.5, {0, 1}), (0.5, 0.5, set())])
)
def test_an_adapter_acts_between_its_start_and_its_end(files, by_hand, start, end, steps):
    base, adapter = by_hand

    def before(done: int, total: int) -> None:
        adapter.strength = float(done in steps)

    wanted = draw(base, Recipe(**QUICK), before=before)
    assert same(drawn(AppliedAdapter(file=files[0], text_strength=0, start=start, end=end)), wanted)


def test_the_same_file_twice_counts_twice(files):
    one = AppliedAdapter(file=files[0], strength=0.4)
    assert apart(drawn(one, one), drawn(AppliedAdapter(file=files[0], strength=0.8))) < 1


@pytest.mark.parametrize("which", tiers.default([0, 1]))
def test_a_strength_sweep_is_the_images_one_by_one(files, which):
    recipe = Recipe(**QUICK, adapters=(AppliedAdapter(file=files[which], text_strength=0.5), (files[1 - which], 0.2)))
    strengths = (0.0, 0.5, 1.0, -0.5)
    for strength, image in zip(strengths, draw_strength_sweep(recipe, strengths), strict=True):
        assert apart(image, generate(at_strength(recipe, strength))) < 1


def test_a_strength_sweep_that_does_not_fit_is_drawn_in_halves(files, monkeypatch):
    from studio.generation import strength_sweep

    asked, draw_rows = [], strength_sweep.draw_rows

    def small(base, recipe, rows, *more, **named):
        asked.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError
        return draw_rows(base, recipe, rows, *more, **named)

    monkeypatch.setattr(strength_sweep, "draw_rows", small)
    assert len(draw_strength_sweep(Recipe(**QUICK, adapters=((files[0], 1),)), (0, 0.5, 1))) == 3
    assert asked == [3, 1, 2]


def test_a_file_that_is_gone_leaves_the_others_detached(files, tmp_path):
    bare = generate(Recipe(**QUICK))
    with pytest.raises(AdapterError, match="nowhere"):
        drawn(AppliedAdapter(file=files[0]), AppliedAdapter(file=tmp_path / "nowhere.safetensors"))
    assert same(generate(Recipe(**QUICK)), bare)


def test_a_run_that_is_over_can_not_be_drawn_with(tmp_path):
    with pytest.raises(AdapterError, match="does not train any more"):
        drawn(AppliedAdapter(file=tmp_path / "run" / "adapter.safetensors", live=True))


def test_a_base_nobody_uses_takes_its_adapters_with_it():
    import gc
    import weakref

    base = load_base(shared=False)
    cache_of(base)
    gone = weakref.ref(base)
    del base
    gc.collect()
    assert gone() is None
