"""Values that a browser keeps between two events."""

import pytest

from studio.web.components.fields import kept


@pytest.mark.parametrize("sent", [None, 7, "x", [7, {}, ["x"], "run:a"], {"a": 1}, []], ids=str)
def test_what_a_browser_sends_back_is_of_the_kind_that_it_was_given(sent):
    """A number among the keys of adapters, and a list in place of settings, met an exception."""
    assert kept([]).preprocess(sent) == (["run:a"] if isinstance(sent, list) and sent else [])
    assert kept({"a": 0}).preprocess(sent) == ({"a": 1} if isinstance(sent, dict) else {})
