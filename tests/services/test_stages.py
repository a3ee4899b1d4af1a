"""How far a person is, and the guided example that goes the whole way."""

import shutil

import pytest
from PIL import Image

from studio.errors import BusyError
from studio.generation import Recipe, read_recipe, save_image
from studio.generation.applied_adapter import AppliedAdapter
from studio.services import datasets, example, run_library, stages
from studio.services.jobs import jobs, latest
from studio.services.stages import Stages
from studio.training import new_run
from studio.training.defaults import config_for
from studio.training.events import Finished, Started
from studio.training.runs import append
from studio.web.components.steps import steps_html
from studio.workspace import Workspace
from tests.serving import end_jobs


@pytest.fixture
def workspace(tmp_path, quick_export_check):
    """The dataset "ink" with two images, one of them with a caption."""
    workspace = Workspace.open(tmp_path / "workspace")
    latest.clear()
    folder = workspace.datasets / "ink"
    folder.mkdir()
    for number, name in enumerate(("one", "two")):
        Image.new("RGB", (64, 64), (80 * number, 90, 90)).save(folder / f"{name}.png")
    (folder / "one.txt").write_text("a red square")
    yield workspace
    end_jobs()


def finished_run(workspace: Workspace, name: str, dataset: str) -> None:
    config = config_for({"data.folder": str(workspace.datasets / dataset), "name": name, "training.steps": 4})
    folder = new_run(config, workspace)
    append(folder, Started(0, 4, 1, 0.0, "1"))
    append(folder, Finished(4, 4, "done"))
    (folder / "adapter.safetensors").write_bytes(b"weights")


def drawn_with(workspace: Workspace, run: str) -> str:
    used = AppliedAdapter(file=workspace.runs / run / "adapter.safetensors")
    return save_image(Image.new("RGB", (32, 32)), Recipe(prompt="x", adapters=(used,)), workspace.outputs).name


def test_the_way_goes_from_images_to_an_image_with_the_adapter(workspace):
    assert stages.stages(workspace) == Stages() and Stages().next == "dataset"
    now = stages.stages(workspace, "ink")
    assert (now.dataset, now.images, now.captioned, now.run, now.next) == ("ink", 2, 1, "", "train")
    finished_run(workspace, "first", "ink")
    now = stages.stages(workspace, "ink")
    assert (now.run, now.state, now.ready, now.tried, now.next) == ("first", "finished", True, 0, "test")
    drawn_with(workspace, "first")
    now = stages.stages(workspace, "ink")
    assert now.tried == 1 and now.next == ""
    html = steps_html(now)
    assert html.count('class="step done"') == 3 and "1 image with first" in html


def test_no_step_speaks_of_what_is_not_there_any_more(workspace):
    finished_run(workspace, "first", "ink")
    drawn_with(workspace, "first")
    before = stages.stamp(workspace, "ink")
    run_library.move_to_trash(workspace, ["first"])
    assert stages.stamp(workspace, "ink") != before
    assert stages.stages(workspace, "ink").run == "" and stages.stages(workspace, "ink").next == "train"
    finished_run(workspace, "first", "ink")  # another one of that name, with which nothing was drawn yet
    assert stages.stages(workspace, "ink").tried == 0
    shutil.rmtree(workspace.datasets / "ink")
    gone = stages.stages(workspace, "ink")
    assert gone.dataset == "" and gone.images == 0


def test_a_run_on_another_dataset_is_no_step_of_this_one(workspace):
    finished_run(workspace, "first", "ink")
    shutil.copytree(workspace.datasets / "ink", workspace.datasets / "other")
    assert stages.stages(workspace, "other").run == "" and stages.stages(workspace, "ink").run == "first"
    assert stages.stages(workspace).run == "first"  # while no dataset is open, the newest of all


def test_names_in_the_line_of_steps_stay_text():
    html = steps_html(Stages(dataset="<img src=x>", images=1, run="<b>", state="finished", ready=True))
    assert "<img" not in html and "<b>:" not in html


def test_the_guided_example_trains_and_generates_with_what_it_trained(workspace, monkeypatch):
    quick = {"training.steps": 2, "training.batch_size": 1, "preview.every": 0, "validation.every": 0}
    monkeypatch.setattr(example, "SETTINGS", example.SETTINGS | quick | {"adapter.rank": 2})
    job = example.start_example(workspace)
    with pytest.raises(BusyError):
        jobs.start(example.KIND, "another", lambda job: None, device=False)
    job.wait()
    found = job.result
    assert job.state == "done", job.error
    assert found.dataset == example.SAMPLE and found.stage == "test" and found.run in found.ended
    recipe = read_recipe(workspace.outputs / found.image)
    assert recipe.values["prompt"] == example.PROMPT and recipe.values["seed"] == example.SEED
    assert [one["file"] for one in recipe.adapters] == [found.run]
    assert stages.stages(workspace, found.dataset).next == ""


def test_a_stopped_example_stops_what_it_began(workspace, monkeypatch):
    monkeypatch.setattr(example, "SETTINGS", example.SETTINGS | {"training.steps": 5000, "preview.every": 0})
    job = example.start_example(workspace)
    while not (job.result and job.result.run):
        assert job.thread and job.thread.is_alive()
        job.thread.join(0.05)
    example.stop_example()
    job.wait()
    assert job.state == "stopped" and latest["train"].job.state == "stopped" and not job.result.image


@pytest.mark.parametrize(
    ("typed", "files", "name"),
    [
        ("", ["a.png", "b.png"], "my-images"),
        ("", ["holiday.zip"], "holiday"),
        ("", ["/photos/alps"], "alps"),
        ("", ["a.png"], "my-images"),
        ("cats", ["holiday.zip"], "cats"),
        ("ink", ["a.png"], "ink-2"),  # never into one that is there
    ],
)
def test_images_from_the_card_make_a_dataset_of_their_own(workspace, typed, files, name):
    assert datasets.new_name(workspace, typed, files) == name
