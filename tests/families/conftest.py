"""Each tiny family is made once and loaded once."""

import pytest

from studio.basemodels import load_base
from tests.families import tiny


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
