"""One reading of adapters in prompts: page, endpoints and command line compose the same recipe or say the same line."""

import pytest
import torch

from studio.adapters import Update, write_adapter
from studio.cli import main
from studio.errors import AdapterError, GenerationError
from studio.services import generation
from studio.workspace import Workspace


@pytest.fixture
def space(tmp_path, monkeypatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "space")
    monkeypatch.setenv("STUDIO_WORKSPACE", str(workspace.root))
    update = Update("lora", {"A": torch.zeros(2, 8), "B": torch.zeros(8, 2)}, 2.0)
    write_adapter(workspace.adapters / "ink.safetensors", {("unet", "mid_block.to_k"): update})
    return workspace


def test_the_page_and_the_endpoint_compose_the_same(space):
    prompt = "red apple <lora:Ink:te=0:unet=0.7>, blue"
    by_page = generation.compose(space, [], prompt=prompt)
    by_operation = generation.composed(space, generation.RecipeFields(prompt=prompt).model_dump())
    for recipe in (by_page, by_operation):
        (use,) = recipe.adapters
        assert recipe.prompt == "red apple , blue" and (use.strength, use.text_strength) == (0.7, 0.0)
    assert generation.check_prompt(space, prompt) == []


@pytest.mark.parametrize(
    ("prompt", "kind", "said"),
    [
        ("a <lora:nothere:1>", AdapterError, "names the adapter 'nothere', which is not here"),
        ("a <lora:ink:15>", GenerationError, "'15' is not a strength"),
        ("BREAK " * 660 + "a", GenerationError, "661 chunks"),
    ],
)
def test_what_can_not_be_drawn_is_one_line_everywhere(space, capsys, prompt, kind, said):
    with pytest.raises(kind, match=said):
        generation.compose(space, [], prompt=prompt)
    assert any(said in line for line in generation.check_prompt(space, prompt))
    assert main.main(["generate", "--prompt", prompt]) == main.USER
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_command_line_says_what_has_no_effect(space, capsys, monkeypatch):
    from studio.generation import dispatch

    drawn = []
    monkeypatch.setattr(dispatch, "generate_all", lambda recipe, **_: drawn.append(recipe) or iter(()))
    assert main.main(["generate", "--prompt", "[cat:dog:0.5] <lora:ink:0.5:dyn=4>"]) == main.DONE
    said = capsys.readouterr().err
    assert "prompt editing" in said and "dynamic rank" in said and drawn[0].adapters[0].strength == 0.5


@pytest.mark.parametrize("key", ["line", "uses", "workspace", "nonsense"])
def test_more_fields_are_a_recipes_and_name_no_base_of_this_machine(tmp_path, key):
    """`more` of an endpoint once reached the parameter by which the command line names a base by its path."""
    with pytest.raises(GenerationError, match=f"^{key}: is not a setting"):
        generation.generate(Workspace.open(tmp_path), prompt="a fish", more={key: "/models/other"})
