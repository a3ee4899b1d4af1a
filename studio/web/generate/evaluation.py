"""What an adapter does at each strength, in numbers and pictures. A part of the Generate tab."""

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
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE, encoder_fields
from studio.web.components.html import empty, note, progress_bar
from studio.web.components.strength_chart import strength_chart
from studio.web.errors import show_errors
from studio.web.generate.context import Bench
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.generation.evaluation import Measured, SweepScores

NOTHING = empty(
    "Nothing measured yet",
    "Add an adapter, write a prompt and press Measure: strengths from 0 to 1.5 are drawn with a few seeds, and an "
    "image encoder says what each does.",
)
MEANINGS = (
    ("prompt", "Likeness to the prompt", "train"),
    ("likeness", "Likeness to the training set", "held"),
    ("nearest", "Nearest training picture", "near"),
)
EXPLAINED = (
    "All numbers are similarities as an image encoder sees them: 1 is the same, 0 has nothing in common; compare them "
    "only with each other. Likeness to the prompt, trigger word left out, tells whether the pictures still show what "
    "you ask for: where it falls, the adapter gets in the way. Likeness to the training set is the mean over its "
    "pictures: how much of the style or the subject has come over. The nearest training picture stands beside each "
    "picture: above the dashed line a picture is nearer to it than training pictures are to each other, a sign that it "
    "was learnt by heart. Bands show the spread over the seeds. "
)


def measure_part(workspace: Workspace, demo: gr.Blocks, bench: Bench) -> None:
    """Build it inside the caller's gr.Tab."""
    keys = bench.inputs[0]
    seen, timer = gr.State(None), gr.Timer(1, active=False)  # which ticks while something is measured
    with gr.Row(equal_height=False, elem_classes="low"):
        adapter = gr.Dropdown(
            label="Adapter", choices=[], value=None, interactive=True, elem_id="measure-adapter", min_width=190, scale=3
        )
        against = gr.Dropdown(
            evaluation.training_sets(workspace), value=OWN, label="Training set", elem_id="measure-set",
            min_width=150, scale=2, allow_custom_value=False,
        )  # fmt: skip
        seeds = gr.Number(
            label="Seeds", value=3, precision=0, minimum=1, maximum=MOST_SEEDS, elem_id="measure-seeds", min_width=80
        )
        go = gr.Button("Measure", variant="primary", elem_id="measure", min_width=110)
        stop = gr.Button("Stop", interactive=False, elem_id="stop-measure", min_width=70)
    encoder, download = encoder_fields(workspace, "measure")
    told = gr.HTML(elem_id="measure-progress")
    result = clickable.board("measured", NOTHING)

    def offered(held, chosen):
        """The adapters that have a row, and the first of them unless another one is chosen."""
        names = {key: label for label, key in generation.shelf(workspace)}
        here = [(names.get(key, key), key) for key in held or [] if key]
        value = chosen if chosen in [key for _, key in here] else next((key for _, key in here), None)
        return gr.update(choices=here, value=value)

    @show_errors
    def start(key, set_key, count, clip, fetch, *flat):
        recipe = bench.recipe(*flat)
        if not key:
            raise GenerationError("Measuring is about an adapter: add one on the left first.")
        evaluation.start_measuring(
            workspace, recipe, str(key), str(set_key or OWN), int(count or 0), str(clip or ""), bool(fetch)
        )
        return note("Starting."), gr.Timer(active=True)

    def watch(last):
        """Each second of a job: how far it is, and what was measured so far. Skips when nothing is new."""
        newest = latest.get("measure")
        job = newest.job if newest else None
        strips = len(job.result.strips) if job and job.result else 0
        state = [id(job), job.state, job.done, job.message, strips] if job else ["nothing runs"]
        if state == last:
            return [gr.skip()] * 5
        going = job is not None and job.state == "running"
        line = ""
        if job and going:
            line = progress_bar(job.done, job.total) + note(job.message)
        elif job and job.error:
            line = note(job.error, bad=True)
        elif job and job.state == "stopped":
            line = note(job.message if job.message.startswith("Stopped") else "Stopped.")
        renewed = not last or [last[0], last[-1]] != [state[0], state[-1]]
        found = evaluation.newest(workspace) if renewed else None
        page = shown(workspace, found) if found else gr.skip()
        return state, line, page, gr.update(interactive=going), gr.Timer(active=going)

    def halt():
        stop_job("measure")

    @show_errors
    def take(event: gr.EventData):
        act, name, _ = clickable.clicked(event)
        return checked_name(name, "picture") if act == "recipe" else gr.skip()

    quiet = {**NO_PROGRESS, **PRIVATE}
    keys.change(offered, [keys, adapter], adapter, **quiet)
    adapter.focus(offered, [keys, adapter], adapter, **quiet)
    against.focus(lambda: gr.update(choices=evaluation.training_sets(workspace)), None, against, **quiet)
    go.click(start, [adapter, against, seeds, encoder, download, *bench.inputs], [told, timer], **quiet)
    stop.click(halt, None, None, **quiet)
    result.click(take, None, bench.taken, **quiet)
    for event in (timer.tick, demo.load):
        event(watch, seen, [seen, told, result, stop, timer], concurrency_limit=None, **quiet)


# What is shown ------------------------------------------------------------------------------------------------------


def shown(workspace: Workspace, found: "Measured") -> str:
    """HTML of what was measured: a sentence, the lines, the pictures with their numbers, and what it all means."""
    from studio.generation.evaluation import RULE

    said = found.suggestion()
    shaded = (said.low, said.high) if said.low is not None and said.high is not None else None
    marks = {
        "likeness": (found.alike, "within the set itself"),
        "nearest": (found.usual, "nearest within the set"),
    }
    charts = "".join(
        strength_chart(
            title, colour, found.strengths, curve, shaded, (mark[0], mark[1]) if mark and mark[0] is not None else None
        )
        for measure, title, colour in MEANINGS
        if (curve := found.curve(measure))
        for mark in [marks.get(measure)]
    )
    many = pluralize(found.compared, "picture")
    compared = f"compared with {many} of {found.dataset}" if found.dataset else "no training set"
    about = (
        f"{found.adapter} · “{found.prompt if len(found.prompt) <= 90 else found.prompt[:89] + '…'}” · "
        f"{pluralize(len(found.strips), 'seed')} · {compared} · image encoder: {found.encoder}"
    )
    return (
        f'<div class="suggested"><span>{"A trade" if said.trade else "Suggested strength"}</span>'
        f"<b>{_range(said.low, said.high)}</b><p>{escape(said.words)}</p></div>"
        f'<div class="note">{escape(about)}</div><div class="plots">{charts}</div>'
        f'<div class="strips">{"".join(_strip(workspace, found, strip) for strip in found.strips)}</div>'
        f'<p class="note meaning">{escape(EXPLAINED + RULE)}</p>'
    )


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "none"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _strip(workspace: Workspace, found: "Measured", strip: "SweepScores") -> str:
    cells = "".join(
        f"<li><b>{strength:g}</b>{_picture(workspace, name, strength)}{_numbers(workspace, strip, place)}</li>"
        for place, (strength, name) in enumerate(zip(found.strengths, strip.images))
    )
    return f'<div class="note small">Seed {strip.seed}</div><ul class="strip">{cells}</ul>'


def _picture(workspace: Workspace, name: str, strength: float) -> str:
    """The picture is a button: it puts its recipe into the form."""
    path = workspace.outputs / Path(name).name
    link = clickable.picture_link(thumbnail(workspace, path))
    return (
        f'<button type="button" class="bare" data-act="recipe" data-arg="{escape(path.name)}" '
        f'title="Use this recipe"><img src="{escape(link)}" alt="At strength {strength:g}" loading="lazy"></button>'
    )


def _numbers(workspace: Workspace, strip: "SweepScores", place: int) -> str:
    """What was measured of one picture, and the training picture nearest to it."""
    rows = [f"<span>prompt <i>{strip.prompt[place]:.2f}</i></span>"]
    if strip.which:
        path = strip.which[place]
        link = clickable.picture_link(thumbnail(workspace, path))
        rows.append(f"<span>set <i>{strip.likeness[place]:.2f}</i></span>")
        rows.append(
            f'<span class="nearest" title="Nearest: {escape(path.name)}"><img src="{escape(link)}" '
            f'alt="Nearest: {escape(path.name)}" loading="lazy">near <i>{strip.nearest[place]:.2f}</i></span>'
        )
    return f'<div class="numbers">{"".join(rows)}</div>'
