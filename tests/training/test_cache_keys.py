"""Each setting that changes what the cache holds is part of its keys: a used cache gives what an empty one does."""

import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.config_sections import DataConfig
from studio.training.distributed import Distributed
from studio.training.examples import BatchLoader, Row, encode_missing, list_examples
from tests import tiers
from tests.basemodels import tiny

# Another value for every setting of the data section, so that a new one can't be forgotten.
OTHERS = {
    "trigger": "zsk",
    "resolution": 96,
    "buckets": False,
    "upscale": True,
    "repeats": 3,
    "flip": True,
    "caption_dropout": 1.0,
    "shuffle_tags": True,
    "keep_tags": 2,
    "regularisation": "kind",
    "regularisation_weight": 2.0,
    "masks": True,
    "outside": 0.5,
    "held_out": "kind",
    "max_token_length": 5,
    "clip_skip": 2,
    "folders": ["kind weight=2"],
    "more_resolutions": [96],
    "caption_prefix": "photo of",
    "caption_suffix": "sharp",
    "wildcards": True,
    "caption_variants": True,
    "keep_tags_separator": ",",
    "tag_dropout": 0.5,
    "protected_tags": "red",
    "caption_draws": 2,
    "random_crop": 0.3,
    "color_jitter": 0.3,
    "rotation": 20.0,
    "augmentations": 2,
    "class_prompt": "a toy",
    "class_images": 2,
    "prior_prediction": 1.0,
    "class_word": "toy",
}
WITH = {  # what a setting needs to act
    "outside": {"masks": True},
    "keep_tags": {"shuffle_tags": True},
    "protected_tags": {"tag_dropout": 0.5},
    "caption_draws": {"shuffle_tags": True},
    "augmentations": {"rotation": 10.0},
    "class_word": {"trigger": "zsk1", "prior_prediction": 1.0},
}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return tiny.save("sd1", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(base_folder):
    return load_base(str(base_folder), shared=False)


@pytest.fixture
def folder(tmp_path):
    """A wide and a small image, one with a mask of its own, one with alpha."""
    place = tmp_path / "images"
    place.mkdir()
    draw = np.random.default_rng(0)
    for number, size in enumerate([(160, 80), (40, 48), (64, 64), (128, 128)]):
        image = Image.fromarray(draw.integers(0, 255, (*size[::-1], 4), np.uint8))
        image.convert("RGBA" if number == 3 else "RGB").save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"zsk{number}, red, green, blue")
    Image.new("L", (64, 64), 100).save(place / "2-masklabel.png")
    return place


def read(folder, base, cache, **settings) -> list[dict[str, torch.Tensor]]:
    """All that a run reads: every example, mirrored too, in each of its captions."""
    data = DataConfig(folder=str(folder), **settings)
    examples, _ = list_examples(open_dataset(folder).items, base, cache, data, seed=0)
    list(encode_missing(examples, base, cache, Distributed(), threading.Event(), data))
    reader, found = BatchLoader(base, cache, data), []
    for example in examples:
        ways = [(variant, bool(m)) for variant in range(len(example.crops)) for m in range(example.flips)]
        texts = [one for one in (*example.captions, *example.priors, "") if one is not None]
        rows = [Row(example, m, c, variant) for variant, m in ways for c in texts]
        for row in rows:
            batch = reader.read([row])
            found.append({"mean": batch.mean, "spread": batch.spread, "weight": batch.weight, **batch.conditions})
    rows = BatchSampler(examples, 2, 0, data).rows(0)
    return [*found, {"drawn": reader.read(rows).mean}]


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(one, other)
    )


def test_every_setting_of_the_data_is_tried():
    assert set(OTHERS) == set(DataConfig.model_fields) - {"folder"}


@pytest.mark.parametrize(
    "setting",
    tiers.default(
        OTHERS, "trigger", "resolution", "flip", "masks", "clip_skip", "caption_variants", "random_crop", "folders"
    ),
)
def test_a_setting_changed_alone_gives_what_an_empty_cache_gives(folder, base, tmp_path, setting):
    used, change = Cache(tmp_path / "used"), {setting: OTHERS[setting]} | WITH.get(setting, {})
    plain = read(folder, base, used)
    changed = read(folder, base, used, **change)
    assert same(changed, read(folder, base, Cache(tmp_path / "empty"), **change))
    assert same(read(folder, base, used), plain), "and back again"


def test_masks_are_read_where_they_are_asked_for_and_only_there(folder, base, tmp_path):
    cache = Cache(tmp_path / "cache")
    for masks in (False, True, False):
        weights = [part["weight"] for part in read(folder, base, cache, masks=masks) if "weight" in part]
        assert any(not torch.equal(weight, torch.ones_like(weight)) for weight in weights) is masks


@pytest.mark.parametrize("changed", ["the mask", "the mask, in size and time a copy", "the image", "its caption"])
def test_a_changed_file_is_another_key(folder, base, tmp_path, changed):
    cache = Cache(tmp_path / "cache")
    before, settings = read(folder, base, cache, masks=True), {"masks": True}
    mask = folder / "2-masklabel.png"
    if changed == "the image":
        Image.new("RGB", (64, 64), "red").save(folder / "2.png")
    elif changed == "its caption":
        (folder / "2.txt").write_text("something else")
    else:
        stat = mask.stat()
        Image.new("L", (64, 64), 101).save(mask)
        if "copy" in changed:
            os.utime(mask, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = read(folder, base, cache, **settings)
    assert not same(before, after) and same(after, read(folder, base, Cache(tmp_path / "empty"), **settings))


@pytest.mark.parametrize("name", tiers.default(["flux-dev", "z-image"]))
def test_captions_of_a_text_encoder_that_follows_the_precision_are_kept_apart(name, folder, tmp_path):
    place = tiny.save(name, tmp_path)
    cache = Cache(tmp_path / "cache")
    fine, coarse = (load_base(str(place), shared=False, precision=one) for one in ("fp32", "bf16"))
    read(folder, fine, cache)
    assert same(read(folder, coarse, cache), read(folder, coarse, Cache(tmp_path / "empty")))
