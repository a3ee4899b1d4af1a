"""A recipe travels inside its image, also from and to other programs, and no path of this machine with it."""

import json
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.errors import GenerationError
from studio.generation import Recipe, read_recipe, save_image
from studio.generation.foreign_text import read_parameters
from studio.generation.image_metadata import FOREIGN, KEY, parameters_text
from tests.datasets.made import chunk

FORGE = (
    "a (cat:1.2), <lora:ink:0.8>, best\nquality\nNegative prompt: blurry, (bad:1.4)\n"
    "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 123, Size: 512x768, "
    'Model hash: abc, Model: "odd, name", Clip skip: 2, Lora hashes: "ink: 1234", Version: f2.0.1v1.10.1'
)


def with_text(path, key: str, text: str):
    info = PngInfo()
    info.add_itxt(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_recipe_travels_inside_the_image_without_paths(tmp_path):
    file = tmp_path / "secret folder" / "loud.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"adapter")
    recipe = Recipe(
        prompt='a "cat", ümlaut',
        seed=5,
        steps=1,
        guidance=3.5,
        scheduler="DPM++ 2M Karras",
        clip_skip=2,
        base="/models/my base.safetensors",
        adapters=[{"file": file, "strength": 0.7, "start": 0.2, "blocks": {"mid": 0}}],
    )
    path = save_image(Image.new("RGB", (128, 128)), recipe, tmp_path)
    found = read_recipe(path)
    kept = recipe.model_dump(exclude={"adapters"})
    assert found.values == kept | {"base": "my base"} and not found.problems
    (use,) = found.adapters
    assert (use["file"], use["strength"], use["start"], use["blocks"]) == ("loud", 0.7, 0.2, {"mid": 0})
    assert len(use["hash"]) == 64
    assert b"secret folder" not in path.read_bytes() and b"/models" not in path.read_bytes()
    with Image.open(path) as image:
        text = image.info[FOREIGN]
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in text and "Clip skip: 2" in text and "<lora:loud:0.7>" in text


def test_what_forge_wrote_is_read(tmp_path):
    found = read_recipe(with_text(tmp_path / "forge.png", FOREIGN, FORGE))
    assert found.values["prompt"].startswith("a (cat:1.2),") and found.values["prompt"].endswith("best\nquality")
    assert found.values["negative_prompt"] == "blurry, (bad:1.4)"
    facts = {
        key: found.values[key] for key in ("steps", "guidance", "seed", "width", "height", "clip_skip", "scheduler")
    }
    assert facts == {
        "steps": 25,
        "guidance": 6.5,
        "seed": 123,
        "width": 512,
        "height": 768,
        "clip_skip": 2,
        "scheduler": "DPM++ 2M Karras",
    }
    assert found.adapters == [{"file": "ink", "strength": 0.8, "text_strength": None}] and not found.problems


def test_our_own_text_for_other_programs_reads_back():
    recipe = Recipe(prompt="x, y: z", negative_prompt="q", seed=3, scheduler="Euler a", guidance=7.0)
    found = read_parameters(parameters_text(recipe))
    assert {"prompt", "negative_prompt", "seed", "scheduler", "guidance"} <= found.values.keys()
    assert all(getattr(recipe, key) == value for key, value in found.values.items()), found


def test_what_can_not_be_taken_over_is_said():
    found = read_parameters("cat\nSteps: 9000, Sampler: Restart, CFG scale: 7, Seed: -1, Size: 100x100")
    assert found.values == {"prompt": "cat", "negative_prompt": "", "guidance": 7.0}
    assert len(found.problems) == 5 and any("Restart" in problem for problem in found.problems)


def test_an_image_without_a_recipe_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("not an image")
    for name, part in (("plain.png", "no recipe"), ("text.png", "can't be read")):
        with pytest.raises(GenerationError, match=part):
            read_recipe(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"prompt": 3}',
        '{"prompt": "x", "adapters": [1]}',
        '{"prompt": "x", "steps": 1e9}',
        json.dumps({"prompt": "x", "adapters": [{"file": "../../etc/passwd", "strength": "NaN"}]}),
    ],
)
def test_a_damaged_recipe_is_one_line(tmp_path, text):
    with pytest.raises(GenerationError) as caught:
        read_recipe(with_text(tmp_path / "x.png", KEY, text))
    assert "damaged" in str(caught.value) and "\n" not in str(caught.value)


def test_text_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("RGB", (8, 8)).save(path)
    data = path.read_bytes()
    body = b"parameters\x00\x00" + zlib.compress(b"a" * 200_000_000, 9)
    path.write_bytes(data[:33] + chunk(b"zTXt", body) + data[33:])
    with pytest.raises(GenerationError, match="can't be read"):
        read_recipe(path)
