"""Parts of the Generate tab, called as the page calls them."""

import re
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from studio.errors import StudioError
from studio.server.settings import Settings
from studio.services import generation_jobs
from studio.services.jobs import Job
from studio.web.components.context import page_context
from studio.web.generate import actions, result, stage, sweep
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
    monkeypatch.setattr(generation_jobs, "start_generation", lambda *given: job)
    found = result.Result.__new__(result.Result)
    found.context, found.workspace = part, part.workspace
    for name in ("line", "sweep", "made", "stage", "blank", "last", "heading", "earlier"):
        setattr(found, name, name)
    return found, job


def test_an_error_is_shown_once_and_stays_in_the_line(drawing, monkeypatch):
    """The line used to say "Loading the base model" for ever."""
    found, job = drawing
    job.state, job.error, warned = "failed", "one was made for another base model.", []
    monkeypatch.setattr("studio.web.errors.show_warning", warned.append)
    news = list(found.generate(REQUEST, None, actions.OFF))
    assert "Not drawn: one was made for another base model." in news[-2]["line"] and "busy" not in news[-2]["line"]
    assert news[-2]["blank"] == gr.update(visible=True) and news[-1] == gr.skip()  # there was no image before it
    assert [str(one) for one in warned] == [job.error]


def test_a_strength_is_drawn_again_once_there_is_an_image(drawing, monkeypatch):
    found, _ = drawing
    monkeypatch.setattr(found, "drawn", lambda *given: iter([{"line": "drawn"}]))
    assert list(found.generate(REQUEST, None, actions.OFF)) == [{"line": "drawn", "made": True}]
    assert list(found.generate_again(REQUEST, True, None, actions.OFF)) == [{"line": "drawn"}]
    assert list(found.generate_again(REQUEST, False, None, actions.OFF)) == [gr.skip()]


def test_previews_stand_where_the_images_will_be(tmp_path):
    """Of the same size, in the same frames: nothing jumps; the image before stands in until there is a preview."""
    before = stage.Shown(128, 96, (str(tmp_path / "old.png"),), str(tmp_path / "bare.png"), True)
    plan = stage.Shown(128, 96, without=str(tmp_path / "bare.png"), compares=True)
    waits = stage.stage_html(plan, actions.BESIDE, None, before, True)
    comes = stage.stage_html(plan, actions.BESIDE, Image.new("RGB", (16, 12)), before, True)
    done = stage.stage_html(before, actions.BESIDE)
    frames = [
        re.sub(r"<img.*?>", "", re.sub(r"<figcaption>.*?</figcaption>", "", html)) for html in (waits, comes, done)
    ]
    assert frames[0] == frames[1] == frames[2]
    assert 'class="draft older"' in waits and "data:image/png" in comes and "draft" not in done


def test_an_older_image_of_another_size_does_not_stand_in(tmp_path):
    before = stage.Shown(256, 256, (str(tmp_path / "old.png"),))
    assert "<img" not in stage.stage_html(stage.Shown(128, 128), actions.OFF, None, before, True)


def test_the_before_after_slider_has_a_name_and_both_images(tmp_path):
    shown = stage.Shown(128, 128, (str(tmp_path / "with.png"),), str(tmp_path / "bare.png"), True)
    html = stage.stage_html(shown, actions.OVER)
    assert html.count("<img") == 2 and 'type="range"' in html and "aria-label" in html and "unsmoothed" in html
    assert stage.stage_html(shown, actions.BESIDE).count("<figure") == 2
    big = stage.Shown(1024, 1024, shown.paths, shown.without, True)
    assert "unsmoothed" not in stage.stage_html(big, actions.OVER)


def test_a_strength_sweep_begins_at_one(part, tmp_path):
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    files = [tmp_path / f"{number}.png" for number in range(7)]
    html = sweep.sweep_html(part.workspace, list(zip(strengths, files)), "ink", (128, 128))
    shown = re.findall(r'alt="ink at ([\d.]+)" data-frame="\d"( hidden)?', html)
    assert [at for at, hidden in shown if not hidden] == ["1"] and len(shown) == 7
    assert html.count("data-show") == 7 and 'value="4"' in html
    assert sweep.first_shown((-1.5, -1.0, 0.0, 0.5)) == 3


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
    seed, line = actions.line_up(request, True, 7)
    assert seed == 7 and "busy" in line  # Stop takes the place of Generate at once
    assert len({actions.line_up(request, False, 7)[0] for _ in range(20)}) > 15


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
