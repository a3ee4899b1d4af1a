"""The poller passes on what is new, and nothing else."""

import gradio as gr

from studio.web.components.polling import SLOWEST, Poller, _ask, _shown

SKIP = gr.skip()


def test_a_watcher_without_news_costs_one_skip_whatever_its_outputs():
    names = [f"output {number}" for number in range(20)]
    assert _ask(lambda: dict.fromkeys(names, SKIP), (), names) == SKIP
    assert _ask(lambda: SKIP, (), names) == SKIP
    assert _ask(lambda: SKIP, (), ["one"]) == SKIP
    assert _ask(lambda: {}, (), ["one", "two"]) == SKIP


def test_news_come_in_the_order_of_the_outputs():
    assert _ask(lambda a, b: {"third": b, "first": a}, ("x", ["y"]), ["first", "second", "third"])[1] == [
        "x",
        SKIP,
        ["y"],
    ]
    assert _ask(lambda: gr.update(visible=True), (), ["one"])[1] == [gr.update(visible=True)]
    assert _ask(lambda: "x", (), ["one"])[1] == ["x"]
    assert _ask(lambda: ["a", "b"], (), ["one"])[1] == [["a", "b"]]


def test_several_outputs_are_answered_by_name_never_by_position(caplog):
    assert _ask(lambda: ["a", "b"], (), ["one", "two"]) == SKIP and "need a dict" in caplog.text


def test_the_same_answer_later_is_news_again():
    assert _ask(lambda: "x", (), ["one"]) != _ask(lambda: "x", (), ["one"])


def test_a_watcher_that_fails_does_not_silence_the_others(caplog):
    assert _ask(lambda: 1 / 0, (), ["one"]) == SKIP and "ZeroDivisionError" in caplog.text


def test_the_more_pages_are_open_the_more_slowly_each_asks_until_they_go():
    poller = Poller(most=1, seconds=2)
    assert [poller._pace(page, 0.0) for page in ("a", "b")] == [SKIP, SKIP]
    assert poller._pace("c", 0.5).value == 3 and poller._pace("d", 0.5).value == 4
    assert poller._pace("a", 2.0).value == 4
    assert poller._pace("a", 5.0) == SKIP
    for number in range(40):
        poller._pace(f"page {number}", 5.0)
    assert poller._pace("a", 5.0).value == SLOWEST
    assert poller._pace("a", 60.0).value == 2  # the others were closed


def test_one_output_receives_its_answer_and_several_a_list():
    assert _shown(_ask(lambda: "x", (), ["one"]), 1) == "x"
    assert _shown(_ask(lambda: {"one": "x"}, (), ["one", "two"]), 2) == ["x", SKIP]
    assert _shown(None, 1) == SKIP and _shown(None, 2) == [SKIP, SKIP]
