"""Recipes behind the pixels of an image, behind their chunk, and texts of programs that are not known."""

import gzip
import json

import pytest
from PIL import Image

from studio.errors import GenerationError
from studio.generation import read_recipe
from studio.generation.hidden_text import hidden_text
from studio.generation.image_texts import MAX_TEXT
from tests.generation.pngs import png


def hide(path, text, alpha=True, packed=True, size=(64, 200)):
    """As the extension "stealth pnginfo" of A1111 and NovelAI do it: bit by bit, down each column."""
    body = gzip.compress(text.encode()) if packed else text.encode()
    head = f"stealth_{'png' if alpha else 'rgb'}{'comp' if packed else 'info'}".encode()
    bits = [int(bit) for byte in head + (8 * len(body)).to_bytes(4, "big") + body for bit in f"{byte:08b}"]
    image = Image.effect_noise(size, 90).convert("RGBA" if alpha else "RGB")
    pixels, number = image.load(), 0
    for x in range(size[0]):
        for y in range(size[1]):
            values = list(pixels[x, y])
            for channel in (3,) if alpha else (0, 1, 2):
                if number < len(bits):
                    values[channel] = values[channel] & ~1 | bits[number]
                    number += 1
            pixels[x, y] = tuple(values)
    assert number == len(bits)
    image.save(path, **({"lossless": True, "exact": True} if path.suffix == ".webp" else {}))
    return path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_text_behind_the_pixels_is_read(tmp_path, suffix, alpha, packed):
    text = "a bøat\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, Seed: 5"
    found = read_recipe(hide(tmp_path / f"a{suffix}", text, alpha, packed))
    assert found.values == {"prompt": "a bøat", "negative_prompt": "fog", "steps": 7, "seed": 5, "scheduler": "Euler a"}


def test_novelais_text_behind_the_pixels(tmp_path):
    comment = json.dumps({"prompt": "a cat", "uc": "fog", "steps": 28, "seed": 9, "sampler": "k_euler"})
    text = json.dumps({"Software": "NovelAI", "Source": "NAI Diffusion V4", "Comment": comment})
    found = read_recipe(hide(tmp_path / "a.png", text))
    assert found.values["prompt"] == "a cat" and found.values["base"] == "NAI Diffusion V4"


def test_a_damaged_text_behind_the_pixels_is_said(tmp_path):
    text = "a cat\nSteps: 7 " * 80
    with Image.open(hide(tmp_path / "a.png", text, packed=False)) as image:
        image.crop((0, 0, 2, 200)).save(tmp_path / "b.png")
    with pytest.raises(GenerationError, match="behind the pixels of b.png is damaged"):
        read_recipe(tmp_path / "b.png")
    for name, mode in {"c": "RGBA", "d": "L", "e": "P", "f": "RGB"}.items():
        Image.new(mode, (2, 9)).save(tmp_path / f"{name}.png")
        with pytest.raises(GenerationError, match="no recipe inside: it was not made here"):
            read_recipe(tmp_path / f"{name}.png")


def test_a_gzip_bomb_behind_the_pixels_unpacks_to_little(tmp_path):
    image = hide(tmp_path / "a.png", "x" * 60_000_000, size=(800, 800))
    assert len(hidden_text(image)) <= MAX_TEXT


def test_texts_of_an_unknown_program_are_named(tmp_path):
    with pytest.raises(GenerationError, match=r"other texts in it: generation_data"):
        read_recipe(png(tmp_path / "a.png", generation_data=json.dumps({"models": ["x"] * 20})))


def test_a_recipe_that_follows_the_pixels_is_read(tmp_path):
    data = png(tmp_path / "a.png", parameters="a cat\nSteps: 7").read_bytes()
    start = data.index(b"iTXt") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    (tmp_path / "b.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert read_recipe(tmp_path / "b.png").values["steps"] == 7
