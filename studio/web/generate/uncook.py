"""Un-cook: an adapter that is too strong or over-fitted, with its blocks scaled. A part of the Measure tab."""

from html import escape

import gradio as gr

from studio.errors import GenerationError
from studio.services import evaluation, uncooking
from studio.text import duration, percent
from studio.web.components.fields import QUIET
from studio.web.components.heatmap import block_table
from studio.web.components.html import first_lines, note
from studio.web.generate.context import GenerateContext
from studio.web.train.run_job import RunJob

ABOUT = (
    "For an adapter that is too strong or over-fitted: scales of its block groups, and a rank, at which the loss on "
    "images that it has not learned from and the drift of other prompts are lowest together. The file stays as it is; "
    "what is found becomes a new one."
)
HEADS = ("Blocks", "Layers", "Scale", "Changes the weights by", "Afterwards")


class Uncook:
    """It is about the adapter of the Measure tab."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        self.adapter, self.against = context.measured
        with gr.Accordion("Un-cook", open=False, elem_id="uncook") as self.part:
            gr.HTML(note(ABOUT))
            self.job = RunJob("uncook", "Un-cook", self.found, "uncook-report")

    def wire(self) -> None:
        self.job.follow(self.adapter, self.start, [self.adapter, self.against, *self.context.inputs])
        self.part.expand(self.job.show, self.adapter, self.job.outputs, **QUIET)

    def start(self, key, against, *values):
        if not key:
            raise GenerationError("Un-cooking is about one adapter: add an adapter on the left first.")
        wanted = str(against or "")
        own = wanted in ("", evaluation.OWN, evaluation.NONE)
        dataset = "" if own else wanted.removeprefix(evaluation.SET)
        uncooking.uncook_adapter(self.workspace, key, dataset, self.context.base_name(values))

    def found(self, key):
        found = uncooking.found_of(key)
        return report_html(found) if found else ""


def report_html(found) -> str:
    """The sentence, the groups, both measures, and the block maps before and after."""
    pill = (
        '<span class="pill good">better</span>' if found.is_better else '<span class="pill quiet-pill">as it was</span>'
    )
    head = "".join(f"<th>{name}</th>" for name in HEADS)
    rows = "".join(
        f"<tr><th>{escape(row.name)}</th><td>{row.layers}</td><td>{row.scale:g}</td><td>{_share(row.before)}</td>"
        f"<td>{_share(row.after)}</td></tr>"
        for row in found.groups
    )
    losses = "".join(
        f"<tr><th>{title}</th><td>{percent(one.loss - 1)}</td><td>{100 * one.drift:.1f} %</td></tr>"
        for title, one in (("Before", found.before), ("After", found.after if found.is_better else found.before))
    )
    tables = (
        '<div class="wide"><table class="compared settings" aria-label="Block groups">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<div class="wide"><table class="compared settings" aria-label="Loss and drift"><thead><tr><th></th>'
        f"<th>Held-out loss against the base</th><th>Drift</th></tr></thead><tbody>{losses}</tbody></table></div>"
    )
    file = note(f"Written: {found.file}, an adapter of the library.") if found.file else ""
    maps = ""
    if found.maps and found.is_better:
        maps = "".join(
            f"<h4>{title}</h4>{block_table(one)}" for title, one in zip(("Before", "After"), found.maps) if one
        )
    judged = note(f"{found.judged} Measured in {duration(found.seconds)}.")
    return (
        f'<section class="finding verdict"><header><b>{escape(found.adapter)}</b> {pill}</header>'
        f'<p class="sentence">{escape(found.sentence)}</p>{file}{judged}{first_lines(found.notes)}</section>'
        f"{tables}{maps}"
    )


def _share(share: float) -> str:
    return f"{100 * share:.2g} %"


def build(context: GenerateContext) -> None:
    """Inside the Measure tab, below its fields."""
    Uncook(context).wire()
