"""Measures of an adapter: numbers as CLIP's own classes and numpy give them, what is kept of a set, the range."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from studio.captioning.scoring import load_clip
from studio.datasets import open_dataset
from studio.errors import DatasetError, GenerationError
from studio.generation.evaluation import (
    Measured,
    SweepScores,
    TrainingImages,
    embed_training_images,
    is_memorized,
    plain_words,
    score_sweep,
    suggest,
)
from studio.generation.strength_sweep import STRENGTHS
from studio.workspace import ASSETS
from tests.captioning import tiny

SILHOUETTES = ASSETS / "datasets" / "silhouette"
WORDS = "red apple, on a blue background"
RISING = (0.2, 0.4, 0.5, 0.58, 0.6, 0.6, 0.6)
STEADY = (0.3,) * 7


@pytest.fixture(scope="module")
def items():
    return open_dataset(SILHOUETTES).items


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def known(items, clip, tmp_path_factory):
    return embed_training_images(items, clip, tmp_path_factory.mktemp("embedded"))


def images(count: int = 5) -> list[Image.Image]:
    """Things that are not in the training set, in several shapes."""
    files = sorted((ASSETS / "datasets" / "pixel").glob("*.png"))[:count]
    return [Image.open(file).convert("RGB").resize((128, 96 + 16 * place)) for place, file in enumerate(files)]


def units(rows: torch.Tensor) -> np.ndarray:
    rows = rows.detach().double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Numbers ------------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_clips_own_classes_and_numpy(items, clip, known):
    shown = images()
    folder = ASSETS / "starter"
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    processor = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor")
    vision = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    with torch.no_grad():
        told = units(text(**tokenizer([WORDS], return_tensors="pt")).pooler_output)[0]
        trained = [processor(Image.open(item.path).convert("RGB"), return_tensors="pt").pixel_values for item in items]
        trained = units(torch.cat([vision(pixels).image_embeds for pixels in trained]))
        drawn = units(vision(processor(shown, return_tensors="pt").pixel_values).image_embeds)
    found = score_sweep(shown, list("abcde"), 3, WORDS, clip, known)
    cosines = drawn @ trained.T
    assert found.seed == 3 and found.images == tuple("abcde")
    np.testing.assert_allclose(found.prompt, drawn @ told, atol=1e-4)
    np.testing.assert_allclose(found.likeness, cosines.mean(1), atol=1e-4)
    np.testing.assert_allclose(found.nearest, cosines.max(1), atol=1e-4)
    assert [path.name for path in found.which] == [items[at].path.name for at in cosines.argmax(1)]
    among = (trained @ trained.T)[~np.eye(len(items), dtype=bool)]
    assert known.alike == pytest.approx(among.mean(), abs=1e-4)


def test_any_clip_measures(tmp_path, items):
    folder = tmp_path / "clip"
    folder.mkdir()
    clip = load_clip(str(tiny.clip(folder)))
    known = embed_training_images(items[:4], clip, tmp_path / "embedded")
    shown = images(2)
    found = score_sweep(shown, ["a", "b"], 0, WORDS, clip, known)
    model = CLIPModel.from_pretrained(folder).eval()

    def seen(shown: list[Image.Image]) -> np.ndarray:
        return units(model.get_image_features(clip.processor(shown, return_tensors="pt").pixel_values).pooler_output)

    with torch.no_grad():
        drawn = seen(shown)
        # halved, as far as it looks closely
        trained = seen([Image.open(item.path).convert("RGB").reduce(2) for item in items[:4]])
        told = units(model.get_text_features(**clip.tokenizer([WORDS], return_tensors="pt")).pooler_output)[0]
    np.testing.assert_allclose(found.likeness, (drawn @ trained.T).mean(1), atol=1e-4)
    np.testing.assert_allclose(found.prompt, drawn @ told, atol=1e-4)


def test_a_training_image_is_its_own_nearest_and_by_heart(items, clip, known):
    found = score_sweep([items[3].load()], ["copy.png"], 0, WORDS, clip, known)
    assert found.which[0] == items[3].path and found.nearest[0] == pytest.approx(1, abs=1e-5)
    assert is_memorized(found.nearest[0], known.usual, before=0.5)
    others = score_sweep(images(), ["other.png"] * 5, 0, WORDS, clip, known)
    assert not any(is_memorized(near, known.usual, before=0.0) for near in others.nearest)


def test_without_a_training_set_only_the_prompt_is_measured(clip):
    found = score_sweep(images(1), ["a.png"], 0, WORDS, clip, None)
    assert len(found.prompt) == 1 and found.likeness == found.nearest == found.which == ()
    measured = Measured("a", WORDS, "", STRENGTHS, (found,))
    assert measured.curve("likeness") == [] and len(measured.curve("prompt")) == 1


def test_means_and_spreads_are_over_the_seeds():
    strips = tuple(SweepScores(seed, ("a", "b"), (0.1 * seed, 0.5)) for seed in (1, 2, 3))
    curve = Measured("a", "", "", (0.0, 1.0), strips).curve("prompt")
    np.testing.assert_allclose(curve, [(0.2, np.std([0.1, 0.2, 0.3])), (0.5, 0)], atol=1e-9)


@pytest.mark.slow
def test_a_trained_style_brings_its_images_nearer_to_its_set(tmp_path, clip, known):
    from studio.generation import Recipe
    from studio.generation.strength_sweep import draw_strength_sweep
    from studio.training import config_from, train
    from studio.workspace import Workspace

    workspace = Workspace.open(tmp_path)
    settings = {
        "data.folder": str(SILHOUETTES),
        "name": "ink",
        "training.steps": 100,
        "preview.every": 0,
        "validation.every": 0,
    }
    for _ in train(config_from(settings), workspace):
        pass
    prompt = "teddy bear, on a cyan background"
    strips = []
    for seed in (1, 2):
        recipe = Recipe(prompt=prompt, seed=seed, adapters=((workspace.runs / "ink" / "adapter.safetensors", 1.0),))
        strips.append(score_sweep(draw_strength_sweep(recipe), ["p.png"] * 7, seed, prompt, clip, known))
    likeness = [mean for mean, _ in Measured("ink", prompt, "", STRENGTHS, tuple(strips)).curve("likeness")]
    assert likeness[4] > likeness[0] + 0.1, likeness


# What is kept of a set ----------------------------------------------------------------------------------------------


class Counting:
    """A CLIP that counts what it is asked."""

    side = 256

    def __init__(self, clip):
        self.clip, self.asked = clip, 0

    def embed_images(self, shown):
        self.asked += len(shown)
        return self.clip.embed_images(shown)


@pytest.fixture
def copies(tmp_path, items):
    """Five images of the sample, to be spoilt."""
    folder = tmp_path / "set"
    folder.mkdir()
    for item in items[:5]:
        (folder / item.path.name).write_bytes(item.path.read_bytes())
    return folder


def test_a_set_is_looked_at_once_and_an_edited_image_again(copies, tmp_path, clip):
    counting = Counting(clip)
    first = embed_training_images(open_dataset(copies).items, counting, tmp_path / "cache")
    assert counting.asked == 1 + 5  # one to know the encoder by
    again = embed_training_images(open_dataset(copies).items, counting, tmp_path / "cache")
    assert counting.asked == 2 + 5 and np.array_equal(first.seen, again.seen) and first.images == again.images
    edited = first.images[2]
    Image.new("RGB", (64, 64), "red").save(edited)
    changed = embed_training_images(open_dataset(copies).items, counting, tmp_path / "cache")
    assert counting.asked == 3 + 6
    same = [np.array_equal(one, other) for one, other in zip(first.seen, changed.seen)]
    assert same == [True, True, False, True, True]


def test_another_encoder_never_reads_what_the_first_one_saw(copies, tmp_path, clip):
    folder = tmp_path / "clip"
    folder.mkdir()
    other = load_clip(str(tiny.clip(folder)))
    wide = embed_training_images(open_dataset(copies).items, clip, tmp_path / "cache").seen.shape[1]
    assert (
        embed_training_images(open_dataset(copies).items, other, tmp_path / "cache").seen.shape == (5, 8) and wide != 8
    )


def test_a_damaged_cache_is_made_again(copies, tmp_path, clip):
    first = embed_training_images(open_dataset(copies).items, clip, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.npz")
    file.write_bytes(file.read_bytes()[:200])
    assert np.array_equal(embed_training_images(open_dataset(copies).items, clip, tmp_path / "cache").seen, first.seen)


def test_broken_images_are_left_out_and_a_set_of_nothing_else_is_said(copies, tmp_path, clip):
    opened = open_dataset(copies).items
    opened[1].path.write_bytes(b"no image")
    opened[2].path.unlink()
    found = embed_training_images(opened, clip, tmp_path / "cache")
    assert found.images == tuple(opened[at].path for at in (0, 3, 4))
    for item in opened:
        item.path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="None of the training images"):
        embed_training_images(opened, clip, tmp_path / "cache")


def test_looking_at_a_set_can_be_stopped(copies, tmp_path, clip):
    import threading

    stop = threading.Event()
    stop.set()
    with pytest.raises(GenerationError, match="Stopped"):
        embed_training_images(open_dataset(copies).items, clip, tmp_path / "cache", stop)


def test_two_images_are_too_few_to_say_how_near_is_usual():
    two = TrainingImages((), np.eye(2, dtype=np.float32))
    assert two.usual is None and two.alike == pytest.approx(0)
    assert TrainingImages((), np.eye(1, dtype=np.float32)).alike is None


def test_in_a_set_of_one_image_many_times_only_that_image_is_near():
    same = TrainingImages((), np.repeat(np.eye(1, 4, dtype=np.float32), 3, axis=0))
    assert is_memorized(0.999, same.usual, before=0.5) and not is_memorized(0.8, same.usual, before=0.5)


# Words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt, triggers, words",
    [
        ("zsk, red apple, on a blue background", ["zsk"], WORDS),
        ("(red:1.3) apple, on a [blue] background", [], WORDS),
        ("a photo of ZSK cat", ["zsk"], "a photo of cat"),
        ("pink bird, ink", ["ink"], "pink bird"),
        ("zsk", ["zsk"], "zsk"),
        ("red apple BREAK on a table", [], "red apple on a table"),
        ("a (b.c), cat", ["b.c", ""], "a, cat"),
    ],
)
def test_an_image_encoder_reads_the_prompt_without_weights_and_trigger_words(prompt, triggers, words):
    assert plain_words(prompt, triggers) == words


# The range ----------------------------------------------------------------------------------------------------------


def test_the_range_begins_with_most_of_the_likeness_and_ends_before_the_prompt_is_lost():
    found = suggest(STRENGTHS, (0.3, 0.3, 0.3, 0.29, 0.28, 0.27, 0.2), RISING, (0.5,) * 7, 0.9)
    assert (found.low, found.high, found.trade) == (0.75, 1.25, False)  # 0.58 is the first above 0.2 + 0.8 x 0.4
    assert "at 1.5 the prompt" in found.words


def test_the_range_ends_before_images_are_by_heart():
    nearest = (0.5, 0.6, 0.7, 0.8, 0.85, 0.95, 0.97)
    found = suggest(STRENGTHS, STEADY, RISING, nearest, 0.9)
    assert (found.low, found.high) == (0.75, 1.0) and "at 1.25 the images come too near" in found.words
    assert suggest(STRENGTHS, STEADY, RISING, nearest, None).high == 1.5  # too few images to say what is usual


def test_images_as_near_without_the_adapter_are_no_sign_of_learning_by_heart():
    assert suggest(STRENGTHS, STEADY, RISING, (0.95,) * 7, 0.9).high == 1.5


def test_where_no_strength_has_both_it_is_a_trade():
    found = suggest(STRENGTHS, (0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2), RISING, (0.5,) * 7, 0.9)
    assert (found.low, found.high, found.trade) == (0.25, 0.75, True)


def test_a_fall_counts_from_the_best_lower_strength():
    """A trigger word that means nothing to the base spoils the image at 0; the adapter then mends it."""
    found = suggest(STRENGTHS, (0.05, 0.3, 0.3, 0.3, 0.3, 0.2, 0.1), RISING, (0.5,) * 7, 0.9)
    assert (found.low, found.high) == (0.75, 1.0)


def test_small_wobbles_are_no_fall_and_no_gain():
    wobbling = (0.06, 0.05, 0.06, 0.045, 0.05, 0.05, 0.06)  # more than 15 % of it, but nothing to see
    assert suggest(STRENGTHS, wobbling, RISING, (0.5,) * 7, 0.9).high == 1.5
    flat = suggest(STRENGTHS, STEADY, (0.5, 0.51, 0.5, 0.5, 0.505, 0.5, 0.5), (0.5,) * 7, 0.9)
    assert flat.low is flat.high is None and "more like the training set" in flat.words


def test_without_a_training_set_the_range_is_what_the_prompt_allows():
    found = suggest(STRENGTHS, (0.3, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2))
    assert (found.low, found.high) == (0.0, 0.75) and found.words.startswith("At 1 the prompt")
    nothing = suggest(STRENGTHS, (0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    assert nothing.low is nothing.high is None


def test_a_range_never_stands_beside_another_verdict_of_the_run_without_a_word():
    def words(likeness, held_out):
        sweep = SweepScores(0, ("a",) * 7, STEADY, likeness, (0.5,) * 7, ())
        return Measured("ink", "a cup", "clip", STRENGTHS, (sweep,), "set", 12, 0.9, 0.5, held_out).suggestion().words

    flat = (0.5,) * 7
    assert "fell by 47 % all the same" in words(flat, -0.47)
    assert words(RISING, -0.47).endswith("held-out loss fell by 47 %.")
    assert "did not fall either" in words(flat, 0.01)
    assert "not what the training set has" in words(RISING, 0.01)
    assert words(flat, None) == "No strength makes the images more like the training set."
