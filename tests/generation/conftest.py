"""Images of the small starter, except where a test says otherwise."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _small(small_starter) -> None:
    pass
