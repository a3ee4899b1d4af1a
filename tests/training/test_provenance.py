"""What a run was made of stands in its folder, and a run that goes on with other things says so."""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from safetensors import safe_open

from studio.basemodels.weights import weights_hash
from studio.errors import RunError
from studio.training import config_from, train
from studio.training.events import Warned
from studio.workspace import ASSETS


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_versions_and_hashes_of_base_data_and_adapter_are_in_every_run(workspace, quick, tiny_base, tmp_path):
    data = tmp_path / "mine"
    shutil.copytree(ASSETS / "datasets" / "silhouette", data)
    settings = quick | {"data.folder": str(data), "training.steps": 2}
    told = list(train(config_from(settings | {"name": "one"}), workspace))
    assert not [event for event in told if isinstance(event, Warned) and "began with" in event.message]
    folder = workspace.runs / "one"
    one = json.loads((folder / "made_of.json").read_text())
    assert one["versions"]["torch"] == version("torch") and "studio" in one["versions"]
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert one["base"][unet] == sha256(tiny_base / unet)
    assert one["adapter"] == sha256(folder / "adapter.safetensors")
    assert one["image_count"] == 24 and one["weights"] == weights_hash(tiny_base)
    with safe_open(folder / "adapter.safetensors", "pt") as file:
        assert file.metadata()["studio.base_hash"] == one["weights"]

    for _ in train(config_from(settings | {"name": "two"}), workspace):
        pass
    two = json.loads((workspace.runs / "two" / "made_of.json").read_text())
    assert two["data"] == one["data"] and two["adapter"] != ""

    later = settings | {"name": "one", "training.steps": 3}
    of_now = (folder / "made_of.json").read_text()
    for other in (one | {"weights": "0" * 64}, {"base": one["base"] | {unet: "0" * 64}}):  # the second: of release 0.1
        (folder / "made_of.json").write_text(json.dumps(other))
        with pytest.raises(RunError, match="began on other weights of sd1"):
            list(train(config_from(later), workspace, folder=folder))
    (folder / "made_of.json").write_text(of_now)

    caption = next(data.glob("*.txt"))
    caption.write_text("something else")
    more = config_from(settings | {"name": "one", "training.steps": 3})
    warned = [event.message for event in train(more, workspace, folder=folder) if isinstance(event, Warned)]
    assert [line for line in warned if line.startswith("The images or their captions are not those")]
    assert json.loads((folder / "made_of.json").read_text())["adapter"] == sha256(folder / "adapter.safetensors")
