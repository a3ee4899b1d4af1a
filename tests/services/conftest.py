"""The starter is the small one: what images show does not matter here."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _small(small_starter) -> None:
    pass
