"""A quick run on the starter and the silhouettes, for every test of training."""

import pytest

from studio.workspace import ASSETS, Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def quick() -> dict:
    return {
        "data.folder": str(ASSETS / "datasets" / "silhouette"),
        "adapter.rank": 4,
        "adapter.targets": "attention",
        "training.steps": 6,
        "training.batch_size": 2,
        "training.checkpoint_every": 2,
        "preview.every": 0,
        "validation.every": 0,
    }
