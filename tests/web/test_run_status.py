"""What the page says about a run and a check: whole, in order, and nothing that a person made is read as HTML."""

from types import SimpleNamespace

from studio.training.events import ExportChecked, Step, Validation
from studio.training.runs import RunView
from studio.training.verdict import BAND_NAMES
from studio.web.train import views

EVIL = "<script>alert(1)</script>"


def view(**values) -> RunView:
    return RunView(**{"name": "a", "state": "running", "step": 5, "steps": 10} | values)


def test_encoding_shows_how_far_it_is_and_only_while_it_goes_on():
    assert "Encoding images: 12 of 24" in views.run_status(view(preparing=(12, 24)))
    assert "Encoding" not in views.run_status(view(preparing=(12, 24), state="interrupted"))


def test_held_out_loss_carries_the_newest_verdict_and_each_noise_band():
    look = Validation(5, 0.4, 0.5, 0.01, [0.4, 0.5, 0.6, 0.0], [0.5, 0.5, 0.5, 0.0], "plateau")
    html = views.run_status(view(validations=[Validation(0, 0.5, 0.5, verdict="learning"), look]))
    assert "−20 %" in html and "plateau</i>" in html and "learning</i>" not in html
    assert all(name in html for name in BAND_NAMES) and html.count('class="band worse"') == 1


def test_export_check_memory_and_setup_are_told():
    last = Step(5, 0.5, 0.5, 1e-3, 2.0, 3.0, memory=1.25)
    html = views.run_status(
        view(
            state="finished",
            last=last,
            steps_per_second=2.0,
            export_check=ExportChecked(5, 0.0, 0, "as trained"),
            setup="9 images",
        )
    )
    assert "as trained" in html and "9 images" in html and "1.2 GB" in html and "2.0 steps a second" in html


def test_warnings_stand_newest_first():
    html = views.warnings_list([(1, "first"), (2, "second")])
    assert "2 warnings" in html and html.index("second") < html.index("first")
    assert views.warnings_list([]) == ""


def test_a_check_tells_findings_in_words_time_memory_and_the_proposal():
    finding = SimpleNamespace(level="stop", message="does not fit")
    report = SimpleNamespace(
        findings=[finding],
        ready=False,
        step_seconds=0.5,
        preview_seconds=0.0,
        memory=1.0,
        available=8.0,
        total_seconds=120,
        proposal={"training.batch_size": 2, "training.gradient_checkpointing": True},
    )
    html = views.check_report(SimpleNamespace(state="done", result=report), {"training.batch_size": "Batch size"})
    for part in ("Not ready", "✗ Would fail</span> does not fit", "0.50 s", "1.0 of 8 GB", "2 min"):
        assert part in html
    assert "Batch size: <b>2</b>" in html and "<b>on</b>" in html
    failed = views.check_report(SimpleNamespace(state="failed", result=None, error="no images"), {})
    assert "Not ready" in failed and "no images" in failed


def test_nothing_that_a_person_made_is_html():
    report = SimpleNamespace(
        findings=[SimpleNamespace(level="warn", message=EVIL)], ready=True, step_seconds=0, proposal={EVIL: EVIL}
    )
    said = [
        views.run_status(view(name=EVIL, state="failed", message=EVIL, setup=EVIL)),
        views.run_status(view(validations=[Validation(1, 1.0, 1.0, verdict=EVIL)])),
        views.warnings_list([(1, EVIL)]),
        views.check_report(SimpleNamespace(state="done", result=report), {}),
        views.check_report(SimpleNamespace(state="running", title=EVIL), {}),
        views.why_not(SimpleNamespace(kind="caption", title=EVIL), None),
    ]
    assert all("<script" not in html and "&lt;script" in html for html in said)
