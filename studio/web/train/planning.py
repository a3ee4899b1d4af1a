"""Plan for me: minutes and memory in, or nothing; settings with a reason for each out, and one click that uses them."""

from html import escape

import gradio as gr

from studio.services import planning
from studio.services.operations import OPERATIONS
from studio.training.setting_groups import LABELS
from studio.web.components.fields import QUIET, field_for
from studio.web.components.html import first_lines, note
from studio.web.train.context import TrainContext
from studio.web.train.form import shown_in
from studio.web.train.run_job import RunJob
from studio.web.train.values import typed

ABOUT = (
    "A few real steps say what fits into memory, which learning rate and how many steps. What you changed from the "
    "preset stays. Nothing is started."
)


class PlanForMe:
    """A closed part between the form and its buttons."""

    def __init__(self, context: TrainContext):
        self.context, self.workspace = context, context.workspace
        schema = OPERATIONS["plan_training"].model
        with gr.Accordion("Plan for me", open=False, elem_id="plan") as self.part:
            gr.HTML(note(ABOUT))
            with gr.Row(elem_classes="aligned"):
                self.minutes = field_for("minutes", "Minutes", schema, elem_id="plan-minutes", min_width=130)
                self.memory = field_for("memory", "Memory, GB", schema, elem_id="plan-memory", min_width=130)
            self.until = field_for("until_right", "Until it is right", schema, elem_id="plan-until")
            self.job = RunJob("plan", "Plan for me", self.planned, "plan-report")
            self.use = gr.Button("Use these", size="md", visible=False, elem_id="use-plan")
        self.outputs = [*self.job.outputs, self.use]

    def wire(self) -> None:
        form = self.context.form
        given = [self.minutes, self.memory, self.until, form.panel.standard, *form.inputs]
        self.job.follow(form.dataset, self.start, given)
        gr.on([self.part.expand, self.job.report.change], self.offer, form.dataset, self.use, **QUIET)
        self.part.expand(self.job.show, form.dataset, self.job.outputs, **QUIET)
        used = self.use.click(self.use_plan, form.dataset, [*form.fields.values(), self.use], **QUIET)
        form.panel.mark_after(used)

    def start(self, minutes, memory, until, standard, *values):
        given = typed(*values)
        planning.plan_training(
            self.workspace,
            given.get("dataset") or "",
            minutes=minutes,
            memory=memory,
            until_right=until,
            values=given,
            standard=standard,
        )

    def planned(self, dataset):
        found = planning.plan_about(dataset)
        return plan_html(found) if found else ""

    def offer(self, dataset):
        return gr.update(visible=planning.plan_about(dataset or "") is not None)

    def use_plan(self, dataset):
        found = planning.plan_about(dataset or "")
        settings = found.settings if found else {}
        return shown_in(self.context.form, self.workspace, settings) | {self.use: gr.update(visible=False)}


def plan_html(plan) -> str:
    """The table of a plan, with what is predicted of it."""
    rows = "".join(
        f"<tr><th>{escape(LABELS.get(row.setting, row.setting))}</th><td><b>{escape(_shown(row.value))}</b></td>"
        f"<td>{escape(row.reason)}</td></tr>"
        for row in plan.rows
    )
    table = (
        '<div class="wide"><table class="compared settings" style="table-layout:auto" aria-label="Plan">'
        f"<thead><tr><th>Setting</th><th>Value</th><th>Why</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return f'<p class="sentence">{escape(plan.sentence)}</p>{first_lines(plan.notes, bad=True)}{table}'


def _shown(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def build(context: TrainContext) -> None:
    """Inside the form's column, above its buttons. The form is built before it."""
    PlanForMe(context).wire()
