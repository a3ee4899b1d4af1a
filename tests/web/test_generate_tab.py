"""Parts of the Generate tab, called as the page calls them."""

from types import SimpleNamespace

import gradio as gr
import pytest

from studio.errors import StudioError
from studio.server.settings import Settings
from studio.services import generation
from studio.services.jobs import Job
from studio.web.components.context import page_context
from studio.web.generate import actions, result
from studio.web.generate import tab as generate_tab
from studio.web.generate.vocabulary import examples_html
from studio.workspace import Workspace

REQUEST = SimpleNamespace(session_hash="a page")


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """The Result of a page, for which `recipe` answers one with an adapter."""
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace"))
    with gr.Blocks() as demo:
        page = page_context(workspace, Settings(workspace=workspace.root, browser=False), demo)
        with gr.Tabs():
            tab = generate_tab.build(page)
    return tab.context


@pytest.fixture
def drawing(part, monkeypatch):
    """(a Result, the job that draws for it): nothing is drawn, the test ends the job."""
    from studio.generation import Recipe

    job = Job("generate", "Generating")
    monkeypatch.setattr(type(part), "recipe", lambda *values: Recipe(prompt="x"))
    monkeypatch.setattr(generation, "start_generation", lambda *given: job)
    found = result.Result.__new__(result.Result)
    found.context, found.workspace, names = part, part.workspace, ("line", "sweep", "made")
    for name in names:
        setattr(found, name, name)
    return found, job


def test_an_error_clears_the_line_and_is_shown_once(drawing, monkeypatch):
    """The line used to say "Loading the base model" for ever."""
    found, job = drawing
    job.state, job.error, warned = "failed", "one was made for another base model.", []
    monkeypatch.setattr("studio.web.errors.show_warning", warned.append)
    news = list(found.generate(REQUEST, actions.OFF))
    assert news[-2]["line"] == result.at_rest("") and news[-1] == gr.skip()
    assert [str(one) for one in warned] == [job.error]


def test_a_new_image_clears_the_sweep_and_a_slider_does_not(drawing, monkeypatch):
    found, _ = drawing
    monkeypatch.setattr(found, "drawn", lambda *given: iter([{"line": "drawn"}]))
    assert list(found.generate(REQUEST, actions.OFF)) == [{"line": "drawn", "sweep": "", "made": True}]
    assert list(found.generate_again(REQUEST, True, actions.OFF)) == [{"line": "drawn"}]
    assert list(found.generate_again(REQUEST, False, actions.OFF)) == [gr.skip()]


def test_clicks_are_drawn_in_turn_and_stop_ends_those_that_wait():
    request = SimpleNamespace(session_hash="another page")
    for _ in range(2):
        actions.line_up(request, True, 7)
    first = actions.next_turn("another page")
    assert actions.waiting("another page") == 1 and not first.is_set()
    actions.halt(request)
    assert first.is_set() and actions.next_turn("another page").is_set()
    assert not actions.next_turn("another page").is_set()  # a click of later


def test_the_recipe_of_the_form_has_its_rows(part):
    from studio.web.generate.context import FIELDS, POOL, typed_value

    values = [[], *[field.value for field in part.form.fields], *[row.value for row in part.rows.values]]
    assert len(part.inputs) == len(values) and typed_value(values, "base") == "starter"
    assert len(part.form.fields) == len(FIELDS) and len(part.rows.rows) == POOL
    values[1 + FIELDS.index("prompt")] = "red apple"
    recipe = type(part).recipe(part, *values)
    assert recipe.prompt == "red apple" and not recipe.adapters
    values[0] = ["file:nowhere.safetensors"]
    with pytest.raises(StudioError, match="nowhere"):
        type(part).recipe(part, *values)


def test_a_recalled_form_takes_only_what_fits(part):
    values = [field.value for field in part.form.remembered]
    wrong = ["no such base", 3, None, "7", True, "a", [], {}, "x", "no scheduler", "", None, "0.5"]
    assert len(wrong) == len(values) and part.form.recalled(wrong) == {}
    assert part.form.recalled(values)[part.form.seed]["value"] == 0


def test_a_click_takes_a_new_seed_unless_it_is_kept():
    request = SimpleNamespace(session_hash="a page of seeds")
    assert actions.line_up(request, True, 7) == 7
    assert len({actions.line_up(request, False, 7) for _ in range(20)}) > 15


def test_words_that_neither_base_nor_adapter_knows_are_marked_under_the_prompt(part, monkeypatch):
    monkeypatch.setattr("studio.web.generate.vocabulary.trigger_words", lambda workspace, key: ("zsk",))
    words, prompt = part.form.words, "zsk, (lighthouse:1.2) BREAK red apple <lora:inkling:0.8>"
    assert "lighthouse" in words.mark(prompt, "starter", []) and "zsk" in words.mark(prompt, "starter", [])
    marked = words.mark(prompt, "starter", ["run:one"])
    assert marked.count("<li>") == 1 and "lighthouse" in marked
    assert words.mark(prompt, "another base", []) == ""


def test_a_chosen_name_and_an_example_go_into_the_prompt(part):
    words = part.form.words
    assert words.add("guitar", "red apple,")[part.form.prompt] == "red apple, guitar"
    shown = words.show("starter")
    assert ("guitar" in [value for _, value in shown[words.names]["choices"]]) and shown[words.box]["visible"]
    assert examples_html(part.workspace, "starter").count("<button") == 6
    assert examples_html(part.workspace, "another base") == ""
