"""The verdict and the scorecards as HTML: sentence, remedy, where it leads, and nothing before a measurement."""

from studio.training.events import Judged, Scored, Validation
from studio.training.reading import RunView
from studio.training.scorecard.of_run import from_event
from studio.training.setting_groups import LABELS
from studio.web.train.scorecard_view import scorecard


def view(**changes) -> RunView:
    card = Scored(
        60,
        {"likeness": [0.41, 0.1, 5.0], "room": [1.2, 0.0, 9.0], "memorized": [0.0, 0.0, 5.0]},
        [0.8, 1.0],
        [0.7, 0.72],
        seconds=12.0,
        encoder="<b>",
    )
    judged = Judged(60, "unfinished", 60, 0.8, "Take step 60 & more.", "More steps.", "training.steps", 0.09)
    validations = [Validation(60, 0.3, 0.5)]
    known = {"state": "finished", "scores": [from_event(card)], "judged": judged, "validations": validations}
    return RunView("run", **(known | changes))


def test_sentence_remedy_table_strengths_and_cost_are_shown():
    html = scorecard(view(), LABELS)
    for part in ("Take step 60 &amp; more.", "More steps.", "+41 %", "± 10", "0.8: −30 %", "12 s, 9 % of the run"):
        assert part in html
    assert 'data-go="setting|training-steps"' in html and f"{LABELS['training.steps']} →" in html
    assert "&lt;b&gt;" in html and "<b>Verdict</b>" in html


def test_a_remedy_about_images_leads_to_the_dataset():
    judged = Judged(60, "captions", 0, 1.0, "Not usable.", "Check the captions.", "dataset:edit")
    assert 'data-go="view|many"' in scorecard(view(judged=judged), LABELS)
    unknown = Judged(60, "captions", 0, 1.0, "Not usable.", "Hm.", 'x"><script>')
    assert "data-go" not in scorecard(view(judged=unknown), LABELS)


def test_nothing_is_said_before_a_measurement():
    assert scorecard(view(scores=[], judged=None, validations=[]), LABELS) == ""
    assert scorecard(view(state="running", scores=[], judged=None), LABELS) == ""
    assert "Verdict so far" in scorecard(view(state="running", judged=None), LABELS)


def test_the_badge_says_what_the_sentence_says_also_of_earlier_runs():
    earlier = Judged(60, "learned", 60, 1.0, "Take step 60: partly learned (+30 % likeness).")
    html = scorecard(view(judged=earlier), LABELS)
    assert "partly learned</span>" in html and ">learned</span>" not in html
