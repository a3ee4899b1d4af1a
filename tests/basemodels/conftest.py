"""Each tiny family is made once and loaded once; all learn the same image."""

import pytest
from PIL import Image

from studio.basemodels import load_base
from tests.basemodels import tiny


@pytest.fixture(autouse=True)
def _quick(quick_export_check) -> None:
    pass


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """folder(name): where the tiny model of a family lies."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(name):
        if name not in made:
            made[name] = tiny.save(name, root)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def bases(folders):
    """base(name): the family, loaded; nobody leaves an adapter on it."""
    loaded = {}

    def base(name):
        if name not in loaded:
            loaded[name] = load_base(str(folders(name)), shared=False)
        return loaded[name]

    return base


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """A folder of one image."""
    folder = tmp_path_factory.mktemp("image")
    Image.radial_gradient("L").convert("RGB").save(folder / "one.png")
    (folder / "one.txt").write_text("red apple")
    return folder
