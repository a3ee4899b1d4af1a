"""What the page says about a run and a check: whole, in order, and nothing that a person made is read as HTML."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from studio.services.jobs import Job
from studio.training.events import ExportChecked, Judged, Step, Validation
from studio.training.runs import RunView
from studio.training.setting_groups import LABELS
from studio.training.verdict import BAND_NAMES
from studio.web.components import jobs_bar
from studio.web.train import run_html, views

EVIL = "<script>alert(1)</script>"
GOOD = Validation(5, 0.4, 0.5, 0.01)


def view(**values) -> RunView:
    return RunView(**{"name": "a", "state": "running", "step": 5, "steps": 10} | values)


def test_encoding_shows_how_far_it_is_and_only_while_it_goes_on():
    assert "Encoding images: 12 of 24" in run_html.run_card(view(preparing=(12, 24)), LABELS)
    assert "Encoding" not in run_html.run_card(view(preparing=(12, 24), state="interrupted"), LABELS)


def test_held_out_loss_of_a_run_that_goes_on_has_one_badge_and_each_noise_band():
    measured = Validation(5, 0.4, 0.5, 0.01, [0.4, 0.5, 0.6, 0.0], [0.5, 0.5, 0.5, 0.0], "plateau")
    run = view(validations=[Validation(0, 0.5, 0.5, verdict="learning"), measured])
    html = run_html.run_card(run, LABELS) + run_html.run_status(run)
    assert "−20 %" in html and html.count("plateau</span>") == 1 and "learning</span>" not in html
    assert all(name in html for name in BAND_NAMES) and html.count('class="band worse"') == 1


def test_export_check_memory_and_setup_are_told():
    last = Step(5, 0.5, 0.5, 1e-3, 2.0, 3.0, memory=1.25)
    checked = ExportChecked(5, 0.0, 0, "as trained")
    run = view(state="finished", last=last, steps_per_second=2.0, export_check=checked, setup="9 images")
    html = run_html.run_status(run) + run_html.run_notes(run)
    assert "as trained" in html and "9 images" in html and "1.2 GB" in html and "2.0 steps a second" in html


def test_numbers_have_their_place_before_they_are_known():
    before, after = view(steps=0), view(losses=[(1, 0.5, 0.5)], steps_per_second=1.0, validations=[GOOD])
    labels = [run_html.run_status(run, docked=True).count("<span>") for run in (before, after)]
    assert labels[0] == labels[1] and "step" not in run_html.run_status(before, docked=True).partition("speed")[0]


def test_a_run_of_another_process_has_its_own_progress_bar():
    assert 'role="progressbar"' in run_html.run_status(view()) and "5 of 10" in run_html.run_status(view())
    assert 'role="progressbar"' not in run_html.run_status(view(), docked=True)
    assert 'role="progressbar"' not in run_html.run_status(view(state="finished"))


@pytest.mark.parametrize(
    "state, part",
    [("failed", "out of memory"), ("interrupted", "step 5 of 10"), ("queued", "begins"), ("stopped", "memory")],
)
def test_how_a_run_ended_stands_on_top(state, part):
    assert part in run_html.run_card(view(state=state, message="out of memory"), LABELS)


def test_the_picked_step_is_the_one_that_numbers_and_chart_are_about():
    judged = Judged(10, "over-fitted", 5, 1.0, "Take step 5: learned.", "Fewer steps.", "training.steps")
    run = view(state="finished", step=10, validations=[GOOD, Validation(10, 0.6, 0.5)], judged=judged)
    assert run_html.best_step(run) == (5, "picked") and "validation, step 5" in run_html.run_status(run)
    assert run_html.best_step(view(validations=[GOOD])) == (5, "best so far")
    assert run_html.best_step(view()) == (0, "")


def test_warnings_stand_newest_first():
    html = run_html.warnings_list([(1, "first"), (2, "second")])
    assert "2 warnings" in html and html.index("second") < html.index("first")
    assert run_html.warnings_list([]) == ""


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
        run_html.run_status(view(name=EVIL)),
        run_html.run_card(view(state="failed", message=EVIL), LABELS),
        run_html.run_card(view(validations=[Validation(1, 1.0, 1.0, verdict=EVIL)]), LABELS),
        run_html.run_notes(view(state="finished", message=EVIL, setup=EVIL)),
        run_html.large_preview(Path("a.webp"), "000200-0", EVIL, 1.0),
        run_html.warnings_list([(1, EVIL)]),
        views.check_report(SimpleNamespace(state="done", result=report), {}),
        views.check_report(SimpleNamespace(state="running", title=EVIL), {}),
        views.why_not(SimpleNamespace(kind="caption", title=EVIL), None),
    ]
    assert all("<script" not in html and "&lt;script" in html for html in said)


def bar(**values) -> str:
    job = Job("train", "Training <ink>")
    job.done, job.total = 120, 200
    for name, value in values.items():
        setattr(job, name, value)
    return jobs_bar.shown([job], {str(id(job)): (0.0, 0)}, 60.0)


def test_the_docked_bar_says_step_share_time_left_and_what_is_waited_for():
    html = bar(pace=(2.0, 40.0))
    assert "step 120 of 200 · " in html and "60 % · 40 s left" in html and 'aria-valuenow="60"' in html
    assert "Training &lt;ink&gt;" in html and 'data-act="stop"' in html
    assert "120 of 200 · </span>waiting for an image" in bar(waits_for="an image")
    assert "paused at step 120 of 200" in bar(paused=True)
    assert "Encoding images: 3 of 9" in bar(done=0, message="Encoding images: 3 of 9")
    assert "2 are before you" in bar(ahead=2, message="2 are before you")


def test_a_bar_whose_job_stops_has_no_stop_button():
    job = Job("train", "Training")
    job.stop()
    html = jobs_bar.shown([job], {str(id(job)): (0.0, 0)}, 1.0)
    assert "stopping after this step" in html and "data-act" not in html
