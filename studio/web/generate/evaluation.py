"""What an adapter does at each strength, in numbers and images. A part of the Generate tab."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from studio.errors import GenerationError
from studio.services import evaluation, generation
from studio.services.evaluation import MOST_SEEDS, OWN
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import thumbnail
from studio.text import pluralize
from studio.web.components.clickable import clickable_html, clicked, image_link
from studio.web.components.fields import QUIET, encoder_fields
from studio.web.components.html import empty, note, progress_bar
from studio.web.components.strength_chart import strength_chart
from studio.web.errors import show_errors
from studio.web.generate import uncook
from studio.web.generate.context import GenerateContext
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.generation.evaluation import Measured, SweepScores

NOTHING = empty(
    "Nothing measured yet",
    "Add an adapter, write a prompt and press Measure: images at strengths from 0 to 1.5 are generated with a few "
    "seeds, and an image encoder compares them.",
)
MEANINGS = (
    ("prompt", "Similarity to the prompt", "train"),
    ("likeness", "Similarity to the training set", "held"),
    ("nearest", "Nearest training image", "near"),
)
EXPLAINED = (
    "All numbers are cosine similarities of an image encoder: 1 is the same, 0 has nothing in common; compare them "
    "only with each other. Similarity to the prompt, without the trigger word, tells whether the images still show "
    "what you ask for: where it falls, the adapter overrides the prompt. Similarity to the training set is the mean "
    "over its images: how much of the style or the subject has been learned. The nearest training image is shown with "
    "each image: above the dashed line an image is nearer to it than training images are to each other, a sign of "
    "memorization. Bands show the spread over the seeds. "
)


class Evaluation:
    """The sub-tab. timer: ticks while something is measured."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Measure", id="measures", elem_id="tab-measures"):
            self.seen, self.timer = gr.State(None), gr.Timer(1, active=False)
            with gr.Row(equal_height=False, elem_classes="low"):
                self.adapter = gr.Dropdown(
                    label="Adapter",
                    choices=[],
                    value=None,
                    interactive=True,
                    elem_id="measure-adapter",
                    min_width=190,
                    scale=3,
                )
                self.against = gr.Dropdown(
                    evaluation.training_sets(self.workspace),
                    value=OWN,
                    label="Training set",
                    elem_id="measure-dataset",
                    min_width=150,
                    scale=2,
                    allow_custom_value=False,
                )
                self.seeds = gr.Number(
                    label="Seeds",
                    value=3,
                    precision=0,
                    minimum=1,
                    maximum=MOST_SEEDS,
                    elem_id="measure-seeds",
                    min_width=80,
                )
                self.measure = gr.Button("Measure", variant="primary", elem_id="measure", min_width=110)
                self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-measure", min_width=110)
            self.encoder, self.download = encoder_fields(self.workspace, "measure")
            self.progress = gr.HTML(elem_id="measure-progress")
            self.result = clickable_html("measured", NOTHING)
            context.measured = (self.adapter, self.against)
            uncook.build(context)

    def wire(self) -> None:
        context, adapter = self.context, self.adapter
        context.keys.change(self.offer_adapters, [context.keys, adapter], adapter, **QUIET)
        adapter.focus(self.offer_adapters, [context.keys, adapter], adapter, **QUIET)
        self.against.focus(self.offer_datasets, None, self.against, **QUIET)
        inputs = [adapter, self.against, self.seeds, self.encoder, self.download, *context.inputs]
        self.measure.click(self.start, inputs, [self.progress, self.timer], **QUIET)
        self.stop.click(halt, None, None, **QUIET)
        self.result.click(chosen_image, None, context.taken, **QUIET)
        watched = [self.seen, self.progress, self.result, self.measure, self.stop, self.timer]
        for event in (self.timer.tick, context.demo.load):
            event(self.watch, self.seen, watched, concurrency_limit=None, **QUIET)

    def offer_adapters(self, keys, chosen):
        """The adapters that have a row, and the first of them unless another one is chosen."""
        names = {key: label for label, key in generation.available_adapters(self.workspace)}
        here = [(names.get(key, key), key) for key in keys or [] if key]
        value = chosen if chosen in [key for _, key in here] else next((key for _, key in here), None)
        return gr.update(choices=here, value=value)

    def offer_datasets(self):
        return gr.update(choices=evaluation.training_sets(self.workspace))

    @show_errors
    def start(self, key, set_key, count, clip, fetch, *values):
        recipe = self.context.recipe(*values)
        if not key:
            raise GenerationError("Measuring is about one adapter: add an adapter on the left first.")
        evaluation.start_measuring(
            self.workspace, recipe, str(key), str(set_key or OWN), int(count or 0), str(clip or ""), bool(fetch)
        )
        return {self.progress: note("Starting."), self.timer: gr.Timer(active=True)}

    def watch(self, last):
        """Each second of a job: how far it is, and what was measured so far."""
        newest = latest.get("measure")
        job = newest.job if newest else None
        sweeps = len(job.result.sweeps) if job and job.result else 0
        state = [id(job), job.state, job.done, job.message, sweeps] if job else ["nothing runs"]
        if state == last:
            return gr.skip()
        active = job is not None and job.state == "running"
        line = ""
        if job and active:
            line = progress_bar(job.done, job.total) + note(job.message)
        elif job and job.error:
            line = note(job.error, bad=True)
        elif job and job.state == "stopped":
            line = note(job.message if job.message.startswith("Stopped") else "Stopped.")
        renewed = not last or [last[0], last[-1]] != [state[0], state[-1]]
        found = evaluation.newest(self.workspace) if renewed else None
        updates = {
            self.seen: state,
            self.progress: line,
            self.stop: gr.update(visible=active),
            self.measure: gr.update(visible=not active),
            self.timer: gr.Timer(active=active),
        }
        return updates | ({self.result: shown(self.workspace, found)} if found else {})


def build(context: GenerateContext) -> Evaluation:
    """The sub-tab. Form and rows are built before it."""
    part = Evaluation(context)
    part.wire()
    return part


def halt():
    stop_job("measure")


@show_errors
def chosen_image(event: gr.EventData):
    """The image whose recipe the form shall take."""
    act, name, _ = clicked(event)
    return checked_name(name, "image") if act == "recipe" else gr.skip()


# What is shown ------------------------------------------------------------------------------------------------------


def shown(workspace: Workspace, found: "Measured") -> str:
    """HTML of what was measured: a sentence, the charts, the images with their numbers, and what they mean."""
    from studio.generation.evaluation import RULE

    suggestion = found.suggestion()
    shaded = (suggestion.low, suggestion.high) if suggestion.low is not None and suggestion.high is not None else None
    marks = {
        "likeness": (found.alike, "within the dataset itself"),
        "nearest": (found.usual, "nearest within the dataset"),
    }
    charts = "".join(
        strength_chart(
            title, colour, found.strengths, curve, shaded, (mark[0], mark[1]) if mark and mark[0] is not None else None
        )
        for measure, title, colour in MEANINGS
        if (curve := found.curve(measure))
        for mark in [marks.get(measure)]
    )
    many = pluralize(found.compared, "image")
    compared = f"compared with {many} of {found.dataset}" if found.dataset else "no training set"
    about = (
        f"{found.adapter} · “{found.prompt if len(found.prompt) <= 90 else found.prompt[:89] + '…'}” · "
        f"{pluralize(len(found.sweeps), 'seed')} · {compared} · image encoder: {found.encoder}"
    )
    return (
        f'<div class="suggested"><span>{"A trade-off" if suggestion.trade else "Suggested strength"}</span>'
        f"<b>{_range(suggestion.low, suggestion.high)}</b><p>{escape(suggestion.words)}</p></div>"
        f'<div class="note">{escape(about)}</div><div class="plots">{charts}</div>'
        f'<div class="sweeps">{"".join(_sweep(workspace, found, sweep) for sweep in found.sweeps)}</div>'
        f'<p class="note meaning">{escape(EXPLAINED + RULE)}</p>'
    )


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "none"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _sweep(workspace: Workspace, found: "Measured", sweep: "SweepScores") -> str:
    cells = "".join(
        f"<li><b>{strength:g}</b>{_image(workspace, name, strength)}{_numbers(workspace, sweep, place)}</li>"
        for place, (strength, name) in enumerate(zip(found.strengths, sweep.images))
    )
    return f'<div class="note small">Seed {sweep.seed}</div><ul class="sweep">{cells}</ul>'


def _image(workspace: Workspace, name: str, strength: float) -> str:
    """The image is a button: the form takes its recipe."""
    path = workspace.outputs / Path(name).name
    link = image_link(thumbnail(workspace, path))
    return (
        f'<button type="button" class="bare" data-act="recipe" data-arg="{escape(path.name)}" '
        f'title="Use this recipe"><img src="{escape(link)}" alt="At strength {strength:g}" loading="lazy"></button>'
    )


def _numbers(workspace: Workspace, sweep: "SweepScores", place: int) -> str:
    """What was measured of one image, and the training image nearest to it."""
    rows = [f"<span>prompt <i>{sweep.prompt[place]:.2f}</i></span>"]
    if sweep.which:
        path = sweep.which[place]
        link = image_link(thumbnail(workspace, path))
        rows.append(f"<span>set <i>{sweep.likeness[place]:.2f}</i></span>")
        rows.append(
            f'<span class="nearest" title="Nearest: {escape(path.name)}"><img src="{escape(link)}" '
            f'alt="Nearest: {escape(path.name)}" loading="lazy">near <i>{sweep.nearest[place]:.2f}</i></span>'
        )
    return f'<div class="numbers">{"".join(rows)}</div>'
