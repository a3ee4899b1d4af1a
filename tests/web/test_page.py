"""The page as a whole: what it is made of, without a browser."""

import inspect

import gradio as gr
import pytest

from studio.server.settings import Settings
from studio.web import i18n
from studio.web.app import build
from studio.web.train.scorecard_view import VIEWS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build(Settings(workspace=tmp_path_factory.mktemp("workspace"), browser=False))


def test_tabs_hold_tabs_alone(page):
    """A State or a Timer between two tabs makes Gradio show one tab's name on another."""
    strays = {
        tabs.elem_id: [child.get_block_name() for child in tabs.children if not isinstance(child, gr.Tab)]
        for tabs in page.blocks.values()
        if isinstance(tabs, gr.Tabs)
    }
    assert len(strays) == 4 and not any(strays.values()), strays


def test_every_element_id_is_used_once(page):
    names = [block.elem_id for block in page.blocks.values() if block.elem_id]
    assert len(names) > 200 and len(names) == len(set(names))


@pytest.fixture(scope="module")
def config(page):
    return page.get_config_file()


def ids(node) -> list[int]:
    return [node["id"], *(one for child in node.get("children", []) for one in ids(child))]


def test_browsers_receive_no_components_of_endpoints(page, config):
    received = config["page"][""]
    shown, everything = set(received["components"]), {one["id"] for one in config["components"]}
    assert set(ids(received["layout"])) == shown | {page._id} and set(ids(config["layout"])) == everything | {page._id}
    of_endpoints = {block._id for fn in page.fns.values() if fn.api_visibility == "public" for block in fn.inputs}
    assert len(everything - shown) > 200 and of_endpoints <= everything - shown
    # The panel "Use via API" and programs, who read the whole configuration, know all of them.
    public = {fn._id for fn in page.fns.values() if fn.api_visibility == "public"}
    assert len(public) > 60 and public <= set(received["dependencies"])
    assert len(page.get_api_info(page="")["named_endpoints"]) == len(public)


def test_events_of_the_page_name_what_browsers_receive(page, config):
    shown = set(config["page"][""]["components"]) | {page._id}
    for fn in page.fns.values():
        if fn.api_visibility != "public":
            named = {block._id for block in [*fn.inputs, *fn.outputs]} | {target for target, _ in fn.targets if target}
            assert named <= shown, fn


def test_what_does_not_show_stands_first_where_it_is_found_soonest(page, config):
    names = [page.blocks[one["id"]].get_block_name() for one in config["page"][""]["layout"]["children"]]
    first = [name in ("state", "timer") for name in names]
    assert 50 < sum(first) == first.index(False)


def test_no_part_is_exchanged_as_a_whole_which_the_index_of_components_would_not_notice(page):
    assert not page.renderables


@pytest.fixture
def spoken(page, config):
    page.config = config
    with i18n.speaking("de"):
        return page.config


def test_english_is_sent_as_it_is_and_german_replaces_texts_alone(page, config, spoken):
    assert page.config is config and config["i18n_translations"] is None
    english, german = ({one["id"]: one["props"] for one in sent["components"]} for sent in (config, spoken))
    changed = [key for key, props in english.items() if props != german[key]]
    assert len(changed) > 300 and {**spoken, "components": 0, "i18n_translations": 0, "js": 0} == {
        **config, "components": 0, "i18n_translations": 0, "js": 0
    }  # fmt: skip
    for key in changed:
        choices = [[choice[1] for choice in props[key].get("choices") or ()] for props in (english, german)]
        assert choices[0] == choices[1], "a setting's values are translated in no language"
    with i18n.speaking("de"):
        assert page.get_api_info(page="") == page.get_api_info(page="")
        assert "Trainingsschritte" not in str(page.get_api_info(page=""))


@pytest.mark.parametrize("code", list(i18n.languages()))
def test_every_text_is_translated_or_listed_as_missing(config, code):
    needed = {text for text, must in i18n.texts(config).items() if must}
    language, lacks = i18n.languages()[code], set(i18n.missing(i18n.texts(config), code))
    assert needed == (needed & {*language.texts, *language.same}) | lacks
    assert len(lacks) < len(needed) / 4, f"python -m studio.web.i18n --missing {code}"


def test_what_a_remedy_leads_to_is_a_part_of_the_dataset_tab(config):
    tabs = {one["props"]["id"] for one in config["components"] if one["type"] == "tabitem"}
    assert {name for name, _ in VIEWS.values()} <= tabs


def test_a_run_that_is_no_name_breaks_no_event(page, monkeypatch):
    """A browser may send anything as the run that is shown."""
    warnings: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: warnings.append(text))
    handlers = [fn.fn for fn in page.fns.values() if [block.elem_id for block in fn.inputs] == ["run"]]
    for handler in handlers:
        wants = inspect.signature(handler).parameters.values()
        clicks = {one.name: gr.SelectData(None, {"index": 0, "value": ""}) for one in wants if "event" in one.name}
        handler("../../other/runs/x", **clicks)
    assert len(handlers) > 10 and len(warnings) > 5
