"""Grids on the Generate tab: what changes along each side, the pictures as they come, the sheet, and blind votes."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, grids
from studio.services.grids import PICKED, Typed
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import GRID, thumbnail
from studio.text import duration, pluralize
from studio.web.components.clickable import board, button, clicked, picture_link
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import empty, html_list, note, progress_bar, time_left
from studio.web.errors import show_errors
from studio.web.generate.context import Bench
from studio.web.generate.form import FIELDS
from studio.workspace import Workspace

SIDES = ("Columns", "Rows", "Blocks")
KINDS = [
    ("–", ""), ("Strength", "strength"), ("Adapter", "adapter"), ("Checkpoint", "checkpoint"), ("Prompt", "prompt"),
    ("Words of the prompt", "words"), ("Seed", "seed"), ("Steps", "steps"), ("Guidance", "guidance"),
    ("Scheduler", "scheduler"),
]  # fmt: skip
LABELS = {
    "prompt": "Values, one a line",
    "words": "What the prompt says, then what to put in its place: red, green, blue",
}
NUMBERS = "Values, such as 0, 0.5, 1 or 1-4 or 0-1 in 5"
# Packed in the browser: of what goes to the server, the page looks up each part again at every message of any event.
PACK_JS = "(...values) => [[...values, Date.now()]]"
ROOM = 720  # pixels that the columns share
NOTHING = empty("No grid yet", "Choose what changes along the columns and the rows, then press Draw grid.")


@dataclass(frozen=True)
class AxisRow:
    """The fields of one axis, in the order of Typed."""

    kind: gr.Dropdown
    which: gr.Dropdown
    text: gr.Textbox
    picks: gr.Dropdown

    @property
    def parts(self) -> list[Any]:
        return [self.kind, self.which, self.text, self.picks]


def _axis_row(number: int) -> AxisRow:
    name = f"axis-{number}"
    with gr.Row(elem_classes="axis"):
        kind = gr.Dropdown(KINDS, value="", label=SIDES[number], elem_id=f"{name}-kind", min_width=130, scale=2)
        hidden: dict[str, Any] = {"visible": False, "interactive": True, "min_width": 130}
        which = gr.Dropdown([], label="Of", elem_id=f"{name}-which", scale=2, **hidden)
        text = gr.Textbox(label=NUMBERS, lines=1, max_lines=6, elem_id=f"{name}-text", scale=4, **hidden)
        picks = gr.Dropdown([], multiselect=True, label="Values", elem_id=f"{name}-picks", scale=4, **hidden)
    return AxisRow(kind, which, text, picks)


def grid_part(workspace: Workspace, demo: gr.Blocks, bench: Bench) -> None:
    """Build it where the caller stands."""
    seen, ended = gr.State(""), gr.State("")  # what is shown; the grid that is done
    pair = gr.State([])  # [grid, left, right] while a vote goes on
    ticking = gr.Timer(1, active=False)
    with gr.Row(elem_classes="tools"):
        ladder = gr.Button("Epoch ladder", size="sm", scale=0, min_width=120, elem_id="grid-ladder")
        two = gr.Button("A / B", size="sm", scale=0, min_width=80, elem_id="grid-two")
    rows = [_axis_row(number) for number in range(len(SIDES))]
    plan = gr.HTML(elem_id="grid-plan", padding=False)
    with gr.Row():
        go = gr.Button("Draw grid", variant="primary", min_width=130, elem_id="grid-go", scale=3)
        stop = gr.Button("Stop", min_width=90, scale=0, interactive=False, elem_id="grid-stop")
    line = gr.HTML(elem_id="grid-line", padding=False)
    table = board("grid", NOTHING)
    with gr.Row(elem_classes="tools"):
        small: dict[str, Any] = {"size": "md", "visible": False, "scale": 0, "min_width": 150}
        vote = gr.Button("Vote blind", elem_id="grid-vote", **small)
        sheet = gr.DownloadButton("Download sheet", elem_id="grid-sheet", **small)
    score = gr.HTML(elem_id="grid-score", padding=False)

    typed_parts = [part for row in rows for part in row.parts]
    shown = [seen, ended, line, table, score, go, stop, vote, sheet, ticking]

    def typed(flat, rows: int = len(SIDES)) -> list[Typed]:
        rows_of = [flat[at : at + 4] for at in range(0, 4 * rows, 4)]
        return [
            Typed(str(kind or ""), str(which or ""), str(text or ""), tuple(map(str, picks or ())))
            for kind, which, text, picks in rows_of
        ]

    # Before it is drawn ------------------------------------------------------------------------------------------

    @show_errors
    def kind_chosen(kind, *held):
        return _fields(workspace, _suggested(workspace, kind, held))

    @show_errors
    def run_chosen(kind, which):
        if kind != "checkpoint" or not which:
            return gr.skip()
        found = grids.checkpoints_of(workspace, which)
        return gr.update(choices=found, value=grids.spread([key for _, key in found]))

    @show_errors
    def fill_ladder():
        return _all_fields(workspace, grids.ladder(workspace))

    @show_errors
    def fill_taken(taken):
        if not taken:
            return [gr.skip()] * len(typed_parts)
        rows = [(one.get("kind"), one.get("which"), one.get("text"), one.get("picks")) for one in taken[1]]
        return _all_fields(workspace, typed([part for row in rows for part in row], len(rows)))

    @show_errors
    def fill_two(*held):
        return _all_fields(workspace, grids.two(workspace, _keys(held), _seed(held)))

    def say_plan(flat):
        """How many pictures, how long, or what is wrong with the values."""
        if not isinstance(flat, list) or len(flat) != 1 + len(typed_parts) + len(bench.inputs):
            return ""
        flat = [None if isinstance(value, dict) else value for value in flat[:-1]]  # a picture costs no more
        wanted, held = typed(flat), flat[4 * len(SIDES) :]
        if not any(one.kind for one in wanted):
            return ""
        try:
            recipe = bench.recipe(*held)
            made = grids.checked(workspace, recipe, grids.axes_of(workspace, recipe, wanted))
        except StudioError as error:
            return note(" ".join(str(error).split()), bad=True)
        seconds = grids.seconds_for(made)
        long = f", about {duration(max(1, seconds))}" if seconds is not None else ", how long is told after the first"
        return note(f"{pluralize(len(made), 'picture')}{long}.")

    # While and after ---------------------------------------------------------------------------------------------

    @show_errors
    def draw(*flat):
        recipe = bench.recipe(*flat[4 * len(SIDES) :])
        axes = grids.axes_of(workspace, recipe, typed(flat))
        grids.start_grid(workspace, recipe, axes)
        return [[], *look("")]

    def halt():
        stop_job("grid")
        return gr.update(interactive=False)

    def look(last, going=None):
        """Updates for `shown`; skips when nothing is new. going: the vote that hides the pictures."""
        newest, grid = latest.get("grid"), grids.newest(workspace)
        job = newest.job if newest else None
        active = bool(job and job.state == "running")
        html, words = (_table(workspace, grid) if grid else NOTHING), _line(job) if job else ""
        stamp = f"{active}{words}{html}"
        if stamp == last or going:
            return [gr.skip()] * len(shown)
        done = grid if grid and not active and grid.sheet.is_file() else None
        stoppable = bool(job and active and not job.stop_event.is_set())
        return [
            stamp, done.folder.name if done else "", words, html, _score(grid) if grid else "",
            gr.update(interactive=not active), gr.update(interactive=stoppable),
            gr.update(visible=done is not None and _votable(done)),
            gr.update(visible=done is not None, value=str(done.sheet) if done else None), gr.Timer(active=active),
        ]  # fmt: skip

    @show_errors
    def begin_vote():
        grid = grids.newest(workspace)
        if grid is None:
            raise StudioError("Draw a grid first, then vote on its pictures.")
        return _next_vote(grid)

    @show_errors
    def act_on(going, event: gr.EventData):
        """A cell or a vote was clicked: updates for taken, pair, table and score."""
        act, arg, _ = clicked(event)
        if act == "take":
            return arg, gr.skip(), gr.skip(), gr.skip()
        if act not in ("left", "right", "same", "end") or not going:
            return [gr.skip()] * 4
        from studio.generation import votes

        name, left, right = going
        grid = grids.grid_named(workspace, name)
        if act == "end":
            return gr.skip(), [], _table(workspace, grid), _score(grid)
        votes.cast(grid, left, right, act)
        return gr.skip(), *_next_vote(grid)

    quiet: dict[str, Any] = {**NO_PROGRESS, **PRIVATE}
    for row in rows:
        row.kind.input(kind_chosen, [row.kind, *bench.inputs], row.parts, **quiet)
        row.which.input(run_chosen, [row.kind, row.which], row.picks, **quiet)
    ladder.click(fill_ladder, None, typed_parts, **quiet)
    bench.axes.change(fill_taken, bench.axes, typed_parts, **quiet)
    two.click(fill_two, bench.inputs, typed_parts, **quiet)
    sized = [part for name, part in zip(FIELDS, bench.inputs[1:]) if name in ("steps", "guidance", "width", "height")]
    changes = [part.change for part in [*typed_parts, *sized, ended]]
    gr.on(changes, None, [*typed_parts, *bench.inputs], bench.packed, js=PACK_JS, **quiet)
    bench.packed.change(say_plan, bench.packed, plan, trigger_mode="always_last", **quiet)
    started = go.click(draw, [*typed_parts, *bench.inputs], [pair, *shown], **quiet)
    started.then(None, [*typed_parts, *bench.inputs], bench.packed, js=PACK_JS, **quiet)
    stop.click(halt, None, stop, **quiet)
    for event in (ticking.tick, demo.load):
        event(look, [seen, pair], shown, concurrency_limit=None, **quiet)
    vote.click(begin_vote, None, [pair, table, score], **quiet)
    table.click(act_on, pair, [bench.taken, pair, table, score], **quiet)


# The fields ---------------------------------------------------------------------------------------------------------


def _keys(held) -> list[str]:
    """The adapters in the rows, of `Bench.inputs`' values."""
    return [key for key in held[0] or [] if key]


def _seed(held) -> int:
    return max(0, int(dict(zip(FIELDS, held[1:])).get("seed") or 0))


def _suggested(workspace: Workspace, kind: str, held) -> Typed:
    """What to begin with when an axis was chosen."""
    if kind == "checkpoint":
        run = next(iter(grids.runs_with_checkpoints(workspace)), "")
        found = [key for _, key in grids.checkpoints_of(workspace, run)] if run else []
        return Typed(kind, run, picks=tuple(grids.spread(found)))
    if kind == "adapter":
        here = [key for _, key in adapter_files.adapter_choices(workspace)]
        rows = [key for key in _keys(held) if key in here]
        return Typed(kind, picks=tuple(dict.fromkeys([*rows, *here]))[: max(4, len(rows))])
    if kind == "scheduler":
        return Typed(kind, picks=("as the base", "Euler a", "DPM++ 2M Karras"))
    names = [adapter_files.adapter_name(key) for key in _keys(held)]
    prompt = str(dict(zip(FIELDS, held[1:])).get("prompt") or "")
    text = {
        "strength": "0, 0.5, 1", "prompt": f"{prompt}\n" if prompt else "", "seed": f"{_seed(held)}-{_seed(held) + 3}",
        "steps": "5, 10, 20", "guidance": "2, 4, 7",
    }  # fmt: skip
    return Typed(kind, names[0] if kind == "strength" and names else "", text.get(kind, ""))


def _fields(workspace: Workspace, one: Typed) -> list[Any]:
    """Updates for the parts of an AxisRow."""
    from studio.generation.schedulers import NAMES

    choices: list[Any] = []
    if one.kind == "checkpoint" and one.which:
        choices = grids.checkpoints_of(workspace, one.which)
        listed = [key for _, key in choices]  # a sheet may name the last step of a run, which is its result
        choices += [(adapter_files.adapter_name(key), key) for key in one.picks if key not in listed]
    elif one.kind == "adapter":
        choices = adapter_files.adapter_choices(workspace)
    elif one.kind == "scheduler":
        choices = list(NAMES)
    whose: list[str] = [one.which] if one.which else []
    if one.kind == "checkpoint":
        whose = grids.runs_with_checkpoints(workspace)
    picked = one.kind in PICKED
    return [
        one.kind,
        gr.update(choices=whose, value=one.which or None, visible=one.kind == "checkpoint" or bool(one.which),
                  label="Run" if one.kind == "checkpoint" else "Of"),
        gr.update(value=one.text, visible=bool(one.kind) and not picked, label=LABELS.get(one.kind, NUMBERS),
                  lines=3 if one.kind == "prompt" else 1),
        gr.update(choices=choices, value=list(one.picks), visible=picked),
    ]  # fmt: skip


def _all_fields(workspace: Workspace, typed: list[Typed]) -> list[Any]:
    wanted = [*typed, *[Typed("")] * len(SIDES)][: len(SIDES)]
    return [update for one in wanted for update in _fields(workspace, one)]


# What is shown ------------------------------------------------------------------------------------------------------


def _line(job) -> str:
    """How far a grid is, or how it ended."""
    if job.state == "running":
        said = (job.message or "Loading the base model") + time_left(job, 0.02)
        words = "Stopping" if job.stop_event.is_set() else said
        return f'<div class="how-far">{progress_bar(job.done, job.total)}{note(words)}</div>'
    if job.state == "failed":
        return note(job.error or "", bad=True)
    return note(f"{'Stopped' if job.state == 'stopped' else 'Done'}: {job.message}." if job.message else "Stopped.")


def _link(workspace: Workspace, grid, number: int) -> str:
    path = grid.images[number]
    return picture_link(path if max(grid.size) <= GRID else thumbnail(workspace, path))


def _table(workspace: Workspace, grid) -> str:
    """The pictures that there are in a table with their labels. Gradio changes only what changed in it."""
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
        return f'<td><div class="no-picture">{"failed" if number in grid.problems else ""}</div></td>'
    from studio.generation.contact_sheet import position

    places = position(grid.sides, number)
    said = escape(", ".join(side.labels[place] for side, place in zip(grid.sides, places)))
    return (
        f'<td><button type="button" data-act="take" data-arg="{escape(grids.picture_name(grid, number))}" '
        f'title="Take this recipe into the form" aria-label="Take the recipe of {said}">'
        f'<img src="{escape(_link(workspace, grid, number))}" alt="{said}" loading="lazy"></button></td>'
    )


def _votable(grid) -> bool:
    from studio.generation.votes import pairs

    return bool(pairs(grid))


def _next_vote(grid) -> tuple[list[Any], str, str]:
    """(pair, what is shown in place of the table, no tally: it would tell which is which)."""
    from studio.generation.votes import next_pair, votes

    left, right = next_pair(grid)
    pictures = "".join(
        f'<figure><img src="{escape(picture_link(grid.images[number]))}" alt="{side}">'
        f"{button(side, '', f'{side.capitalize()} is better', 'primary')}</figure>"
        for side, number in (("left", left), ("right", right))
    )
    html = (
        f"<div class='blind'><div class='blind-pair'>{pictures}</div><div class='blind-tools'>"
        f"{button('same', '', 'The same')}{button('end', '', 'End and see')}"
        f"<span class='note'>{pluralize(len(votes(grid)), 'vote')} on this grid</span></div></div>"
    )
    return [grid.folder.name, left, right], html, ""


def _score(grid) -> str:
    """The tally of the votes, the best first."""
    from studio.generation.votes import tally

    rows = "".join(
        f"<tr><th>{escape(one.name)}</th><td>{one.won}</td><td>{one.lost}</td><td>{one.same}</td></tr>"
        for one in tally(grid)
    )
    head = "<tr><th>Blind votes</th><td>better</td><td>worse</td><td>the same</td></tr>"
    return f'<table class="score"><thead>{head}</thead><tbody>{rows}</tbody></table>' if rows else ""
