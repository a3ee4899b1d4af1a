"""A quick run on a tiny base and the silhouettes, for every test of training."""

from pathlib import Path

import pytest

from studio.workspace import ASSETS, Workspace
from tests.basemodels import tiny


@pytest.fixture(autouse=True)
def _quick(quick_export_check, small_starter) -> None:
    pass


@pytest.fixture
def whole_export_check(monkeypatch) -> None:
    """As outside of tests."""
    from studio.adapters import attach_file
    from studio.basemodels import load_base
    from studio.training import export_check

    for name, value in {"STEPS": 8, "load_base": load_base, "attach_file": attach_file}.items():
        monkeypatch.setattr(export_check, name, value)


@pytest.fixture(scope="session")
def encoded(tmp_path_factory):
    """What has been encoded once is shared by all tests: it is keyed by content."""
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture
def workspace(tmp_path, encoded) -> Workspace:
    found = Workspace.open(tmp_path)
    (found.cache / "encoded").symlink_to(encoded)
    return found


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A Stable Diffusion 1 of random weights: a step of it takes a tenth of a step of the starter."""
    return tiny.save("sd1", tmp_path_factory.mktemp("base"))


@pytest.fixture
def quick(tiny_base) -> dict:
    return {
        "base": str(tiny_base),
        "data.folder": str(ASSETS / "datasets" / "silhouette"),
        "adapter.rank": 4,
        "adapter.targets": "attention",
        "training.steps": 6,
        "training.batch_size": 2,
        "training.checkpoint_every": 2,
        "preview.every": 0,
        "validation.every": 0,
    }
