"""Which words of the captions carry what a run learned. A closed part below a run."""

from html import escape

import gradio as gr

from studio.services import caption_words
from studio.services.operations import OPERATIONS
from studio.text import duration
from studio.training.setting_groups import LABELS
from studio.web.components.fields import QUIET, field_for
from studio.web.components.html import first_lines, note
from studio.web.train.context import TrainContext
from studio.web.train.run_job import RunJob
from studio.web.train.scorecard_view import GO_JS, remedy_button

ABOUT = (
    "Each tag or word of the captions is dropped in turn. The loss on images that have it, with and without the "
    "adapter, at the same timesteps and noise, says how much of what was learned needs it."
)
HEADS = ("Word", "Captions", "Images measured", "Loss with the adapter", "Without the word", "It carries")
PILLS = {"holds": "good", "second trigger": "bad", "misfit": "bad"}


class CaptionWords:
    """The part, in the column of the run that is shown."""

    def __init__(self, context: TrainContext):
        self.workspace, self.run = context.workspace, context.run
        with gr.Accordion("Caption words", open=False, elem_id="caption-words") as self.part:
            gr.HTML(note(ABOUT))
            schema = OPERATIONS["measure_words"].model
            with gr.Row():
                self.words = field_for("words", schema=schema, elem_id="words-count")
                self.images = field_for("images", "Images a word", schema, elem_id="words-images")
            self.job = RunJob("words", "Measure words", self.measured, "words-report", GO_JS)

    def wire(self) -> None:
        self.job.follow(self.run, self.start, [self.run, self.words, self.images])
        self.part.expand(self.job.show, self.run, self.job.outputs, **QUIET)
        self.run.change(lambda: gr.update(open=False), None, self.part, **QUIET)

    def start(self, name, words, images):
        caption_words.measure_words(self.workspace, name or "", words, images)

    def measured(self, name):
        return report_html(caption_words.words_of(self.workspace, name))


def report_html(report) -> str:
    """A WordReport: its sentences with what helps, then all that was measured as a table. "" for none."""
    if report is None:
        return ""
    findings = "".join(_finding(one) for one in report.findings)
    if not findings:
        findings = note("No word stands out: what was learned needs none of those measured.")
    lines = first_lines([*report.left_out, *report.notes])
    cost = note(
        f"Of step {report.step:,}, {report.draws} timesteps an image, measured in {duration(report.seconds)}. "
        "± is the standard error over images."
    )
    return f"{findings}{_table(report)}{lines}{cost}"


def _finding(one) -> str:
    pill = f'<span class="pill {PILLS.get(one.kind, "quiet-pill")}">{escape(one.kind)}</span>'
    remedy = f'<div class="note">{escape(one.remedy)} {remedy_button(one.link, LABELS)}</div>' if one.remedy else ""
    return (
        f'<section class="finding verdict"><header><b>{escape(one.word)}</b> {pill}</header>'
        f'<p class="sentence">{escape(one.sentence)}</p>{remedy}</section>'
    )


def _table(report) -> str:
    from studio.training.caption_words.effects import row_of

    head = "".join(f"<th>{name}</th>" for name in HEADS)
    rows = ""
    for one in sorted(report.effects, key=lambda one: (not one.is_trigger, -one.carried.value)):
        word = escape(one.word) + (" <small>trigger</small>" if one.is_trigger else "")
        rows += f"<tr><th>{word}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row_of(one))}</tr>"
    return (
        '<div class="wide"><table class="compared settings" aria-label="Caption words">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def build(context: TrainContext) -> None:
    CaptionWords(context).wire()
