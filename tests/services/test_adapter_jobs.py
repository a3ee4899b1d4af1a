"""Other forms of an adapter, made in the background: a new file each, and the same image before and after."""

import threading

import pytest
import torch
from PIL import Image, ImageChops

from studio.adapters import AdapterSpec, attach, read_adapter
from studio.basemodels import load_base
from studio.errors import StudioError
from studio.generation import AppliedAdapter, Recipe, read_recipe
from studio.services import adapter_files, adapters
from studio.services.generation import draw
from studio.services.jobs import latest
from studio.web.generate import adapter_inspector
from studio.workspace import Workspace
from tests.serving import end_jobs

RECIPE = Recipe(prompt="red apple, on a blue background", steps=2, seed=3)


@pytest.fixture
def space(tmp_path):
    latest.clear()
    space = Workspace.open(tmp_path)
    for seed, name in enumerate(("one", "two")):
        made = attach(load_base(shared=False).model, AdapterSpec(rank=4, alpha=4, targets="attention"))
        chance = torch.Generator().manual_seed(seed)
        for parameter in made.parameters():
            parameter.data = torch.randn(parameter.shape, generator=chance) * 0.06
        made.save(space.adapters / f"{name}.safetensors", metadata={"studio.trigger": name})
    yield space
    end_jobs()


def ended(job):
    job.wait()
    assert not job.error, job.error
    return job.result


def same(one, other):
    return ImageChops.difference(Image.open(one), Image.open(other)).getbbox() is None


def test_a_converted_file_draws_the_same_and_keeps_its_words(space):
    made = ended(adapters.convert_adapter(space, "file:one.safetensors", "kohya", "starter", recipe=RECIPE))
    assert made.key == "file:one-kohya.safetensors" and made.difference < 0.1
    file = read_adapter(adapter_files.adapter_path(space, made.key))
    assert file.layout == "kohya" and file.metadata["studio.trigger"] == "one"
    assert made.download.read_bytes() == (space.adapters / "one-kohya.safetensors").read_bytes()
    assert read_recipe(made.after).adapters[0]["file"] == "one-kohya"


def test_a_resized_file_is_a_new_one_and_tells_what_it_lost(space):
    before = (space.adapters / "one.safetensors").read_bytes()
    made = ended(adapters.resize_adapter(space, "file:one.safetensors", 1, recipe=RECIPE))
    assert (space.adapters / "one.safetensors").read_bytes() == before
    assert read_adapter(space.adapters / "one-rank1.safetensors").rank == 1
    assert "of its energy is kept" in made.notes[0] and made.difference > 0 and not same(made.before, made.after)


def test_the_exported_rows_are_the_image_and_carry_it(space):
    uses = (
        AppliedAdapter(file=space.adapters / "one.safetensors", strength=0.7),
        AppliedAdapter(file=space.adapters / "two.safetensors", strength=-0.5),
    )
    recipe = RECIPE.model_copy(update={"adapters": uses})
    made = ended(adapters.export_adapters(space, "", "diffusers", rank=32, recipe=recipe))
    assert made.key == "file:one-two.safetensors" and made.difference < 0.1
    said = read_adapter(space.adapters / "one-two.safetensors").metadata
    assert said["modelspec.merged_from"] == "one:0.7, two:-0.5" and said["modelspec.trigger_phrase"] == "one, two"
    assert said["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")


def test_without_a_recipe_the_file_is_made_and_the_reason_is_kept(space):
    made = ended(adapters.resize_adapter(space, "file:one.safetensors", 2, note="No image: why"))
    assert made.key and made.before is None
    assert "No image: why" in adapter_inspector.made_html(latest[adapters.MAKE].job)


@pytest.mark.parametrize("rank", [0, 1025, 2.5, "x", float("nan"), float("inf")])
def test_a_rank_that_is_none_is_refused_before_anything_begins(space, rank):
    with pytest.raises(StudioError, match="^rank: must be"):
        adapters.resize_adapter(space, "file:one.safetensors", rank, recipe=RECIPE)


@pytest.mark.parametrize("key", ["file:none.safetensors", "file:../one.safetensors", "", "run:none"])
def test_an_adapter_that_is_not_there_is_refused(space, key):
    for start in (
        lambda: adapters.start_inspection(space, key, "starter"),
        lambda: adapters.convert_adapter(space, key, "kohya", "starter"),
        lambda: adapters.resize_adapter(space, key, 2),
    ):
        with pytest.raises(StudioError):
            start()
    with pytest.raises(StudioError, match="layout"):
        adapters.convert_adapter(space, "file:one.safetensors", "other", "starter")


def test_a_stop_ends_it_before_the_file_is_there(space, monkeypatch):
    going, go_on = threading.Event(), threading.Event()
    real = draw

    def slow(recipe, stop=None, progress=None):
        going.set()
        go_on.wait(30)
        return real(recipe, stop, progress)

    monkeypatch.setattr(adapters, "draw", slow)
    job = adapters.resize_adapter(space, "file:one.safetensors", 2, recipe=RECIPE)
    going.wait(60)
    job.stop()
    go_on.set()
    job.wait()
    assert job.state == "stopped" and not job.error
    assert sorted(path.name for path in space.adapters.glob("*.safetensors")) == ["one.safetensors", "two.safetensors"]


def test_a_look_is_kept_until_the_file_changes(space, monkeypatch):
    first = ended(adapters.start_inspection(space, "file:one.safetensors", "starter", ["file:two.safetensors", ""]))
    assert first.found.where and list(first.found.overlaps) == ["two"]
    import studio.adapters.examine as examining

    real, looked = examining.examine, []
    monkeypatch.setattr(examining, "examine", lambda *given: looked.append(1) or real(*given))
    again = ended(adapters.start_inspection(space, "file:one.safetensors", "starter", ["file:two.safetensors"]))
    assert again.found is first.found and not looked
    path = space.adapters / "one.safetensors"
    path.write_bytes((space.adapters / "two.safetensors").read_bytes())
    changed = ended(adapters.start_inspection(space, "file:one.safetensors", "starter", ["file:two.safetensors"]))
    assert looked and changed.found.overlaps["two"] == pytest.approx(1, abs=1e-4)


def test_the_report_escapes_what_a_file_says(space):
    evil = "<img src=x onerror=alert(1)>"
    made = attach(load_base(shared=False).model, AdapterSpec(rank=2, targets="attention"))
    made.save(space.adapters / "evil.safetensors", metadata={"studio.trigger": evil, "studio.base": evil})
    job = adapters.start_inspection(space, "file:evil.safetensors", "starter")
    ended(job)
    html = adapter_inspector.report_html(job)
    assert "<img src=x" not in html and "&lt;img" in html
