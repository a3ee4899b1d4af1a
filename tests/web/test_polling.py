"""The heartbeat passes on what is new, and nothing else."""

import gradio as gr

from studio.web.components.polling import SLOWEST, Beat, _asked

SKIP = gr.skip()


def test_a_watcher_with_nothing_new_costs_one_skip_whatever_its_outputs():
    assert _asked(lambda: [SKIP] * 20, (), [None] * 20) == SKIP
    assert _asked(lambda: SKIP, (), [None] * 20) == SKIP
    assert _asked(lambda: SKIP, (), [None]) == SKIP
    assert _asked(lambda: {}, (), [1, 2]) == SKIP


def test_what_is_new_comes_in_the_order_of_the_outputs():
    assert _asked(lambda a, b: [a, SKIP, b], ("x", ["y"]), [None] * 3)[1] == ["x", SKIP, ["y"]]
    assert _asked(lambda: gr.update(visible=True), (), [None])[1] == [gr.update(visible=True)]
    assert _asked(lambda: "x", (), [None])[1] == ["x"]
    assert _asked(lambda: ["a", "b"], (), [None])[1] == [["a", "b"]]
    assert _asked(lambda: {"second": 2}, (), ["first", "second"])[1] == [SKIP, 2]


def test_the_same_answer_later_is_news_again():
    assert _asked(lambda: "x", (), [None]) != _asked(lambda: "x", (), [None])


def test_a_watcher_that_fails_does_not_silence_the_others(caplog):
    assert _asked(lambda: 1 / 0, (), [None]) == SKIP and "ZeroDivisionError" in caplog.text


def test_the_more_pages_look_the_more_slowly_each_asks_until_they_go():
    beat = Beat(most=1, seconds=2)
    assert [beat._pace(page, 0.0) for page in ("a", "b")] == [SKIP, SKIP]
    assert beat._pace("c", 0.5).value == 3 and beat._pace("d", 0.5).value == 4
    assert beat._pace("a", 2.0).value == 4
    assert beat._pace("a", 5.0) == SKIP
    for number in range(40):
        beat._pace(f"page {number}", 5.0)
    assert beat._pace("a", 5.0).value == SLOWEST
    assert beat._pace("a", 60.0).value == 2  # the others were closed
