"""What is written is what is read: properties that hypothesis tries to break. Run by lied.py and by test_lied.py."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter
from studio.basemodels.choice import BaseChoice
from studio.datasets import read_caption, set_caption
from studio.datasets.captions import one_line
from studio.errors import AdapterError, StudioError
from studio.generation import Recipe, image_metadata, prompts, save_image
from studio.generation.foreign_text import read_parameters
from studio.generation.grids import parse_values, values_text
from studio.generation.schedulers import NAMES
from studio.training import config_from, config_from_toml, config_to_toml
from studio.training.events import KINDS, from_dict, to_dict

TEXT = st.text(max_size=80)
PLAIN = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)  # letters, marks, signs


def tried(trip: Callable, examples: int) -> None:
    """Raises what breaks it. The same examples each time."""
    settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )(trip)()


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@given(st.text(max_size=300))
def a_caption(text):
    with scratch() as place:
        set_caption(place / "a.png", text)
        assert (read_caption(place / "a.png") or "") == one_line(text)


CONFIG = st.fixed_dictionaries(
    {"data.folder": TEXT.filter(bool)},
    optional={
        "name": TEXT, "data.trigger": TEXT, "data.flip": st.booleans(), "data.caption_dropout": st.floats(0, 1),
        "adapter.rank": st.integers(1, 256), "adapter.alpha": st.floats(1e-6, 4000), "base": TEXT.filter(bool),
        "adapter.kind": st.sampled_from(["lora", "dora", "tucker", "loha", "lokr"]),
        "training.steps": st.integers(11, 10**6), "training.learning_rate": st.floats(1e-12, 10),
        "training.seed": st.integers(0, 2**31 - 1), "training.schedule": st.sampled_from(["constant", "linear"]),
        "preview.prompts": st.lists(st.text(max_size=200), max_size=12), "preview.seed": st.integers(0, 2**63 - 1),
    },
)  # fmt: skip


@given(CONFIG)
def settings_of_a_run(values):
    config = config_from(values)
    with scratch() as place:
        (place / "run.toml").write_bytes(config_to_toml(config).encode())
        assert config_from_toml(place / "run.toml") == config


FLOATS = st.lists(st.floats(allow_nan=False), max_size=4)
NUMBERS = {
    "int": st.integers(-(2**53), 2**53),
    "float": st.floats(allow_nan=False),
    "str": st.text(max_size=50),
    "list[float]": FLOATS,
    "list[str]": st.lists(st.text(max_size=9), max_size=3),
    "dict[str, list[float]]": st.dictionaries(st.text(max_size=9), FLOATS, max_size=3),
}
KIND = st.sampled_from(list(KINDS.values()))
EVENT = KIND.flatmap(lambda kind: st.builds(kind, **{one.name: NUMBERS[_name_of(one.type)] for one in fields(kind)}))


def _name_of(kind) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", "") if "[" not in str(kind) else str(kind)


@given(EVENT)
def an_event(event):
    assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


STRENGTH = st.floats(-10, 10)
USE = st.fixed_dictionaries(
    {"file": PLAIN.map(lambda name: Path("x" + name.replace("/", "").replace(".", "")))},
    optional={
        "strength": STRENGTH, "text_strength": STRENGTH, "start": st.floats(0, 1), "end": st.floats(0, 1),
        "blocks": st.dictionaries(st.sampled_from(["unet.up_blocks", "unet.mid_block"]), STRENGTH),
    },
)  # fmt: skip
RECIPE = st.fixed_dictionaries(
    {"prompt": st.text(max_size=200)},
    optional={
        "negative_prompt": TEXT, "seed": st.integers(0, 2**63 - 1), "steps": st.integers(1, 200),
        "guidance": st.floats(0, 30), "width": st.integers(8, 256).map(lambda n: 8 * n),
        "scheduler": st.sampled_from(NAMES), "clip_skip": st.integers(1, 12), "count": st.integers(1, 16),
        "denoising": st.floats(0, 1), "adapters": st.lists(USE, max_size=3).map(tuple),
    },
)  # fmt: skip


@given(RECIPE)
def a_recipe_in_a_png(values):
    recipe = Recipe(**values)
    with scratch() as place:
        found = image_metadata.read_recipe(save_image(Image.new("RGB", (8, 8)), recipe, place, "a.png"))
    assert found.values == recipe.model_dump(exclude={"adapters"}) and not found.problems
    assert found.adapters == [use.model_dump() | {"file": use.title} for use in recipe.adapters]


@given(RECIPE.filter(lambda values: "\n" not in values["prompt"] and "Negative prompt:" not in values["prompt"]))
def a_recipe_as_other_programs_write_it(values):
    """Numbers, scheduler and strengths; the words up to what the text form can't hold."""
    values["adapters"] = tuple(use | {"file": Path("ink")} for use in values.get("adapters", ()))
    assume(prompts.take_adapters(values["prompt"]) == prompts.ParsedPrompt(values["prompt"]))
    recipe = Recipe(**values | {"negative_prompt": ""})
    found = read_parameters(image_metadata.parameters_text(recipe))
    assert {key: found.values[key] for key in ("seed", "steps", "width", "height")} == {
        "seed": recipe.seed, "steps": recipe.steps, "width": recipe.width, "height": recipe.height,
    }  # fmt: skip
    assert found.values.get("scheduler", NAMES[0]) == recipe.scheduler and not found.problems
    assert [round(one["strength"], 4) for one in found.adapters] == [
        round(float(f"{use.strength:g}"), 4) for use in recipe.adapters
    ]


VALUES = {
    "seed": st.integers(0, 2**63 - 1), "steps": st.integers(1, 200), "scheduler": st.sampled_from(NAMES),
    "strength": STRENGTH.map(lambda value: round(value, 6)), "guidance": st.floats(0, 30).map(lambda v: round(v, 6)),
    "prompt": st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1).map(one_line).filter(bool),
    "words": st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20).map(str.strip)
    .filter(bool),
}  # fmt: skip
AXIS = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind], min_size=2, max_size=9, unique=True))
)


@given(AXIS)
def the_values_of_a_grid(axis):
    kind, values = axis
    assume(not any(prompts.read_prompt(str(value)).adapters for value in values))
    assert parse_values(kind, values_text(kind, values)) == tuple(values)


WEIGHT = st.floats(0.1, 9.9).map(lambda value: round(value, 2))
PARTS = st.lists(st.tuples(PLAIN.filter(lambda text: "BREAK" not in text), WEIGHT), min_size=1, max_size=8)


@given(PARTS)
def the_weights_of_a_prompt(parts):
    def escaped(text: str) -> str:
        return "".join(f"\\{letter}" if letter in "\\()[]" else letter for letter in text)

    text = "".join(escaped(text) if weight == 1 else f"({escaped(text)}:{weight:g})" for text, weight in parts)
    found = prompts.parse(text)
    wanted: list[tuple[str, float]] = []
    for piece, weight in parts:
        joined = wanted and wanted[-1][1] == weight
        wanted[-1 if joined else len(wanted) :] = [((wanted[-1][0] if joined else "") + piece, weight)]
    assert [(part.text, round(part.weight, 4)) for part in found] == wanted


OPTIONS = st.fixed_dictionaries(
    {"name": PLAIN.filter(lambda text: not set(text) & set("?@~/")).map(lambda text: f"/nowhere/{text}")},
    optional={
        "vae": TEXT.filter(bool), "resolution": st.integers(8, 512).map(lambda n: 8 * n), "offload": st.just(True),
        "quantise": st.sampled_from(["8bit", "4bit"]), "family": st.sampled_from(["sd1", "sdxl", "flux-dev"]),
    },
)  # fmt: skip


@given(OPTIONS)
def the_line_of_a_base(values):
    choice = BaseChoice(**values)
    assert BaseChoice.of(str(choice)) == choice


SPEC = st.fixed_dictionaries(
    {"kind": st.sampled_from(["lora", "dora", "tucker", "loha", "lokr"]), "rank": st.integers(1, 4)},
    optional={"alpha": st.floats(0.1, 16), "stabilised": st.booleans()},
)


@given(SPEC, st.sampled_from(["diffusers", "kohya"]), st.dictionaries(PLAIN, TEXT, max_size=3))
def an_adapter(spec, layout, said):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"conv_in": torch.nn.Conv2d(3, 6, 3), "to_q": torch.nn.Linear(6, 6)})
    seen = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)

    def answer() -> torch.Tensor:
        return model["to_q"](model["conv_in"](seen).mean((2, 3))).detach()

    try:
        adapter = attach(model, AdapterSpec(**spec))
    except StudioError:
        return  # a choice that the kind refuses
    with torch.no_grad(), scratch() as place:
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3)
        before = answer()
        try:
            adapter.save(place / "a.safetensors", layout=layout, metadata=said)
        except AdapterError:
            assert layout == "diffusers" and spec["kind"] in ("tucker", "loha", "lokr"), "which have no names there"
            return
        adapter.detach()
        file = read_adapter(place / "a.safetensors")
        attach_file(file, {"unet": model})
        assert torch.allclose(answer(), before, atol=1e-4), spec
        assert {key: file.metadata[key] for key in said} == said


TRIPS = {
    "captions": a_caption,
    "settings of a run": settings_of_a_run,
    "events": an_event,
    "recipes in PNGs": a_recipe_in_a_png,
    "recipes in A1111's text": a_recipe_as_other_programs_write_it,
    "values of a grid": the_values_of_a_grid,
    "weights of a prompt": the_weights_of_a_prompt,
    "lines of bases": the_line_of_a_base,
    "adapters": an_adapter,
}
