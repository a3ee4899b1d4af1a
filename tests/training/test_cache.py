"""What is encoded once: redone when it must be, and only then; never trusted when it is damaged."""

import shutil
import threading

import pytest
import torch
from PIL import Image

from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.training.cache import Cache
from studio.training.config_sections import DataConfig
from studio.training.distributed import Distributed
from studio.training.examples import BatchLoader, Row, Unreadable, encode_missing, list_examples
from studio.workspace import ASSETS
from tests import tiers


@pytest.fixture(scope="module")
def base():
    return load_base("starter", shared=False)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for file in sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))[:5]:
        shutil.copy(file, folder / file.name)
        (folder / file.name).with_suffix(".txt").write_text(file.stem.replace("-", " "))
    return folder


class Counting:
    """A base model that counts what it is asked to encode."""

    def __init__(self, base):
        self._base, self.images, self.texts = base, 0, 0

    def __getattr__(self, name):
        return getattr(self._base, name)

    def encode_image(self, images):
        self.images += len(images)
        return self._base.encode_image(images)

    def encode_prompt(self, prompts, *how):
        self.texts += len(prompts)
        return self._base.encode_prompt(prompts, *how)


def _then(after, function):
    def both(*given):
        try:
            return function(*given)
        finally:
            after()

    return both


def encode(folder, base, cache, stop=None, **settings):
    """(examples, images encoded, texts encoded, what was yielded)."""
    counting, data = Counting(base), DataConfig(folder=str(folder), **settings)
    examples, _ = list_examples(open_dataset(folder).items, counting, cache, data, 0)
    said = list(encode_missing(examples, counting, cache, Distributed(), stop or threading.Event(), data))
    return examples, counting.images, counting.texts, said


def test_everything_is_encoded_once_and_after_an_edit_only_that_one(images, base, tmp_path):
    cache = Cache(tmp_path / "cache")
    assert encode(images, base, cache)[1:3] == (5, 6)  # five captions and the empty one
    assert encode(images, base, Cache(tmp_path / "cache"))[1:] == (0, 0, [])
    changed = sorted(images.glob("*.png"))[2]
    Image.open(changed).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    assert encode(images, base, cache)[1:3] == (1, 0)
    changed.with_suffix(".txt").write_text("something else")
    assert encode(images, base, cache)[1:3] == (0, 1)


def test_a_moved_or_renamed_image_is_not_encoded_again(images, base, tmp_path):
    cache = Cache(tmp_path / "cache")
    encode(images, base, cache)
    images.rename(tmp_path / "moved")
    assert encode(tmp_path / "moved", base, cache)[1:3] == (0, 0)


def test_another_setting_is_another_cache_and_the_old_one_stays(images, base, tmp_path):
    cache = Cache(tmp_path / "cache")
    encode(images, base, cache)
    assert encode(images, base, cache, resolution=96)[1] == 5
    assert encode(images, base, cache, flip=True)[1] == 10  # as they are, and mirrored
    assert encode(images, base, cache)[1:3] == (0, 0)


@pytest.mark.parametrize(
    "damage", tiers.default(["torn", "a bit flipped", "empty", "other tensors"], "a bit flipped", "other tensors")
)
def test_a_damaged_file_is_made_again_and_holds_the_same(images, base, tmp_path, damage):
    from safetensors.torch import save

    cache = Cache(tmp_path / "cache")
    examples, *_ = encode(images, base, cache)
    key = examples[1].latents[0]
    file, whole = cache._file(key), cache.read(key)
    data = bytearray(file.read_bytes())
    if damage == "torn":
        data = data[:-7]
    elif damage == "a bit flipped":
        data[-100] ^= 1
    elif damage == "empty":
        data = bytearray()
    else:
        data = bytearray(save({"mean": torch.zeros(4, 16, 16)}))
    file.write_bytes(bytes(data))
    assert cache.read(key) is None
    assert encode(images, base, cache)[1:3] == (1, 0)
    assert torch.equal(cache.read(key)["mean"], whole["mean"])


def test_a_stopped_build_goes_on_where_it_was(images, base, tmp_path, monkeypatch):
    from studio.training import examples as module

    monkeypatch.setattr(module, "BATCH", 2)
    cache, stop = Cache(tmp_path / "cache"), threading.Event()
    counting, data = Counting(base), DataConfig(folder=str(images))
    listed, _ = list_examples(open_dataset(images).items, counting, cache, data, 0)
    monkeypatch.setattr(base, "encode_image", _then(stop.set, base.encode_image))
    list(encode_missing(listed, counting, cache, Distributed(), stop, data))
    assert 0 < counting.images < 5
    assert encode(images, base, cache)[1:3] == (5 - counting.images, 0)


def test_an_image_that_cannot_be_decoded_is_named_and_the_others_are_there(images, base, tmp_path):
    broken = sorted(images.glob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:400])
    cache = Cache(tmp_path / "cache")
    examples, count, _, said = encode(images, base, cache)
    assert count == 4 and [x.path.name for x in said if isinstance(x, Unreadable)] == [broken.name]


def test_masks_come_from_the_label_file_or_the_alpha_channel(images, base, tmp_path):
    first, second = sorted(images.glob("*.png"))[:2]
    half = Image.new("L", (128, 128), 0)
    half.paste(255, (0, 0, 64, 128))
    half.save(first.with_name(f"{first.stem}-masklabel.png"))
    image = Image.open(second).convert("RGB")
    image.putalpha(half)
    image.save(second)
    cache = Cache(tmp_path / "cache")
    examples, *_ = encode(images, base, cache, masks=True)
    reader = BatchLoader(base, cache, DataConfig(folder=str(images), masks=True, outside=0.25))
    for example in examples[:2]:
        weight = reader.read([Row(example, False, example.captions[0])]).weight
        assert weight.shape == (1, 1, 16, 16)
        assert torch.allclose(weight[..., :8], torch.ones(())) and torch.allclose(weight[..., 8:], torch.tensor(0.25))
    plain = reader.read([Row(examples[2], False, "")]).weight
    assert torch.equal(plain, torch.ones_like(plain))


def test_a_vae_with_a_distribution_gives_its_mean_and_its_spread(base):
    """The tiny VAE has none."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    kl = AutoencoderKL(
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    own, base.pipeline.vae = base.pipeline.vae, kl.eval()
    try:
        mean, spread = base.encode_image([Image.new("RGB", (64, 64), "red")])
    finally:
        base.pipeline.vae = own
    assert mean.shape == spread.shape == (1, 4, 8, 8) and (spread > 0).all()
