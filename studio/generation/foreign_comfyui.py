"""Recipes of ComfyUI: the graph that it ran ("prompt"), or the one on its canvas ("workflow").

A graph is walked backwards from its sampler: along `model` to adapters and checkpoint, along `positive` and
`negative` to the texts, along `latent_image` to the size. Of several samplers the first pass is taken. Nodes that
are not known are named.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from studio.errors import GenerationError
from studio.generation.found_recipe import FROM_IMAGE, ForeignRecipe, file_stem

MAX_NODES = 2000
_WIDGETS = {  # the order of a canvas node's values, for workflows alone
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "FluxGuidance": ("guidance",),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "LoadImage": ("image",),
    "PrimitiveNode": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
}
_VALUES = ("value", "text", "string", "prompt", "int", "float", "number", "seed", "noise_seed", "Number", "Value")
_TEXTS = ("text", "text_g", "clip_l", "t5xxl", "prompt", "text_l", "positive", "negative")
_SILENT = {
    "CheckpointLoaderSimple",
    "UNETLoader",
    "UnetLoaderGGUF",
    "LoraLoader",
    "LoraLoaderModelOnly",
    "VAEEncode",
    "CLIPTextEncode",
    "CLIPSetLastLayer",
    "EmptyLatentImage",
    "EmptySD3LatentImage",
    "FluxGuidance",
    "Reroute",
    "DualCLIPLoader",
    "CLIPLoader",
    "VAELoader",
    "LoadImage",
    "ModelSamplingFlux",
    "ConditioningZeroOut",
    "CLIPTextEncodeFlux",
    "CLIPTextEncodeSDXL",
    "Power Lora Loader (rgthree)",
    "TripleCLIPLoader",
    "PrimitiveNode",
    "BasicGuider",
    "CFGGuider",
}

Graph = dict[str, dict[str, Any]]  # {id: {"class_type": …, "inputs": {name: value or [id, output]}}}


def read_comfyui(prompt: Any, workflow: Any = None) -> ForeignRecipe:
    """prompt, workflow: the parsed JSON. Raises GenerationError where there is no sampler in it."""
    graph = _graph(prompt) or _of_workflow(workflow)
    if len(graph) > MAX_NODES:
        raise GenerationError(f"The graph has {len(graph)} nodes: {MAX_NODES} are the most.")
    samplers = [name for name, node in graph.items() if _is_sampler(node)]
    if not samplers:
        raise GenerationError("ComfyUI's graph holds no sampler that is known here.")
    first = next(
        (one for one in samplers if not set(_upstream(graph, one, "latent_image")) & set(samplers)), samplers[0]
    )
    found = ForeignRecipe("ComfyUI")
    if len(samplers) > 1:
        found.problems.append(f"Its graph has {len(samplers)} samplers: only the first pass was taken.")
    _take_sampler(graph, first, found)
    return found


def _graph(prompt: Any) -> Graph:
    if not isinstance(prompt, Mapping):
        return {}
    return {
        str(name): {"class_type": str(node.get("class_type")), "inputs": dict(node["inputs"])}
        for name, node in prompt.items()
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
    }


def _of_workflow(workflow: Any) -> Graph:
    """A canvas as a graph: links by their numbers, values by the order of `_WIDGETS`. Muted nodes are left out."""
    if not isinstance(workflow, Mapping):
        return {}
    links = {
        one[0]: [str(one[1]), one[2]] for one in workflow.get("links") or () if isinstance(one, list) and len(one) > 4
    }
    graph: Graph = {}
    for node in workflow.get("nodes") or ():
        if node.get("mode") in (2, 4):
            continue
        kind = str(node.get("type"))
        values, names = node.get("widgets_values") or [], _WIDGETS.get(kind, ())
        inputs = dict(values) if isinstance(values, Mapping) else {n: v for n, v in zip(names, values) if n}
        for one in node.get("inputs") or ():
            if one.get("link") in links:
                inputs[str(one.get("name"))] = links[one["link"]]
        graph[str(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return graph


def _is_sampler(node: Mapping[str, Any]) -> bool:
    inputs = node["inputs"]
    return {"model", "positive", "latent_image"} <= set(inputs) or {"guider", "sigmas", "latent_image"} <= set(inputs)


def _upstream(graph: Graph, name: str, *inputs: str) -> Iterator[str]:
    """Ids of the nodes before `name`, nearest first, each once; of the first step only along `inputs`."""
    waiting = [link for key in inputs for link in _links(graph.get(name), key)]
    for one, node in _walk(graph, waiting):
        yield one
        waiting += [link for key in node["inputs"] for link in _links(node, key)]


def _links(node: Mapping[str, Any] | None, key: str) -> list[str]:
    value = node["inputs"].get(key) if node else None
    return [str(value[0])] if isinstance(value, list) and len(value) == 2 else []


def _value(graph: Graph, node: Mapping[str, Any], key: str, depth: int = 8) -> Any:
    """A node's plain value, also where another node holds it; None where there is none."""
    value = node["inputs"].get(key)
    if not isinstance(value, list):
        return value
    other = graph.get(str(value[0])) if len(value) == 2 and depth else None
    if other is None:
        return None
    return next((held for one in _VALUES if (held := _value(graph, other, one, depth - 1)) is not None), None)


def _take_sampler(graph: Graph, name: str, found: ForeignRecipe) -> None:
    node = graph[name]
    parts = [node]  # the sampler, and the nodes that hold its settings where they are apart
    for key in ("noise", "guider", "sampler", "sigmas"):
        parts += [graph[link] for link in _links(node, key) if link in graph]
    for ours, names in {
        "seed": ("seed", "noise_seed"),
        "steps": ("steps",),
        "guidance": ("cfg",),
        "sampler": ("sampler_name",),
        "schedule": ("scheduler",),
        "denoise": ("denoise",),
    }.items():
        value = next((held for one in parts for n in names if (held := _value(graph, one, n)) is not None), None)
        if ours == "sampler":
            found.sampler = str(value or "")
        elif ours == "schedule":
            found.schedule = str(value or "")
        elif ours == "denoise":
            if isinstance(value, int | float) and value < 1:
                found.values["denoising"] = value
        elif value is not None:
            found.values[ours] = value
    guider = next((one for one in parts if {"conditioning"} <= set(one["inputs"]) or "positive" in one["inputs"]), node)
    positive = "positive" if "positive" in guider["inputs"] else "conditioning"
    unknown: set[str] = set()
    found.values["prompt"] = _text(graph, guider, positive, found, unknown)
    found.values["negative_prompt"] = _text(graph, guider, "negative", found, unknown)
    _take_model(graph, guider if "model" in guider["inputs"] else node, found, unknown)
    _take_size(graph, node, found)
    for kind in sorted(unknown):
        found.ignored[f"the node {kind}"] = ""


def _walk(graph: Graph, waiting: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each node of `waiting` once, by name; what is added to the list meanwhile comes too."""
    seen: set[str] = set()
    while waiting:
        name = waiting.pop(0)
        if name not in seen and name in graph:
            seen.add(name)
            yield name, graph[name]


def _text(graph: Graph, node: Mapping[str, Any], key: str, found: ForeignRecipe, unknown: set[str]) -> str:
    """The texts that a conditioning is made of; guidance and clip skip on the way are taken along."""
    texts: list[str] = []
    waiting = _links(node, key)
    for name, one in _walk(graph, waiting):
        if one["class_type"] == "ConditioningZeroOut":
            continue
        if (guidance := _value(graph, one, "guidance")) is not None and key != "negative":
            found.values["guidance"] = guidance
        own = [str(text).strip() for n in _TEXTS if isinstance(text := _value(graph, one, n), str) and text.strip()]
        if own:
            texts += [text for text in dict.fromkeys(own) if text not in texts]
        else:
            waiting += [link for n in one["inputs"] if n != "clip" for link in _links(one, n)]
            if not any(link for n in one["inputs"] for link in _links(one, n)) and not own:
                continue
        if one["class_type"] not in _SILENT:
            unknown.add(one["class_type"])
        for clip in _upstream(graph, name, "clip"):
            layer = graph[clip]["inputs"].get("stop_at_clip_layer")
            if isinstance(layer, int) and -12 <= layer < 0:
                found.values["clip_skip"] = -layer
    if len(texts) > 1:
        found.problems.append(f"Its {'negative ' * (key == 'negative')}prompt is made of {len(texts)} texts: joined.")
    return ", ".join(texts)


def _take_model(graph: Graph, node: Mapping[str, Any], found: ForeignRecipe, unknown: set[str]) -> None:
    """Adapters and checkpoint along `model`, the adapter nearest to the checkpoint first."""
    waiting = _links(node, "model")
    for _, one in _walk(graph, waiting):
        inputs = one["inputs"]
        if "lora_name" in inputs:
            strength = _strength(_value(graph, one, "strength_model"))
            text = _strength(_value(graph, one, "strength_clip")) if "strength_clip" in inputs else None
            found.adapters.insert(0, (file_stem(inputs["lora_name"]), strength, None if text == strength else text))
        for held in inputs.values():  # rgthree's Power Lora Loader
            if isinstance(held, Mapping) and held.get("on") and held.get("lora"):
                found.adapters.insert(0, (file_stem(held["lora"]), _strength(held.get("strength")), None))
        base = inputs.get("ckpt_name") or inputs.get("unet_name")
        if isinstance(base, str):
            found.values["base"] = file_stem(base)
        if one["class_type"] not in _SILENT:
            unknown.add(one["class_type"])
        waiting += _links(one, "model")


def _strength(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 1.0


def _take_size(graph: Graph, node: Mapping[str, Any], found: ForeignRecipe) -> None:
    name = next(name for name, one in graph.items() if one is node)
    for one in map(graph.__getitem__, _upstream(graph, name, "latent_image")):
        if "pixels" in one["inputs"] or one["class_type"] == "LoadImage":
            found.problems.append(FROM_IMAGE)
            return
        width, height = _value(graph, one, "width"), _value(graph, one, "height")
        if width is not None and height is not None:
            found.values |= {"width": width, "height": height}
            if (count := _value(graph, one, "batch_size")) not in (None, 1):
                found.problems.append(f"It is one of a batch of {count}, which differ here.")
            return
