"""Base models on the page: a list of names, and nothing typed that the page's owner did not type."""

import copy
import json
import shutil
import threading
import time
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from studio.errors import NotAllowedError, StudioError
from studio.generation import save_image
from studio.server.permissions import REACHED, VISITED
from studio.server.settings import Settings
from studio.services import base_models, generation, runs
from studio.services.jobs import Job, jobs
from studio.web.components import base_model_picker
from studio.web.components.context import page_context
from studio.workspace import Workspace
from tests.basemodels import tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: tiny.save(name, root) for name in ("sd2-v", "flux-dev")}


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def flux(workspace, folders):
    return base_models.remember(workspace, base_models.line_from(workspace, str(folders["flux-dev"]), {}))


def test_a_base_is_known_by_its_name_until_it_is_forgotten(workspace, folders, flux):
    line = base_models.line_from(
        workspace, f" '{folders['sd2-v']}' ", {"quantise": "8bit", "vae": "", "offload": False}
    )
    name = base_models.remember(workspace, line)
    assert (name, line) == ("sd2-v (8bit)", f"{folders['sd2-v']}?quantise=8bit")
    assert [one for _, one in base_models.base_choices(workspace)] == ["starter", name, flux]
    assert base_models.line_of(workspace, name) == line and base_models.name_of(workspace, line) == name
    assert base_models.remember(workspace, line) == name
    base_models.choose(workspace, name)
    assert base_models.chosen(workspace) == line
    base_models.forget(workspace, name)
    assert [one for _, one in base_models.base_choices(workspace)] == ["starter", flux]
    assert base_models.chosen(workspace) == "starter"


def test_two_of_one_name_are_told_apart(workspace, folders, flux, tmp_path):
    shutil.copytree(folders["flux-dev"], tmp_path / "flux-dev")
    other = base_models.remember(workspace, str(tmp_path / "flux-dev"))
    assert (flux, other) == ("flux-dev", "flux-dev 2")


def test_bases_that_come_at_the_same_moment_are_all_kept(workspace, folders, monkeypatch):
    both, write = threading.Barrier(2), base_models.atomic_write
    monkeypatch.setattr(base_models, "inspect_base", lambda line: both.wait(30))
    monkeypatch.setattr(base_models, "atomic_write", lambda *given: (time.sleep(0.1), write(*given)))
    threads = [
        threading.Thread(target=base_models.remember, args=(workspace, str(folder))) for folder in folders.values()
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {name for _, name in base_models.base_choices(workspace)} == {"starter", "sd2-v", "flux-dev"}


@pytest.mark.parametrize("text", ["", "[", '{"bases": 3}', '{"bases": {"a": 4}}', "[" * 100_000])
def test_a_damaged_list_is_an_empty_one(workspace, text):
    (workspace.root / "bases.json").write_text(text)
    assert [name for _, name in base_models.base_choices(workspace)] == ["starter"]
    assert base_models.chosen(workspace) == "starter"


def test_a_path_is_never_a_name(workspace, folders, flux):
    for given in (str(folders["flux-dev"]), "/etc/passwd", "stabilityai/sdxl-turbo", 7):
        with pytest.raises(StudioError, match="no base model"):
            runs.config_of(workspace, {"dataset": "silhouette", "base": given})
        with pytest.raises(StudioError, match="no base model"):
            generation.compose(workspace, [], prompt="x", base=given)
    config = runs.config_of(workspace, {"dataset": "silhouette", "base": flux})
    assert config.base == str(folders["flux-dev"])
    assert generation.compose(workspace, [], prompt="x", base=flux, width=64, height=64).base == config.base


@pytest.mark.parametrize("allows", [REACHED, VISITED])
def test_where_others_come_nothing_can_be_typed(workspace, folders, flux, allows):
    reached = Workspace(workspace.root, allows)
    for act in (
        lambda: base_models.line_from(reached, str(folders["flux-dev"]), {}),
        lambda: base_models.remember(reached, str(folders["sd2-v"])),
        lambda: base_models.start_download(reached, "art/xl"),
    ):
        with pytest.raises(NotAllowedError):
            act()
    known = [name for _, name in base_models.base_choices(reached)]
    assert known == (["starter", flux] if allows is REACHED else ["starter"])
    if allows is VISITED:
        with pytest.raises(NotAllowedError):
            base_models.line_of(reached, flux)


def test_the_end_of_a_download_says_nothing_of_another_base_inspected_meanwhile(workspace, flux, monkeypatch):
    job = Job("base", "Fetching flux")
    job.state, job.result, job.message = "done", flux, "flux is here."
    monkeypatch.setitem(jobs.beside, "base", job)
    with gr.Blocks() as demo:
        page = page_context(workspace, Settings(workspace=workspace.root, browser=False), demo)
        part = base_model_picker.build(page, "train").added
    news = part.watch("/no/such/base")
    assert part.report not in news and part.use_button not in news and "flux is here." in news[part.progress]
    assert news[part.fetch]["visible"] and news[part.timer].active is False
    news = part.watch(base_models.line_of(workspace, flux))
    assert "FLUX" in news[part.report] and news[part.use_button]["interactive"] and not news[part.fetch]["visible"]


def test_what_is_typed_wrong_is_one_sentence(workspace):
    for place, options, words in (
        ("", {}, "Say which base"),
        ("x?bits=3", {}, "bits: is not a setting"),
        ("x", {"resolution": "99"}, "must be a multiple of 8"),
    ):
        with pytest.raises(StudioError, match=words) as error:
            base_models.line_from(workspace, place, options)
        assert "\n" not in str(error.value)


def test_the_presets_and_the_usual_are_those_of_the_family(workspace, folders, flux):
    v = base_models.remember(workspace, str(folders["sd2-v"]))
    assert [name.split(",")[0] for name in runs.list_presets(workspace, flux)] == ["FLUX.1 dev"] * 4
    assert {name.split(",")[0] for name in runs.list_presets(workspace, v)} == {"SD 1.5"}
    assert {name.split(",")[0] for name in runs.list_presets(workspace, "starter")} == {"starter"}
    usual = base_models.usual(workspace, flux)
    assert (usual["width"], usual["height"], usual["step"], usual["guidance"]) == (64, 64, 16, 3.5)
    assert "DDIM" not in usual["schedulers"] and "DDIM" in base_models.usual(workspace, v)["schedulers"]
    assert base_models.usual(workspace, "starter")["width"] == 128


def test_sizes_and_schedulers_that_do_not_go_are_refused_before_anything_is_loaded(workspace, flux):
    with pytest.raises(StudioError, match="divide by 16: take 512 × 512 instead of 520 × 512"):
        generation.compose(workspace, [], prompt="x", base=flux, width=520, height=512)
    with pytest.raises(StudioError, match="does not go with DDIM: choose as the base, Euler"):
        generation.compose(workspace, [], prompt="x", base=flux, width=512, height=512, scheduler="DDIM")


def test_an_adapter_is_compared_with_the_chosen_base_and_nothing_is_loaded(workspace, folders, flux, monkeypatch):
    from studio import basemodels
    from studio.adapters import AdapterSpec, attach
    from studio.basemodels.skeleton import skeleton

    module = copy.deepcopy(skeleton(str(folders["flux-dev"]))["transformer"])
    made = attach(module.to_empty(device="cpu"), AdapterSpec(rank=2, targets="attention"))
    made.save(workspace.adapters / "a.safetensors", prefix="transformer")
    made.detach()
    monkeypatch.setattr(basemodels, "load_base", lambda *_, **__: pytest.fail("a base was loaded"))
    line, _, bad = generation.adapter_summary(workspace, "file:a.safetensors", flux)
    assert "11 of 11 layers fit" in line and not bad
    line, _, bad = generation.adapter_summary(workspace, "file:a.safetensors", "starter")
    assert "none of its 11 layers fits" in line and bad
    line, _, bad = generation.adapter_summary(workspace, "file:a.safetensors", "gone")
    assert "no base model 'gone'" in line and bad


def test_an_image_names_its_base_without_a_path_and_gives_it_back(workspace, folders, flux, tmp_path):
    recipe = generation.compose(workspace, [], prompt="x", base=flux, width=64, height=64)
    file = save_image(Image.new("RGB", (64, 64)), recipe, workspace.outputs)
    assert str(folders["flux-dev"].parent).encode() not in file.read_bytes()
    values, _, problems = generation.restored(workspace, file)
    assert values["base"] == flux and not problems
    base_models.forget(workspace, flux)
    values, _, problems = generation.restored(workspace, file)
    assert "base" not in values and "'flux-dev', which is not on the list" in problems[0]


def test_a_runs_settings_bring_its_base_by_name(workspace, folders, flux):
    from studio.training import new_run

    new_run(runs.config_of(workspace, {"dataset": "silhouette", "base": flux, "name": "one"}), workspace)
    assert runs.run_settings(workspace, "one")["base"] == flux
    base_models.forget(workspace, flux)
    assert runs.run_settings(workspace, "one")["base"] == ""


def test_captions_are_counted_as_the_chosen_base_reads_them(workspace, flux):
    assert base_models.counter(workspace).room == 75
    base_models.choose(workspace, flux)
    assert base_models.counter(workspace).room == 510  # of the tiny T5
    assert base_models.counter(workspace, "starter").room == 75
    line = base_models.line_of(workspace, flux)
    (workspace.root / "bases.json").write_text(json.dumps({"chosen": flux, "bases": {flux: line + "-gone"}}))
    assert base_models.counter(workspace).room == 75


def test_a_preset_of_another_family_fills_the_form(workspace, flux):
    from studio.web.train.form import shown_in
    from studio.web.train.values import defaults, typed

    values = defaults() | next(iter(runs.list_presets(workspace, flux).values())) | {"base": flux}
    form = SimpleNamespace(fields={key: key for key in values}, dataset="dataset")
    shown = shown_in(form, workspace, values)
    assert shown["base"]["value"] == flux and (flux, flux) in shown["base"]["choices"]
    assert shown["training.steps"] == 2000
    fields = [flux if key == "base" else shown[key] if isinstance(shown[key], str | int) else "" for key in values]
    assert runs.config_of(workspace, typed("silhouette", "", *fields)).training.gradient_checkpointing is True
