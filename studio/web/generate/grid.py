"""Grids on the Generate tab: what changes along each side, the images as they come, the contact sheet, blind votes."""

from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, grids
from studio.services.grids import PICKED, Typed
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import GRID, thumbnail
from studio.text import duration, pluralize
from studio.web.components.clickable import button, clickable_html, clicked, image_link
from studio.web.components.fields import QUIET
from studio.web.components.html import empty, html_list, note, progress_bar, time_left
from studio.web.errors import show_errors
from studio.web.generate.context import GenerateContext, typed_value
from studio.workspace import Workspace

SIDES = ("Columns", "Rows", "Blocks")
KINDS = [
    ("–", ""),
    ("Strength", "strength"),
    ("Adapter", "adapter"),
    ("Checkpoint", "checkpoint"),
    ("Prompt", "prompt"),
    ("Prompt search and replace", "words"),
    ("Seed", "seed"),
    ("Steps", "steps"),
    ("Guidance", "guidance"),
    ("Scheduler", "scheduler"),
]
LABELS = {
    "prompt": "Values, one a line",
    "words": "Text of the prompt, then its replacements: red, green, blue",
}
NUMBERS = "Values, such as 0, 0.5, 1 or 1-4 or 0-1 in 5"
# Packed in the browser: of what goes to the server, the page looks up each part again at every message of any event.
PACK_JS = "(...values) => [[...values, Date.now()]]"
ROOM = 720  # pixels that the columns share
NOTHING = empty("No grid yet", "Choose what changes along the columns and the rows, then press Generate grid.")


class AxisRow:
    """The fields of one axis, in the order of Typed."""

    def __init__(self, number: int):
        name = f"axis-{number}"
        with gr.Row(elem_classes="axis"):
            self.kind = gr.Dropdown(
                KINDS, value="", label=SIDES[number], elem_id=f"{name}-kind", min_width=130, scale=2
            )
            hidden: dict[str, Any] = {"visible": False, "interactive": True, "min_width": 130}
            self.which = gr.Dropdown([], label="Of", elem_id=f"{name}-which", scale=2, **hidden)
            self.text = gr.Textbox(label=NUMBERS, lines=1, max_lines=6, elem_id=f"{name}-text", scale=4, **hidden)
            self.picks = gr.Dropdown([], multiselect=True, label="Values", elem_id=f"{name}-picks", scale=4, **hidden)
        self.parts = [self.kind, self.which, self.text, self.picks]

    def updates(self, workspace: Workspace, one: Typed) -> dict[Any, Any]:
        """Updates that show this axis."""
        from studio.generation.schedulers import NAMES

        choices: list[Any] = []
        if one.kind == "checkpoint" and one.which:
            choices = grids.checkpoints_of(workspace, one.which)
            listed = [key for _, key in choices]  # a contact sheet may name the last step of a run, which is its result
            choices += [(adapter_files.adapter_name(key), key) for key in one.picks if key not in listed]
        elif one.kind == "adapter":
            choices = adapter_files.adapter_choices(workspace)
        elif one.kind == "scheduler":
            choices = list(NAMES)
        whose: list[str] = [one.which] if one.which else []
        if one.kind == "checkpoint":
            whose = grids.runs_with_checkpoints(workspace)
        picked = one.kind in PICKED
        return {
            self.kind: one.kind,
            self.which: gr.update(
                choices=whose,
                value=one.which or None,
                visible=one.kind == "checkpoint" or bool(one.which),
                label="Run" if one.kind == "checkpoint" else "Of",
            ),
            self.text: gr.update(
                value=one.text,
                visible=bool(one.kind) and not picked,
                label=LABELS.get(one.kind, NUMBERS),
                lines=3 if one.kind == "prompt" else 1,
            ),
            self.picks: gr.update(choices=choices, value=list(one.picks), visible=picked),
        }


class Grid:
    """The sub-tab.

    seen    what is shown
    ended   the grid that is done
    pair    [grid, left, right] while a vote goes on
    """

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Grid", id="grid", elem_id="tab-grid", render_children=True):
            self.seen, self.ended, self.pair = gr.State(""), gr.State(""), gr.State([])
            self.timer = gr.Timer(1, active=False)
            with gr.Row(elem_classes="tools"):
                self.sweep = gr.Button("Checkpoint sweep", size="sm", scale=0, min_width=140, elem_id="grid-sweep")
                self.two = gr.Button("A / B", size="sm", scale=0, min_width=80, elem_id="grid-two")
            self.rows = [AxisRow(number) for number in range(len(SIDES))]
            self.plan = gr.HTML(elem_id="grid-plan", padding=False)
            with gr.Row():
                self.draw = gr.Button("Generate grid", variant="primary", min_width=130, elem_id="grid-go", scale=3)
                self.stop = gr.Button(
                    "Stop", variant="stop", min_width=130, visible=False, elem_id="grid-stop", scale=3
                )
            self.line = gr.HTML(elem_id="grid-line", padding=False)
            self.table = clickable_html("grid", NOTHING)
            with gr.Row(elem_classes="tools"):
                small: dict[str, Any] = {"size": "md", "visible": False, "scale": 0, "min_width": 150}
                self.vote = gr.Button("Vote blind", elem_id="grid-vote", **small)
                self.sheet = gr.DownloadButton("Download contact sheet", elem_id="grid-sheet", **small)
            self.score = gr.HTML(elem_id="grid-score", padding=False)
        self.axes = [part for row in self.rows for part in row.parts]
        self.outputs = [
            self.seen,
            self.ended,
            self.line,
            self.table,
            self.score,
            self.draw,
            self.stop,
            self.vote,
            self.sheet,
            self.timer,
        ]

    def wire(self) -> None:
        self._wire_axes()
        context, inputs = self.context, [*self.axes, *self.context.inputs]
        started = self.draw.click(self.start, inputs, [self.pair, *self.outputs], **QUIET)
        started.then(None, inputs, context.packed, js=PACK_JS, **QUIET)
        begun = [*self.outputs, self.pair, *self.axes]
        context.pair.change(self.start_pair, [context.pair, *context.inputs], [*begun, context.tabs], **QUIET)
        self.stop.click(self.halt, None, self.stop, **QUIET)
        for event in (self.timer.tick, context.demo.load):
            event(self.watch, [self.seen, self.pair], self.outputs, concurrency_limit=None, **QUIET)
        self.vote.click(self.begin_vote, None, [self.pair, self.table, self.score], **QUIET)
        self.table.click(self.act, self.pair, [context.taken, self.pair, self.table, self.score], **QUIET)

    def _wire_axes(self) -> None:
        """What happens before a grid is drawn."""
        context, inputs = self.context, [*self.axes, *self.context.inputs]
        for index, row in enumerate(self.rows):
            row.kind.input(
                lambda kind, *values, i=index: self.kind_chosen(i, kind, *values),
                [row.kind, *context.inputs],
                row.parts,
                **QUIET,
            )
            row.which.input(self.run_chosen, [row.kind, row.which], row.picks, **QUIET)
        self.sweep.click(self.fill_sweep, context.keys, self.axes, **QUIET)
        self.two.click(self.fill_two, context.inputs, self.axes, **QUIET)
        context.axes.change(self.fill_taken, context.axes, self.axes, **QUIET)
        sized = [context.form.field(name) for name in ("steps", "guidance", "width", "height")]
        changes = [part.change for part in [*self.axes, *sized, self.ended]]
        gr.on(changes, None, inputs, context.packed, js=PACK_JS, **QUIET)
        context.packed.change(self.show_plan, context.packed, self.plan, trigger_mode="always_last", **QUIET)

    # Before it is drawn ------------------------------------------------------------------------------------------

    @show_errors
    def kind_chosen(self, index, kind, *values):
        return self.rows[index].updates(self.workspace, suggested(self.workspace, kind, values))

    @show_errors
    def run_chosen(self, kind, which):
        if kind != "checkpoint" or not which:
            return gr.skip()
        found = grids.checkpoints_of(self.workspace, which)
        return gr.update(choices=found, value=grids.spread([key for _, key in found]))

    @show_errors
    def fill_sweep(self, keys):
        return self.filled(grids.checkpoint_sweep(self.workspace, keys if isinstance(keys, list) else []))

    @show_errors
    def fill_taken(self, taken):
        if not taken:
            return gr.skip()
        parts = [(one.get("kind"), one.get("which"), one.get("text"), one.get("picks")) for one in taken[1]]
        return self.filled([typed_axis(*one) for one in parts])

    @show_errors
    def fill_two(self, *values):
        return self.filled(grids.two(self.workspace, keys_of(values), seed_of(values)))

    def filled(self, typed: list[Typed]) -> dict[Any, Any]:
        """Updates of all axes."""
        wanted = [*typed, *[Typed("")] * len(SIDES)][: len(SIDES)]
        return {
            part: update
            for row, one in zip(self.rows, wanted)
            for part, update in row.updates(self.workspace, one).items()
        }

    def typed(self, values) -> list[Typed]:
        """The axes, from the values of `axes`."""
        return [typed_axis(*values[at : at + 4]) for at in range(0, len(self.axes), 4)]

    def show_plan(self, packed):
        """How many images, how long, or what is wrong with the values."""
        if not isinstance(packed, list) or len(packed) != 1 + len(self.axes) + len(self.context.inputs):
            return ""
        values = [None if isinstance(value, dict) else value for value in packed[:-1]]  # an image costs no more
        axes = self.typed(values)
        if not any(one.kind for one in axes):
            return ""
        try:
            recipe = self.context.recipe(*values[len(self.axes) :])
            made = grids.checked(self.workspace, recipe, grids.axes_of(self.workspace, recipe, axes))
        except StudioError as error:
            return note(" ".join(str(error).split()), bad=True)
        seconds = grids.seconds_for(made)
        long = f", about {duration(max(1, seconds))}" if seconds is not None else "; the time is known after the first"
        return note(f"{pluralize(len(made), 'image')}{long}.")

    # While and after ---------------------------------------------------------------------------------------------

    @show_errors
    def start(self, *values):
        recipe = self.context.recipe(*values[len(self.axes) :])
        axes = grids.axes_of(self.workspace, recipe, self.typed(values))
        grids.start_grid(self.workspace, recipe, axes)
        return {self.pair: []} | self.updates("")

    @show_errors
    def start_pair(self, pair, *values):
        """Two adapters were dropped together: both at the form's seed, beside each other, once there is a prompt."""
        if not pair:
            return gr.skip()
        axes = [Typed("adapter", picks=tuple(pair[1:]))]
        updates = self.filled(axes) | {self.context.tabs: gr.Tabs(selected="grid")}
        if not str(typed_value(values, "prompt") or "").strip():
            return updates | {self.line: note("Write a prompt, then Generate grid: both adapters at one seed.")}
        recipe = self.context.recipe(*values)
        grids.start_grid(self.workspace, recipe, grids.axes_of(self.workspace, recipe, axes))
        return updates | {self.pair: []} | self.updates("")

    def halt(self):
        stop_job("grid")
        return gr.update(value="Stopping", interactive=False)

    def watch(self, last, pair):
        """What is new; nothing while a vote hides the images."""
        return (not pair and self.updates(last)) or gr.skip()

    def updates(self, last) -> dict[Any, Any]:
        """Of `outputs`; none when nothing is new."""
        newest, grid = latest.get("grid"), grids.newest(self.workspace)
        job = newest.job if newest else None
        active = bool(job and job.state == "running")
        html, words = (table_html(self.workspace, grid) if grid else NOTHING), job_line(job) if job else ""
        stamp = f"{active}{words}{html}"
        if stamp == last:
            return {}
        done = grid if grid and not active and grid.sheet.is_file() else None
        stoppable = bool(job and active and not job.stop_event.is_set())
        return {
            self.seen: stamp,
            self.ended: done.folder.name if done else "",
            self.line: words,
            self.table: html,
            self.score: score_html(grid) if grid else "",
            self.draw: gr.update(visible=not active),
            self.stop: gr.update(visible=active, value="Stop" if stoppable else "Stopping", interactive=stoppable),
            self.vote: gr.update(visible=done is not None and is_votable(done)),
            self.sheet: gr.update(visible=done is not None, value=str(done.sheet) if done else None),
            self.timer: gr.Timer(active=active),
        }

    @show_errors
    def begin_vote(self):
        grid = grids.newest(self.workspace)
        if grid is None:
            raise StudioError("Generate a grid first, then vote on its images.")
        return self.next_vote(grid)

    @show_errors
    def act(self, pair, event: gr.EventData):
        """A cell or a vote was clicked."""
        act, arg, _ = clicked(event)
        if act == "take":
            return {self.context.taken: arg}
        if act not in ("left", "right", "same", "end") or not pair:
            return gr.skip()
        from studio.generation import votes

        name, left, right = pair
        grid = grids.grid_named(self.workspace, name)
        if act == "end":
            return {self.pair: [], self.table: table_html(self.workspace, grid), self.score: score_html(grid)}
        votes.cast(grid, left, right, act)
        return self.next_vote(grid)

    def next_vote(self, grid) -> dict[Any, Any]:
        """Two images in place of the table. No tally: it would reveal which is which."""
        from studio.generation.votes import next_pair

        left, right = next_pair(grid)
        return {self.pair: [grid.folder.name, left, right], self.table: vote_html(grid, left, right), self.score: ""}


def build(context: GenerateContext) -> Grid:
    """The sub-tab. Form and rows are built before it."""
    part = Grid(context)
    part.wire()
    return part


# The fields ---------------------------------------------------------------------------------------------------------


def typed_axis(kind, which, text, picks) -> Typed:
    """An axis, from what its fields hold."""
    return Typed(str(kind or ""), str(which or ""), str(text or ""), tuple(map(str, picks or ())))


def keys_of(values) -> list[str]:
    """The adapters in the rows, from the values of `GenerateContext.inputs`."""
    return [key for key in values[0] or [] if key]


def seed_of(values) -> int:
    return max(0, int(typed_value(values, "seed") or 0))


def suggested(workspace: Workspace, kind: str, values) -> Typed:
    """The first values of an axis that was just chosen."""
    if kind == "checkpoint":
        run = next(iter(grids.runs_with_checkpoints(workspace)), "")
        found = [key for _, key in grids.checkpoints_of(workspace, run)] if run else []
        return Typed(kind, run, picks=tuple(grids.spread(found)))
    if kind == "adapter":
        here = [key for _, key in adapter_files.adapter_choices(workspace)]
        rows = [key for key in keys_of(values) if key in here]
        return Typed(kind, picks=tuple(dict.fromkeys([*rows, *here]))[: max(4, len(rows))])
    if kind == "scheduler":
        return Typed(kind, picks=("as the base", "Euler a", "DPM++ 2M Karras"))
    names = [adapter_files.adapter_name(key) for key in keys_of(values)]
    prompt = str(typed_value(values, "prompt") or "")
    seed = seed_of(values)
    text = {
        "strength": "0, 0.5, 1",
        "prompt": f"{prompt}\n" if prompt else "",
        "seed": f"{seed}-{seed + 3}",
        "steps": "5, 10, 20",
        "guidance": "2, 4, 7",
    }
    return Typed(kind, names[0] if kind == "strength" and names else "", text.get(kind, ""))


# What is shown ------------------------------------------------------------------------------------------------------


def job_line(job) -> str:
    """How far a grid is, or how it ended."""
    if job.state == "running":
        progress = (job.message or "Loading the base model") + time_left(job, 0.02)
        words = "Stopping" if job.stop_event.is_set() else progress
        return f'<div class="how-far">{progress_bar(job.done, job.total)}{note(words)}</div>'
    if job.state == "failed":
        return note(job.error or "", bad=True)
    return note(f"{'Stopped' if job.state == 'stopped' else 'Done'}: {job.message}." if job.message else "Stopped.")


def _link(workspace: Workspace, grid, number: int) -> str:
    path = grid.images[number]
    return image_link(path if max(grid.size) <= GRID else thumbnail(workspace, path))


def table_html(workspace: Workspace, grid) -> str:
    """The images that there are in a table with their labels. Gradio changes only what changed in it."""
    across, down, blocks = ([*(list(side.labels) for side in grid.sides), [""], [""]])[:3]
    width = max(110, min(grid.size[0], ROOM // len(across)))
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in across)
    bodies = []
    for third, block in enumerate(blocks):
        title = f'<tr class="block"><th colspan="{len(across) + 1}">{escape(block)}</th></tr>' if block else ""
        body = ""
        for second, label in enumerate(down):
            first = len(across) * (second + len(down) * third)
            cells = "".join(_cell(workspace, grid, first + place) for place in range(len(across)))
            body += f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'
        bodies.append(f"<tbody>{title}{body}</tbody>")
    problems = html_list([escape(text) for text in dict.fromkeys(grid.problems.values())], "bad")
    shape = f"--cell: {width}px; --shape: {grid.size[0]} / {grid.size[1]}"
    return (
        f'<div class="grid-room"><table class="grid-table" style="{shape}"><thead><tr><th></th>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>{problems}"
    )


def _cell(workspace: Workspace, grid, number: int) -> str:
    if grid.images[number] is None:
        return f'<td><div class="no-image">{"failed" if number in grid.problems else ""}</div></td>'
    from studio.generation.contact_sheet import position

    places = position(grid.sides, number)
    name = escape(", ".join(side.labels[place] for side, place in zip(grid.sides, places)))
    return (
        f'<td><button type="button" data-act="take" data-arg="{escape(grids.image_name(grid, number))}" '
        f'title="Use this recipe" aria-label="Use the recipe of {name}">'
        f'<img src="{escape(_link(workspace, grid, number))}" alt="{name}" loading="lazy"></button></td>'
    )


def is_votable(grid) -> bool:
    from studio.generation.votes import pairs

    return bool(pairs(grid))


def vote_html(grid, left: int, right: int) -> str:
    """Two images, without a word of what they are."""
    from studio.generation.votes import guide, votes

    prompt = prompt_of(grid, left)
    question = f"Which is the better image of “{prompt}”?" if prompt else "Which image is better?"
    images = "".join(
        f'<figure><img src="{escape(image_link(grid.images[number]))}" alt="{side}">'
        f"{button(side, '', f'{side.capitalize()} is better', 'primary')}</figure>"
        for side, number in (("left", left), ("right", right))
    )
    return (
        f"<div class='blind'><h4>{escape(question)}</h4><div class='blind-pair'>{images}</div><div class='blind-tools'>"
        f"{button('same', '', 'The same')}{button('end', '', 'End and show results')}"
        f"<span class='note'>{pluralize(len(votes(grid)), 'vote')} on this grid. {escape(guide())}</span></div></div>"
    )


def prompt_of(grid, number: int) -> str:
    """The prompt of a cell, cut to one line; "" where the image does not say it."""
    from studio.generation import read_recipe

    try:
        text = " ".join(str(read_recipe(grid.images[number]).values.get("prompt", "")).split())
    except StudioError:
        return ""
    return text if len(text) <= 120 else text[:119] + "…"


def score_html(grid) -> str:
    """The tally of the votes, the best first."""
    from studio.generation.votes import tally, verdict

    scores = tally(grid)
    rows = "".join(
        f"<tr><th>{escape(one.name)}</th><td>{one.won}</td><td>{one.lost}</td><td>{one.same}</td></tr>"
        for one in scores
    )
    head = "<tr><th>Blind votes</th><td>better</td><td>worse</td><td>the same</td></tr>"
    table = f'<table class="score"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return table + note(verdict(scores)) if rows else ""
