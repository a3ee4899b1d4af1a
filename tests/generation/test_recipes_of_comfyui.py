"""Recipes of ComfyUI: the graph that it ran, and the canvas alone."""

import json

from PIL import Image

from studio.generation import read_recipe
from tests.generation.pngs import node, png, said

GRAPH = {
    "4": node("CheckpointLoaderSimple", ckpt_name="xl/dream.safetensors"),
    "10": node(
        "LoraLoader", model=["4", 0], clip=["4", 1], lora_name="ink.safetensors", strength_model=0.8, strength_clip=0.5
    ),
    "11": node("LoraLoaderModelOnly", model=["10", 0], lora_name="sub/two.safetensors", strength_model=1),
    "12": node("CLIPSetLastLayer", clip=["10", 1], stop_at_clip_layer=-2),
    "20": node("PrimitiveStringMultiline", value="a cat"),
    "6": node("CLIPTextEncode", text=["20", 0], clip=["12", 0]),
    "7": node("CLIPTextEncode", text="fog", clip=["12", 0]),
    "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
    "3": node(
        "KSampler",
        model=["11", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
        seed=5,
        steps=20,
        cfg=7,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=1,
    ),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="x"),
}
EXPECTED = {
    "prompt": "a cat",
    "negative_prompt": "fog",
    "seed": 5,
    "steps": 20,
    "guidance": 7.0,
    "width": 512,
    "height": 768,
    "clip_skip": 2,
    "base": "dream",
    "scheduler": "DPM++ 2M Karras",
}
ADAPTERS = [
    {"file": "ink", "strength": 0.8, "text_strength": 0.5},
    {"file": "two", "strength": 1.0, "text_strength": None},
]


def test_comfyui_graph(tmp_path):
    found = read_recipe(png(tmp_path / "a.png", prompt=GRAPH, workflow="{}"))
    assert found.values == EXPECTED and found.adapters == ADAPTERS
    said(found)
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(GRAPH)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif)
    assert read_recipe(tmp_path / "a.webp").values == EXPECTED


def test_comfyui_workflow_alone(tmp_path):
    order = {
        "CheckpointLoaderSimple": ["ckpt_name"],
        "LoraLoader": ["lora_name", "strength_model", "strength_clip"],
        "LoraLoaderModelOnly": ["lora_name", "strength_model"],
        "CLIPSetLastLayer": ["stop_at_clip_layer"],
        "CLIPTextEncode": ["text"],
        "EmptyLatentImage": ["width", "height", "batch_size"],
        "KSampler": ["seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"],
        "PrimitiveStringMultiline": ["value"],
    }
    links, nodes = [], []
    for name, one in GRAPH.items():
        inputs = []
        for key, value in one["inputs"].items():
            if isinstance(value, list):
                links.append([len(links) + 1, int(value[0]), value[1], int(name), len(inputs), "X"])
                inputs.append({"name": key, "type": "X", "link": len(links)})
        widgets = [one["inputs"].get(key, "fixed") if key else "fixed" for key in order.get(one["class_type"], [])]
        widgets = [value for value in widgets if not isinstance(value, list)]
        nodes.append(
            {"id": int(name), "type": one["class_type"], "inputs": inputs, "widgets_values": widgets, "mode": 0}
        )
    found = read_recipe(png(tmp_path / "a.png", workflow={"nodes": nodes, "links": links, "version": 0.4}))
    assert found.values == EXPECTED and found.adapters == ADAPTERS
    said(found)


def test_comfyui_flux_with_its_settings_apart_and_a_second_pass(tmp_path):
    graph = {
        "1": node("UNETLoader", unet_name="flux1-dev.safetensors"),
        "2": node(
            "Power Lora Loader (rgthree)",
            model=["1", 0],
            lora_1={"on": True, "lora": "ink.safetensors", "strength": 0.7},
            lora_2={"on": False, "lora": "off.safetensors", "strength": 1},
        ),
        "3": node("CLIPTextEncode", text="a cat", clip=["30", 0]),
        "4": node("FluxGuidance", conditioning=["3", 0], guidance=3.5),
        "5": node("BasicGuider", model=["2", 0], conditioning=["4", 0]),
        "6": node("RandomNoise", noise_seed=11),
        "7": node("KSamplerSelect", sampler_name="euler"),
        "8": node("BasicScheduler", model=["2", 0], scheduler="simple", steps=25, denoise=1),
        "9": node("EmptySD3LatentImage", width=["40", 0], height=1024, batch_size=4),
        "40": node("PrimitiveInt", value=768),
        "10": node(
            "SamplerCustomAdvanced",
            noise=["6", 0],
            guider=["5", 0],
            sampler=["7", 0],
            sigmas=["8", 0],
            latent_image=["9", 0],
        ),
        "11": node(
            "KSampler",
            model=["2", 0],
            positive=["4", 0],
            negative=["4", 0],
            latent_image=["10", 0],
            seed=1,
            steps=9,
            cfg=1,
            sampler_name="euler",
            scheduler="simple",
            denoise=0.4,
        ),
    }
    found = read_recipe(png(tmp_path / "a.png", prompt=graph))
    assert found.values == {
        "prompt": "a cat",
        "negative_prompt": "",
        "seed": 11,
        "steps": 25,
        "guidance": 3.5,
        "width": 768,
        "height": 1024,
        "base": "flux1-dev",
        "scheduler": "Euler",
    }
    assert found.adapters == [{"file": "ink", "strength": 0.7, "text_strength": None}]
    said(found, "2 samplers", "a batch of 4")


def test_comfyui_nodes_that_are_not_known_are_named(tmp_path):
    graph = GRAPH | {
        "6": node("ControlNetApply", conditioning=["21", 0], strength=1),
        "21": node("CLIPTextEncode", text="a cat", clip=["12", 0]),
        "11": node("FreeU_V2", model=["10", 0], b1=1.3),
        "5": node("VAEEncode", pixels=["22", 0]),
        "22": node("LoadImage", image="x"),
    }
    found = read_recipe(png(tmp_path / "a.png", prompt=graph))
    assert found.values["prompt"] == "a cat" and [one["file"] for one in found.adapters] == ["ink"]
    said(found, "another image", "the node ControlNetApply, the node FreeU_V2")
