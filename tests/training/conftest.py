"""A quick run on the starter and the silhouettes, for every test of training."""

import pytest

from studio.workspace import ASSETS, Workspace


@pytest.fixture(autouse=True)
def _quick(quick_export_check) -> None:
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
