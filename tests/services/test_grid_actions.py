"""Grids on the page: checkpoints by name, what the presets choose, limits, and names that can't leave the workspace."""

import gradio as gr
import pytest
import torch
from PIL import Image

from studio.adapters import Update, write_adapter
from studio.errors import GenerationError, NotAllowedError, StudioError
from studio.generation import AppliedAdapter, Recipe, contact_sheet, save_image
from studio.server.permissions import VISITED
from studio.services import grids
from studio.services.adapter_files import adapter_path, key_of
from studio.services.generation import image_path, restored
from studio.services.grids import Typed, axes_of, checked, checkpoint_sweep, checkpoints_of, spread, two, typed_in
from studio.services.jobs import Job
from studio.web.generate.adapter_rows import known_keys
from studio.web.generate.grid import AxisRow, job_line
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """One run with checkpoints of steps 100 and 1200 and a result; their files are empty."""
    workspace = Workspace.open(tmp_path)
    run = workspace.runs / "apples"
    for folder in (run / "checkpoints" / "000100", run / "checkpoints" / "001200", run):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter.safetensors").touch()
    (run / "run.toml").touch()
    return workspace


def test_checkpoints_are_listed_by_step_and_found_by_their_keys(workspace):
    listed = checkpoints_of(workspace, "apples")
    assert listed == [
        ("Step 100", "run:apples@100"), ("Step 1,200", "run:apples@1200"), ("Result", "run:apples"),
    ]  # fmt: skip
    paths = [adapter_path(workspace, key) for _, key in listed]
    assert [path.parent.name for path in paths] == ["000100", "001200", "apples"]


def test_a_result_that_is_the_last_checkpoint_is_drawn_once(workspace):
    run = workspace.runs / "apples"
    places = {1.0: run / "checkpoints" / "000100", 2.0: run / "checkpoints" / "001200", 3.0: run}
    for value, folder in places.items():
        _adapter(folder, value)
    assert len(checkpoints_of(workspace, "apples")) == 3
    _adapter(run, 2.0, ss_training_comment="the result")  # the same weights in another file
    assert checkpoints_of(workspace, "apples") == [("Step 100", "run:apples@100"), ("Result", "run:apples")]
    assert two(workspace, [], 7)[0].picks == ("run:apples@100", "run:apples")
    with gr.Blocks():
        row = AxisRow(0)
    choices = row.updates(workspace, Typed("checkpoint", "apples", picks=("run:apples@1200",)))[row.picks]["choices"]
    assert choices[-1] == ("apples@1200", "run:apples@1200")  # as an older sheet may name it


def _adapter(folder, value, **said):
    update = Update("lora", {"A": torch.full((2, 8), value), "B": torch.ones(8, 2)}, 2.0)
    write_adapter(folder / "adapter.safetensors", {("unet", "mid_block.to_k"): update}, metadata=said)


def test_an_image_made_with_a_checkpoint_finds_it_again(workspace):
    file = adapter_path(workspace, "run:apples@1200")
    recipe = Recipe(prompt="x", adapters=(AppliedAdapter(file=file, strength=0.5),))
    path = save_image(Image.new("RGB", (8, 8)), recipe, workspace.outputs)
    _, adapters, problems = restored(workspace, path)
    assert [(one["key"], one["strength"]) for one in adapters] == [("run:apples@1200", 0.5)] and not problems
    assert known_keys(workspace, ["run:apples@1200", "run:apples@7", "run:apples@/../x"]) == ["run:apples@1200"]


def test_a_sheet_puts_its_axes_back_into_the_form(workspace, tmp_path):
    typed = [
        Typed("checkpoint", "apples", picks=("run:apples@100", "run:apples@1200")),
        Typed("words", text='apple, "red, ripe"'),
        Typed("strength", "apples", "-0.5, 0.25, 1"),
    ]
    recipe = Recipe(prompt="an apple", adapters=(AppliedAdapter(file=adapter_path(workspace, "run:apples")),))
    axes = axes_of(workspace, recipe, typed)
    sheet = _sheet(workspace, recipe, axes)
    found, problems = typed_in(workspace, sheet)
    assert not problems and axes_of(workspace, recipe, found) == axes
    elsewhere = Workspace.open(tmp_path / "elsewhere")
    found, problems = typed_in(elsewhere, sheet)
    assert [one.kind for one in found] == ["checkpoint", "words", "strength"] and found[0].picks == ()
    assert len(problems) == 2 and "'apples@100' is not here" in problems[0]
    one = save_image(Image.new("RGB", (8, 8)), recipe, workspace.outputs)
    assert typed_in(workspace, one) == ([], [])


@pytest.mark.parametrize(
    "axes", ["", "{}", "[" * 9999, '{"axes": 3}', '{"axes": [{"kind": "seed", "values": ["<b>"]}]}',
             '{"axes": [{"kind": "seed", "values": [1e999]}]}', '{"axes": [{"kind": "prompt", "values": [[]]}]}',
             '{"axes": [{"kind": "rm -rf", "values": [1]}]}', '{"axes": [{"kind": "seed", "values": []}]}',
             '{"axes": [{"kind": "strength", "values": [1], "index": -1}]}', '{"axes": [null]}'],
)  # fmt: skip
def test_damaged_axes_of_a_sheet_are_no_axes(workspace, axes):
    path = save_image(Image.new("RGB", (8, 8)), Recipe(prompt="x"), workspace.outputs, also={contact_sheet.KEY: axes})
    assert typed_in(workspace, path) == ([], [])


def _sheet(workspace, recipe, axes):
    folder = contact_sheet.new_folder(workspace.outputs, recipe, axes)
    grid = contact_sheet.read_grid(folder)
    assert grid is not None
    return contact_sheet.save_sheet(grid, recipe, axes)


@pytest.mark.parametrize(
    "key", ["run:apples@7", "run:apples@", "run:@100", "run:apples@100@100", "run:apples@²", "run:apples@" + "1" * 5000,
            "run:apples@../../x", "run:../apples@100"],
)  # fmt: skip
def test_a_checkpoint_that_is_not_there_is_one_line(workspace, key):
    with pytest.raises(StudioError) as caught:
        adapter_path(workspace, key)
    assert "\n" not in str(caught.value)
    assert key_of(workspace, key.partition(":")[2]) is None


def test_presets_fill_the_axes(workspace):
    strengths, steps = axes_of(workspace, Recipe(prompt="x"), checkpoint_sweep(workspace))
    assert strengths.values == (0.5, 0.75, 1.0) and steps.labels == ("apples@100", "apples@1200", "apples")
    pair, seeds = two(workspace, [], 7)  # one adapter alone: the run's last two
    assert pair.picks == ("run:apples@1200", "run:apples") and seeds.text == "7-10"
    for name in ("a", "b"):
        (workspace.adapters / f"{name}.safetensors").touch()
    assert two(workspace, ["", "file:b.safetensors"], 7)[0].picks == ("file:b.safetensors", "run:apples")
    assert spread(list("abcdefghijk"), 3) == ["a", "f", "k"]


def test_the_checkpoint_sweep_takes_the_adapter_in_use(workspace):
    assert checkpoint_sweep(workspace, ["", "run:apples@100"])[1].which == "apples"
    with pytest.raises(GenerationError, match="No adapter in use has checkpoints"):
        checkpoint_sweep(workspace, ["file:b.safetensors"])


def test_without_anything_to_compare_presets_say_so(tmp_path):
    empty = Workspace.open(tmp_path / "empty")
    with pytest.raises(GenerationError, match="train one first"):
        checkpoint_sweep(empty)
    with pytest.raises(GenerationError, match="drop another one"):
        two(empty, [], 0)


def test_strength_is_that_of_the_adapter_that_was_chosen(workspace):
    (workspace.adapters / "b.safetensors").touch()
    files = [adapter_path(workspace, key) for key in ("run:apples", "file:b.safetensors")]
    recipe = Recipe(prompt="x", adapters=tuple((file, 1.0) for file in files))
    assert axes_of(workspace, recipe, [Typed("strength", "b", "0, 1")])[0].index == 1
    with pytest.raises(GenerationError, match="'c' is not on the image"):
        axes_of(workspace, recipe, [Typed("strength", "c", "0, 1")])
    with pytest.raises(GenerationError, match="Choose what the axis Checkpoint"):
        axes_of(workspace, recipe, [Typed("checkpoint", "apples")])


def test_a_grid_stays_within_what_the_server_allows(tmp_path):
    public = Workspace(tmp_path, VISITED)
    recipe = Recipe(prompt="x")
    assert len(checked(public, recipe, axes_of(public, recipe, [Typed("seed", text="1-8")]))) == 8
    for typed in (Typed("seed", text="1-9"), Typed("steps", text="10, 60")):
        with pytest.raises(NotAllowedError):
            checked(public, recipe, axes_of(public, recipe, [typed]))


@pytest.mark.parametrize(
    "name", ["grids/../x.png", "grids/a/../../x.png", "grids/a/..", "grids//x.png", "../x.png", "/etc/passwd",
             "grids/a/b/c.png", "other/a/x.png", "grids\\a\\x.png", ".hidden.png", "grids/.a/x.png", ""],
)  # fmt: skip
def test_names_of_images_stay_among_the_outputs(workspace, name):
    with pytest.raises(StudioError):
        image_path(workspace, name)


def test_names_of_cells_and_images_are_found(workspace):
    assert image_path(workspace, "x.png") == workspace.outputs / "x.png"
    assert image_path(workspace, "grids/a/001.png") == workspace.outputs / "grids" / "a" / "001.png"


def test_a_grid_is_drawn_in_the_background_and_found_again(workspace):
    recipe = Recipe(prompt="red apple", steps=2)
    job = grids.start_grid(workspace, recipe, axes_of(workspace, recipe, [Typed("seed", text="1, 2")]))
    assert isinstance(job, Job)
    job.wait()
    grid = grids.newest(workspace)
    assert job.state == "done" and grid is not None and all(grid.images) and grid.sheet.is_file()
    assert grids.seconds_for([recipe] * 4) > 0
    assert image_path(workspace, grids.image_name(grid, 1)) == grid.images[1]


def test_a_grid_of_which_nothing_can_be_drawn_says_why(workspace):
    (workspace.adapters / "noise.safetensors").write_bytes(b"\x00" * 50)
    recipe = Recipe(prompt="red apple", steps=2)
    axes = axes_of(workspace, recipe, [Typed("adapter", picks=("file:noise.safetensors",))])
    job = grids.start_grid(workspace, recipe, axes)
    job.wait()
    assert job.state == "failed" and "noise" in job.error and "\n" not in job.error


def test_why_a_grid_failed_is_shown_as_it_was_said():
    job = Job("grid", "Grid of 4 images")
    job.state, job.error = "failed", "The prompt's <lora:ink> & more is wrong."
    assert "&lt;lora:ink&gt; &amp; more" in job_line(job)
