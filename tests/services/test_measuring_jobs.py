"""Measuring as a person does it: which images and words are meant, a job that can be stopped, a result that stays."""

import pytest

from studio.errors import DatasetError, GenerationError, NotAllowedError
from studio.generation import Recipe
from studio.generation.evaluation import Measured, SweepScores
from studio.services import evaluation
from studio.services.evaluation import NONE, OWN, SET, newest, start_measuring, training_images, trigger_words
from studio.services.jobs import jobs, latest
from studio.training import config_from, config_to_toml
from studio.web.components.strength_chart import strength_chart
from studio.web.generate import evaluation as evaluation_part
from studio.workspace import ASSETS, Workspace
from tests.serving import end_jobs

PROMPT = "inkling, red apple, on a blue background"


@pytest.fixture
def workspace(tmp_path):
    from studio.adapters import AdapterSpec, attach
    from studio.basemodels import load_base

    latest.clear()
    found = Workspace.open(tmp_path)
    run = found.runs / "ink"
    run.mkdir()
    config = config_from(
        {
            "data.folder": str(ASSETS / "datasets" / "silhouette"),
            "name": "ink",
            "data.trigger": "inkling",
            "validation.fraction": 0.25,
        }
    )
    (run / "run.toml").write_text(config_to_toml(config))
    adapter = attach(load_base(shared=False).model, AdapterSpec(rank=2, alpha=2))
    adapter.save(run / "adapter.safetensors", metadata={})
    adapter.save(
        found.adapters / "dropped.safetensors",
        metadata={
            "modelspec.trigger_phrase": "zsk, ohwx",
            "ss_tag_frequency": '{"a": {"cat": 9}}',
        },
    )
    adapter.save(found.adapters / "tags.safetensors", metadata={"ss_tag_frequency": '{"a": {"cat": 9}}'})
    yield found
    end_jobs()
    latest.clear()


def recipe(workspace, **more) -> Recipe:
    given = {"prompt": PROMPT, "steps": 2, "seed": 5, "width": 64, "height": 64}
    return Recipe(**given | {"adapters": ((workspace.runs / "ink" / "adapter.safetensors", 1.0),)} | more)


def test_a_strip_for_each_seed_is_measured_saved_and_found_again(workspace):
    job = start_measuring(workspace, recipe(workspace, count=3), "run:ink", OWN, seeds=2)
    job.wait()
    assert job.state == "done", job.error
    found = job.result
    assert [strip.seed for strip in found.sweeps] == [5, 6] and found.prompt == "red apple, on a blue background"
    assert found.dataset == "silhouette" and found.compared == 18  # a quarter of the 24 was held out
    named = {name for strip in found.sweeps for name in strip.images}
    assert len(named) == 14 and named == {path.name for path in workspace.outputs.glob("*.png")}
    assert {use.strength for use in _recipes(workspace, named)} == {0, 0.25, 0.5, 0.75, 1, 1.25, 1.5}
    assert newest(workspace) is found
    latest.clear()  # the studio is opened again
    assert newest(workspace) == found
    page = evaluation_part.shown(workspace, found)
    assert page.count('class="bare"') == 14 and page.count("<svg") == 3


def _recipes(workspace, names):
    from studio.generation import read_recipe
    from studio.generation.applied_adapter import AppliedAdapter

    return [AppliedAdapter(**one) for name in names for one in read_recipe(workspace.outputs / name).adapters]


@pytest.mark.full
def test_a_stop_keeps_the_strips_that_are_done(workspace):
    job = start_measuring(workspace, recipe(workspace, steps=20), "run:ink", OWN, seeds=8)
    while job.state == "running" and not (job.result and job.result.sweeps):
        job.thread.join(0.01)
    job.stop()
    job.wait()
    assert job.state == "stopped" and not job.error
    assert 1 <= len(job.result.sweeps) < 8 and newest(workspace) is job.result


@pytest.mark.full
def test_a_strip_waits_for_its_turn_on_the_device(workspace):
    with jobs.device():
        job = start_measuring(workspace, recipe(workspace), "run:ink", NONE, seeds=2)
        job.thread.join(0.5)
        assert job.state == "running" and not job.result, "the device was held by somebody else"
    job.wait()
    assert len(job.result.sweeps) == 2 and not job.result.dataset and job.result.curve("likeness") == []


def test_what_cannot_be_measured_is_said_before_anything_is_drawn(workspace):
    with pytest.raises(GenerationError, match="ink is off"):
        start_measuring(workspace, recipe(workspace, adapters=()), "run:ink")
    with pytest.raises(GenerationError, match="1 to 8 seeds"):
        start_measuring(workspace, recipe(workspace), "run:ink", seeds=0)
    with pytest.raises(GenerationError, match="built-in image encoder"):
        start_measuring(workspace, recipe(workspace, base="/models/other"), "run:ink")
    assert not jobs.running() and not list(workspace.outputs.iterdir())


def test_where_models_and_folders_are_closed_no_encoder_can_be_named(workspace):
    from dataclasses import replace

    from studio.server.permissions import REACHED, VISITED

    with pytest.raises(NotAllowedError, match="built-in models"):
        start_measuring(replace(workspace, allows=VISITED), recipe(workspace), "run:ink", encoder="openai/clip")
    with pytest.raises(NotAllowedError, match="Paths of this machine"):
        start_measuring(replace(workspace, allows=REACHED), recipe(workspace), "run:ink", encoder="/models/clip")


def test_an_encoder_that_is_not_here_is_said_in_one_line(workspace):
    job = start_measuring(workspace, recipe(workspace), "run:ink", NONE, encoder="nobody/nothing")
    job.wait()
    assert job.state == "failed" and "nobody/nothing is not on this machine" in job.error


def test_a_runs_own_images_are_those_it_was_not_measured_on(workspace):
    items, name = training_images(workspace, "run:ink", OWN)
    assert name == "silhouette" and len(items) == 18
    assert trigger_words(workspace, "run:ink") == ("inkling",)
    assert training_images(workspace, "run:ink", NONE) == ([], "")
    assert training_images(workspace, "run:ink", f"{SET}pixel")[1] == "pixel"


def test_a_folder_that_is_gone_and_a_file_that_never_had_one_are_each_said_in_a_sentence(workspace):
    file = workspace.runs / "ink" / "run.toml"
    file.write_text(file.read_text().replace("silhouette", "burnt"))
    with pytest.raises(DatasetError, match="'burnt' that ink was trained on is gone"):
        training_images(workspace, "run:ink", OWN)
    with pytest.raises(DatasetError, match="dropped came as a file"):
        training_images(workspace, "file:dropped.safetensors", OWN)
    file.write_text("no = [toml")
    with pytest.raises(DatasetError, match="can't be read"):
        training_images(workspace, "run:ink", OWN)


def test_only_words_that_a_file_names_itself_are_left_out_of_the_prompt(workspace):
    assert trigger_words(workspace, "file:dropped.safetensors") == ("zsk", "ohwx")
    assert trigger_words(workspace, "file:tags.safetensors") == ()  # its commonest tags mean something


@pytest.mark.parametrize("text", ["", "{", "[]", '{"adapter": 3}', "\x00"])
def test_a_damaged_result_is_no_result(workspace, text):
    evaluation._file(workspace).write_text(text)
    assert newest(workspace) is None


def test_what_stands_on_the_page_is_escaped(workspace):
    bad = "<img src=x onerror=alert(1)>"
    strip = SweepScores(0, (f"{bad}.png",) * 2, (0.1, 0.2), (0.1, 0.2), (0.1, 0.2), (workspace.outputs / bad,) * 2)
    page = evaluation_part.shown(workspace, Measured(bad, bad, bad, (0.0, 1.0), (strip,), bad, 3, 0.9, 0.5))
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_a_chart_keeps_within_its_frame_and_shades_the_range():
    import re

    chart = strength_chart(
        "Likeness", "held", (0, 0.5, 1), [(0.2, 0.1), (0.4, 0.0), (0.9, 0.05)], (0.5, 1), (0.95, "set")
    )
    numbers = [float(word) for path in re.findall(r' d="M([^"]+)"', chart) for word in re.split("[L ]", path)]
    assert min(numbers) >= 0 and max(numbers) <= 1000
    assert '<rect class="shade" x="500.0" y="0" width="500.0"' in chart and 'class="mark"' in chart
    alone = strength_chart("Likeness", "held", (0, 0.5, 1), [(0.2, 0.0)] * 3, (1, 1))
    assert 'x="985.0" y="0" width="15.0"' in alone and "nan" not in alone
