"""Un-cooking as an operation: a file from elsewhere with a few images; what it refuses in a sentence."""

import shutil

import pytest
import torch

from studio.adapters import AdapterSpec, attach, read_adapter
from studio.basemodels import load_base
from studio.errors import DatasetError
from studio.services import uncooking
from studio.services.jobs import latest
from studio.workspace import ASSETS, Workspace
from tests.serving import end_jobs


@pytest.fixture
def space(tmp_path):
    """A workspace with a file from elsewhere whose last layer is far too strong, and six images."""
    latest.clear()
    space = Workspace.open(tmp_path)
    made = attach(load_base(shared=False).model, AdapterSpec(rank=2, alpha=2, targets="all"))
    chance = torch.Generator().manual_seed(0)
    for (_, path), layer, _ in made.items():
        for parameter in layer.parameters():
            size = 3.0 if path == "conv_out" else 0.01
            parameter.data = torch.randn(parameter.shape, generator=chance) * size
    made.save(space.adapters / "theirs.safetensors", metadata={"studio.trigger": "zsk"})
    images = sorted((ASSETS / "datasets" / "held-out" / "silhouette").glob("*.png"))[:6]
    folder = space.datasets / "few"
    folder.mkdir(parents=True)
    for image in images:
        shutil.copy(image, folder)
        shutil.copy(image.with_suffix(".txt"), folder)
    yield space
    end_jobs()


def test_a_file_from_elsewhere_is_uncooked_by_a_few_images(space):
    with pytest.raises(DatasetError, match="choose a dataset"):
        uncooking.uncook_adapter(space, {"file": "theirs.safetensors"})
    before = (space.adapters / "theirs.safetensors").read_bytes()
    job = uncooking.uncook_adapter(space, {"file": "theirs.safetensors"}, "few")
    job.wait()
    assert not job.error, job.error
    found = uncooking.uncooked(space)["found"]
    scales = {row["name"]: row["scale"] for row in found["groups"]}
    assert found["is_better"] and scales["the rest"] <= 0.25, found
    assert found["after"]["loss"] < found["before"]["loss"] and found["sentence"] == job.message
    made = read_adapter(space.adapters / found["file"])
    assert made.metadata["studio.trigger"] == "zsk" and "the rest × " in made.metadata["studio.uncooked"]
    assert (space.adapters / "theirs.safetensors").read_bytes() == before
    assert uncooking.found_of("file:theirs.safetensors").sentence == job.message
