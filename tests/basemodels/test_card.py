"""What a base is, told before it is loaded, is what the loaded one says of itself."""

import json
import shutil

import pytest
from PIL import Image

from studio.basemodels import load_base
from studio.basemodels.card import describe_base
from studio.basemodels.vram import estimate
from studio.cli import main
from studio.services import diagnostics
from studio.training import config_from, train
from studio.training.events import Started
from studio.training.preflight import preflight
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels.test_training import settings
from tests.basemodels.tiny import MAKERS


@pytest.mark.parametrize("name", tiers.default(MAKERS, "sd1", "flux-dev"))
def test_a_card_says_what_the_loaded_base_says(bases, folders, name):
    base, card = bases(name), describe_base(str(folders(name)))
    assert card.title == base.title and not card.chosen
    assert (card.prediction_type, card.resolution) == (base.prediction_type, base.resolution)
    assert card.size == estimate(folders(name))


def test_the_starter_has_a_card():
    card, base = describe_base("starter"), load_base("starter")
    assert (card.prediction_type, card.resolution) == (base.prediction_type, base.resolution)


def test_the_command_draws_at_the_bases_own_size(folders, tmp_path, capsys):
    base, out = f"{folders('sd1')}?resolution=64", tmp_path / "image.png"
    assert main.main(["generate", "--prompt", "x", "--steps", "1", "--base", base, "--out", str(out)]) == main.DONE
    with Image.open(out) as image:
        assert image.size == (64, 64)


def test_a_card_says_what_was_chosen_otherwise(folders):
    card = describe_base(f"{folders('sd1')}?prediction_type=v_prediction&resolution=768&quantise=8bit&offload=true")
    assert (card.prediction_type, card.resolution) == ("v_prediction", 768)
    assert "prediction_type, resolution: as you chose" in str(card)
    assert "in 8 bits" in card.placement and "block by block" in card.placement
    assert card.size.gigabytes < describe_base(str(folders("sd1"))).size.gigabytes


def test_a_second_copy_of_the_weights_is_not_counted_and_a_lone_one_is(folders, tmp_path):
    folder = tmp_path / "sd1"
    shutil.copytree(folders("sd1"), folder)
    whole = estimate(folder).parameters
    for file in list(folder.rglob("*.safetensors")):
        shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    assert estimate(folder).parameters == whole
    for file in folder.rglob("*.safetensors"):
        if "fp16" not in file.name:
            file.unlink()
    assert estimate(folder).parameters == whole
    assert load_base(str(folder), shared=False).modules()


def test_the_command_prints_the_card(capsys, folders):
    assert main.main(["base", str(folders("flux-dev"))]) == main.DONE
    assert "FLUX.1, flow matching, 64 pixels" in capsys.readouterr().out
    assert main.main(["base", str(folders("sd2-v")), "--json"]) == main.DONE
    assert json.loads(capsys.readouterr().out)["prediction_type"] == "v_prediction"
    assert main.main(["base", "art/unknown"]) == main.USER
    assert "--download" in capsys.readouterr().err


def test_a_run_its_check_and_the_doctor_say_where_the_base_is(folders, image, tmp_path):
    config = config_from(settings(folders("sd1"), image, **{"training.steps": 1, "training.warmup": 0}))
    started = next(e for e in train(config, Workspace.open(tmp_path)) if isinstance(e, Started))
    assert "in fp32" in started.setup and "M parameters" in started.setup
    report = preflight(config, Workspace.open(tmp_path))
    assert any(found.level == "note" and "M parameters" in found.message for found in report.findings)
    assert "bases      On " in diagnostics.report(diagnostics.examine(tmp_path))
