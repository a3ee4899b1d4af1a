"""Which language a page is sent in, and which of its texts are replaced."""

import re

import pytest

from studio.web import i18n


@pytest.mark.parametrize(
    "headers, code",
    [
        ({}, "en"),
        ({"accept-language": "de-AT,en;q=0.5"}, "de"),
        ({"accept-language": "fr, en;q=0.8, de;q=0.4"}, "en"),
        ({"accept-language": "en;q=0.4, de;q=0.6"}, "de"),
        ({"accept-language": "xx;q=no, ;;, *"}, "en"),
        ({"accept-language": "de", "cookie": "studio_language=en"}, "en"),
        ({"cookie": "a=b; studio_language=de"}, "de"),
        ({"accept-language": "de", "cookie": "studio_language=../../etc"}, "de"),
        ({"accept-language": "de", "cookie": "\x00;="}, "de"),
    ],
)
def test_the_language_follows_choice_then_browser(headers, code):
    assert i18n.wanted(headers) == code


def shout(text: str, needed: bool) -> str:
    return text.upper()


@pytest.mark.parametrize(
    "kind, props, said",
    [
        ("number", {"label": "Rank", "info": "Capacity (from 1 to 256)."}, {"label": "RANK", "info": "CAPACITY"}),
        ("button", {"value": "Start →"}, {"value": "START →"}),
        (
            "textbox",
            {"value": "a prompt", "placeholder": "red apple"},
            {"value": "a prompt", "placeholder": "RED APPLE"},
        ),
        ("markdown", {"value": "### This machine\n\ntwo"}, {"value": "### THIS MACHINE\n\nTWO"}),
        (
            "dropdown",
            {"choices": [("All images", "all"), ("huber", "huber")]},
            {"choices": [("ALL IMAGES", "all"), ("HUBER", "huber")]},
        ),
        (
            "html",
            {"value": '<b class="x">One &amp; two</b> <code>pip x</code><img alt="A dog" src="a.png"> 3'},
            {"value": '<b class="x">ONE &amp; TWO</b> <code>pip x</code><img alt="A dog" src="a.png"> 3'},
        ),
    ],
)
def test_texts_are_replaced_and_nothing_else(kind, props, said):
    before = dict(props)
    found = i18n.said(kind, props, shout)
    assert all(found[key].startswith(value) if key == "info" else found[key] == value for key, value in said.items())
    assert props == before


def test_a_range_is_a_text_of_its_own():
    table = {"Capacity.": "Kapazität.", " (from {} to {})": " (von {} bis {})"}
    found = i18n.said("number", {"info": "Capacity (from 1 to 256)."}, lambda text, needed: table.get(text, text))
    assert found["info"] == "Kapazität (von 1 bis 256)."


@pytest.mark.parametrize("code", list(i18n.languages()))
def test_a_language_can_be_read_again(code):
    """No text of it is English for another one, which the page's script would then replace once more."""
    texts = i18n.languages()[code].texts
    assert not [text for text in texts.values() if texts.get(text, text) != text]
    assert all(re.findall("{}", text) == re.findall("{}", english) for english, text in texts.items())
    assert not [text for text in texts.values() if not text.strip() or "<" in text]
