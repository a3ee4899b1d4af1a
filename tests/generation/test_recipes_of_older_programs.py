"""InvokeAI 2's `sd-metadata` alone, and Draw Things: in the form that InvokeAI's RFC 266 and public readers give."""

import json

from PIL import Image

from studio.generation import read_recipe
from tests.generation.pngs import png, said


def rfc266(**more):
    """As InvokeAI 2.3's `parameters_to_generated_image_metadata` builds it."""
    image = {
        "prompt": [{"prompt": "a cat [fog, blur]", "weight": 1.0}],
        "steps": 50,
        "cfg_scale": 7.5,
        "threshold": 0,
        "perlin": 0,
        "height": 640,
        "width": 512,
        "seed": 42,
        "seamless": False,
        "hires_fix": False,
        "type": "txt2img",
        "postprocessing": None,
        "sampler": "k_euler_a",
        "variations": [],
    }
    return {
        "model": "stable diffusion",
        "model_weights": "dreamlike",
        "model_hash": "ab",
        "app_id": "invoke-ai/InvokeAI",
        "app_version": "2.3.0",
        "image": image | more,
    }


def test_invokeai_2_without_its_command(tmp_path):
    found = read_recipe(png(tmp_path / "a.png", **{"sd-metadata": rfc266()}))
    assert found.values == {
        "prompt": "a cat",
        "negative_prompt": "fog, blur",
        "steps": 50,
        "seed": 42,
        "width": 512,
        "height": 640,
        "guidance": 7.5,
        "scheduler": "Euler a",
        "base": "dreamlike",
    }
    said(found)
    parts = [{"prompt": "a cat", "weight": 0.7}, {"prompt": "a dog", "weight": 0.3}]
    changed = rfc266(
        prompt=parts, type="img2img", strength=0.6, orig_hash="x", perlin=0.2, variations=[{"seed": 1, "weight": 0.1}]
    )
    found = read_recipe(png(tmp_path / "b.png", **{"sd-metadata": changed}))
    assert found.values["prompt"] == "a cat, a dog" and found.values["denoising"] == 0.6
    said(found, "weights of the parts", "image to image", "perlin 0.2")
    grid = rfc266()
    grid["images"] = [grid.pop("image"), {}]
    said(read_recipe(png(tmp_path / "c.png", **{"sd-metadata": grid})), "grid of 2")


DRAW_THINGS = {
    "c": "a <b>cat</b>",
    "uc": "fog",
    "seed": 3,
    "steps": 8,
    "scale": 4.5,
    "sampler": "DPM++ 2M Karras",
    "size": "512x768",
    "model": "sd_xl_base_1.0.ckpt",
    "strength": 1,
    "lora": [{"model": "ink.ckpt", "weight": 0.6}],
    "v2": {"width": 512},
    "hires_fix": True,
}


def test_draw_things(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + json.dumps(DRAW_THINGS).encode()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    escaped = json.dumps(DRAW_THINGS).replace("<", "&lt;").replace('"', "&quot;")
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><exif:UserComment><rdf:Alt><rdf:li '
        f'xml:lang="x-default">{escaped}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>'
    )
    png(tmp_path / "a.png", **{"XML:com.adobe.xmp": xmp})
    for name in ("a.jpg", "a.png"):
        found = read_recipe(tmp_path / name)
        assert found.values == {
            "prompt": "a <b>cat</b>",
            "negative_prompt": "fog",
            "seed": 3,
            "steps": 8,
            "guidance": 4.5,
            "width": 512,
            "height": 768,
            "base": "sd_xl_base_1.0",
            "scheduler": "DPM++ 2M Karras",
        }
        assert found.adapters == [{"file": "ink", "strength": 0.6, "text_strength": None}]
        said(found, "hires_fix True")
