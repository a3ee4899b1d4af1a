"""A run that names data and base, and nothing else, has its base's settings: from every face alike."""

import pytest
from PIL import Image

from studio.basemodels.defaults import PURPOSES, VARIANTS, variant_of
from studio.cli.main import main
from studio.datasets import open_dataset
from studio.errors import ConfigError
from studio.services import base_models, runs
from studio.services.preview_lines import suggest_prompts
from studio.training import config_from, config_from_toml, config_to_toml, train
from studio.training.config import dotted
from studio.training.defaults import config_for
from studio.training.events import Started
from studio.training.presets import PRESETS, preset
from studio.training.setting_groups import LABELS
from studio.web.train.values import as_shown, typed
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels import tiny

SDXL = {  # what trainers' presets for it agree on
    "adapter.rank": 32, "adapter.alpha": 16, "adapter.targets": "attention+feed-forward",
    "training.learning_rate": 1e-4, "training.steps": 2000, "training.batch_size": 1, "training.accumulation": 2,
    "training.gradient_checkpointing": True, "training.min_snr_gamma": 5, "training.warmup": 100,
    "preview.steps": 25, "preview.guidance": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("bases"), {}

    def folder(name, called=""):
        """The tiny base, under another name where one is given."""
        if name not in made:
            made[name] = tiny.save(name, root)
        if not called:
            return str(made[name])
        link = root / called
        if not link.exists():
            link.symlink_to(made[name])
        return str(link)

    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), color).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {color} wall")
    return folder


def settings_in(config, wanted) -> dict:
    given = dotted(config)
    return {key: given[key] for key in wanted}


@pytest.mark.parametrize(
    ("base", "called", "title"),
    [
        ("sd1", "", "SD 1.5"), ("sd1", "dreamshaper-lcm", "SD 1.5 distilled"), ("sdxl", "", "SDXL"),
        ("sdxl", "ponyDiffusionV6XL", "Pony"), ("sdxl", "Illustrious-XL-v1.0", "Illustrious"),
        ("sdxl", "noobaiXLNAIXL_epsilon", "NoobAI"), ("sdxl", "sdxl-lightning", "SDXL distilled"),
        ("sdxl", "noobai?prediction_type=v_prediction", "NoobAI v-prediction"),
        ("sdxl", "mine?prediction_type=v_prediction", "SDXL v-prediction"), ("sd3", "", "SD 3.5"),
        ("flux-dev", "", "FLUX.1 dev"), ("flux-schnell", "", "FLUX.1 schnell"), ("z-image", "", "Z-Image"),
        ("z-image", "Z-Image-Turbo", "Z-Image Turbo"),
    ],
)  # fmt: skip
def test_a_base_is_recognised(folders, base, called, title):
    name, _, options = called.partition("?")
    line = folders(base, name) + (f"?{options}" if options else "")
    assert variant_of(line).title == title


def test_the_starter_is_as_the_schema_has_it():
    assert config_for({"data.folder": "x"}) == config_from({"data.folder": "x"})


def test_a_run_on_sdxl_prints_and_keeps_its_settings(folders, data, tmp_path, capsys):
    """With no setting but data and base; from the command line, and in the run itself."""
    assert (
        main(["--workspace", str(tmp_path), "train", "--dry-run", "--data", str(data), "--base", folders("sdxl")]) == 0
    )
    printed = capsys.readouterr().out
    config = config_for({"data.folder": str(data), "base": folders("sdxl"), "name": "one"})
    assert settings_in(config, SDXL) == SDXL
    events = train(config, Workspace.open(tmp_path))
    setup = next(event for event in events if isinstance(event, Started)).setup
    events.close()
    for text in (printed, setup):
        assert "Defaults of SDXL: data.resolution 64, adapter.rank 32, adapter.alpha 16" in text
        assert "training.learning_rate 0.0001" in text and "training.gradient_checkpointing true" in text
    assert config_from_toml(tmp_path / "runs" / "one" / "run.toml") == config


@pytest.mark.parametrize("name", tiers.default(["sdxl", "flux-schnell", "z-image"]))
def test_page_endpoint_command_line_and_toml_take_the_same(folders, data, tmp_path, name):
    from studio.cli.training import _config

    workspace = Workspace.open(tmp_path / "workspace")
    data.rename(workspace.datasets / "mine")
    base = base_models.remember(workspace, folders(name))
    wanted = config_for({"data.folder": str(workspace.datasets / "mine"), "base": folders(name), "name": "mine"})
    usual = {key: value for key, value in variant_of(folders(name)).settings.items() if key != "preview.prompts"}
    assert settings_in(wanted, usual) == usual
    fields = dict.fromkeys(("steps", "rank", "learning_rate"))
    endpoint = runs.config_of(
        workspace, runs.settings_from("mine", "", {**fields, "prompts": "", "more": {"base": base}})
    )
    first = {**dotted(config_from({"data.folder": "x"})), **next(iter(runs.list_presets(workspace, base).values()))}
    first["preview.prompts"] = suggest_prompts(workspace, "mine", "", base)  # as it does when a dataset is chosen
    shown = [base if key == "base" else as_shown(key, first[key]) for key in LABELS]
    page = runs.config_of(workspace, typed("mine", "", *shown))
    command = _config("", str(workspace.datasets / "mine"), folders(name), "", "", {})
    short = tmp_path / "short.toml"
    short.write_text(f'base = "{folders(name)}"\nname = "mine"\n[data]\nfolder = "{workspace.datasets / "mine"}"\n')
    assert endpoint == page == command == _config(str(short), "", "", "", "", {}) == wanted


def test_a_file_that_the_studio_wrote_trains_as_it_says(folders, data, tmp_path):
    """TOML has no empty value: an alpha that is left out equals the rank there, whatever the base's default is."""
    from studio.cli.training import _config

    given = {"data.folder": str(data), "name": "mine", "base": folders("sdxl")}
    config = config_from(given | {"adapter.rank": 8, "training.min_snr_gamma": None})
    assert config != config_for(given | {"adapter.rank": 8})
    file = tmp_path / "run.toml"
    file.write_text(config_to_toml(config))
    assert _config(str(file), "", "", "", "", {}) == config
    assert _config(str(file), "", "", "", "", {"adapter.rank": 4}).adapter.alpha == config.adapter.alpha


def test_page_and_command_line_draw_with_the_same_numbers(folders, tmp_path):
    """The command line left the rescaling of the guidance out."""
    line = folders("sdxl", "noobai") + "?prediction_type=v_prediction"
    workspace = Workspace.open(tmp_path / "workspace")
    own = base_models.own_defaults(line)
    assert own["guidance_rescale"] == 0.7 and own["guidance"] == 5
    assert own.items() <= base_models.usual(workspace, base_models.remember(workspace, line)).items()


def test_what_is_said_wins_and_the_rest_goes_with_it(folders):
    base = {"data.folder": "x", "base": folders("sdxl")}
    config = config_for(base | {"unet_lr": 3e-4, "adapter.rank": 8, "training.steps": 40})
    assert (config.training.learning_rate, config.adapter.rank, config.adapter.alpha) == (3e-4, 8, 4)
    assert config.training.warmup == 4 and config.training.min_snr_gamma == 5
    assert config_for(base | {"training.optimizer": "prodigy"}).training.learning_rate == 1
    assert config_for(base | {"training.min_snr_gamma": 0}).training.min_snr_gamma == 0


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.title)
def test_a_preset_changes_only_what_it_is_about(variant):
    about = {
        "style": {"data.flip", "data.shuffle_tags"},
        "character": {"adapter.rank", "adapter.alpha", "training.steps", "data.caption_dropout"},
        "object": {"adapter.rank", "adapter.alpha", "training.steps", "data.caption_dropout"},
    }
    plain = dotted(config_from({"data.folder": "x", **variant.preset()}))
    for purpose in PURPOSES:
        changed = dotted(config_from({"data.folder": "x", **variant.preset(purpose)}))
        assert {key for key in plain if plain[key] != changed[key]} <= about[purpose]
        assert PRESETS[f"{variant.title}, {purpose}"] == variant.preset(purpose)


def test_a_preset_goes_by_its_purpose_or_an_older_name(folders):
    assert preset("style", folders("sdxl")) == PRESETS["SDXL, style"]
    assert preset("FLUX.1, character") == PRESETS["FLUX.1 dev, character"]
    assert preset("Pony")["training.steps"] == 2000
    for name in ("SDXL, sculpture", "SD 9, style", ""):
        with pytest.raises(ConfigError, match="There is no preset"):
            preset(name)


def test_the_form_changes_prompts_that_nobody_wrote(folders, tmp_path):
    workspace = Workspace.open(tmp_path)
    base = base_models.remember(workspace, folders("sdxl", "ponyDiffusionV6XL"))
    untouched = "\n".join(config_from({"data.folder": "x"}).preview.prompts)
    assert "score_9" in runs.prompts_for(workspace, base, untouched)
    assert runs.prompts_for(workspace, base, "zsk, a dog") is None
    assert runs.prompts_for(workspace, "starter", runs.prompts_for(workspace, base, "")) == untouched


def test_every_face_draws_as_its_base_does(folders, tmp_path, monkeypatch, capsys):
    """A distilled base drew in 20 steps with guidance by `generate`."""
    from studio.services import generation

    line, workspace = folders("sdxl", "sdxl-lightning"), Workspace.open(tmp_path / "workspace")
    name = base_models.remember(workspace, line)
    seen = []
    monkeypatch.setattr("studio.generation.generate_all", lambda recipe, **more: seen.append(recipe) or iter([]))
    assert main(["--workspace", str(workspace.root), "generate", "--prompt", "a cat", "--base", line]) == 0
    page = generation.compose(workspace, [], prompt="a cat", base=name, steps="", guidance=None)
    empty = generation.RecipeFields(prompt="a cat", base=name)
    assert generation.composed(workspace, empty.model_dump()) == page == seen[0]
    assert (page.steps, page.guidance, page.width, page.height) == (8, 1, 64, 64)
    said = generation.compose(workspace, [], prompt="a cat", base=name, steps=3, guidance=0, width=128)
    assert (said.steps, said.guidance, said.width, said.height) == (3, 0, 128, 64)


def test_an_emptied_alpha_of_the_form_is_the_bases(folders, data, tmp_path):
    workspace = Workspace.open(tmp_path / "workspace")
    data.rename(workspace.datasets / "mine")
    base = base_models.remember(workspace, folders("sdxl"))
    first = {**dotted(config_from({"data.folder": "x"})), **next(iter(runs.list_presets(workspace, base).values()))}
    shown = [
        {"base": base, "adapter.rank": 8, "adapter.alpha": ""}.get(key, as_shown(key, first[key])) for key in LABELS
    ]
    assert runs.config_of(workspace, typed("mine", "", *shown)).adapter.alpha == 4


def test_previews_are_of_the_dataset_with_its_trigger_and_of_other_things(data):
    prompts = config_for({"data.folder": str(data), "data.trigger": "zsk"}).preview.prompts
    captions = {item.caption for item in open_dataset(data).items}
    assert len(prompts) == 4 and all(prompt.startswith("zsk, ") for prompt in prompts)
    assert {prompt.removeprefix("zsk, ") for prompt in prompts[:2]} <= captions
    assert config_for({"data.folder": str(data), "preview.prompts": ["mine"]}).preview.prompts == ["mine"]
