"""All runs: a list to find, tick, compare and delete in. What is ticked is drawn below it."""

from collections.abc import Callable

import gradio as gr

from studio.services import run_library, run_queue, runs
from studio.web.components.clickable import clicked
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.loss_chart import compare_chart
from studio.web.errors import show_errors
from studio.web.train import views
from studio.web.train.form import LABELS
from studio.web.train.views import BOARD_JS, FILM_JS, PAGE
from studio.workspace import Workspace

NAMES = LABELS | {"data.folder": "Dataset", "base": "Base model"}
FRESH: dict = {
    "ticked": [], "rows": [], "sure": False, "shown": PAGE, "stamp": None, "drawn": None,
}  # fmt: skip


def runs_board(workspace: Workspace, tab: gr.Tab, others: list[gr.Tab]) -> gr.Textbox:
    """Build the board inside `tab`. Returns a hidden field that holds the run that was chosen to be shown.

    others: the sub-tabs beside it. While one of them is open, nothing here is asked for.
    """
    held, timer = gr.State(FRESH), gr.Timer(1, active=False)
    chosen = gr.Textbox(visible=False)
    with gr.Row(elem_classes="runs-filter"):
        text = gr.Textbox(
            label="Find", placeholder="name, dataset, base, note", max_lines=1, elem_id="runs-text", min_width=180,
            scale=3,
        )  # fmt: skip
        state = gr.Dropdown(
            [("all", ""), *run_library.STATES],
            value="",
            label="State",
            elem_id="runs-state",
            min_width=120,
            interactive=True,
        )
        sort = gr.Dropdown(
            list(run_library.SORTS), value=next(iter(run_library.SORTS)), label="Order", elem_id="runs-sort",
            min_width=160,
            interactive=True,
        )  # fmt: skip
    listed = _board("runs", BOARD_JS)
    binned = _board("runs-bin", BOARD_JS)
    chart = gr.HTML(elem_id="runs-chart", visible=False, padding=False)
    table = _board("runs-settings", "", visible=False)
    film = _board("runs-film", FILM_JS, visible=False)

    filters = [text, state, sort]
    outputs = [held, listed, binned, chart, table, film]

    def shown(now: dict, *chosen_filters) -> dict:
        """Updates of everything, given what this browser tab holds."""
        found, total, left = run_library.all_runs(workspace, *chosen_filters)
        here = set(runs.list_run_names(workspace))
        now["ticked"] = [name for name in now["ticked"] if name in here]
        now["stamp"] = (*run_library.list_stamp(workspace), left)
        some = run_library.rows(workspace, found[: now["shown"]])
        now["rows"] = [row.run.name for row in some]
        html = views.run_list(some, now["ticked"], len(found), total, left)
        updates = {listed: html, binned: views.bin_line(run_library.in_the_bin(workspace), now["sure"])}
        return updates | compared(now) | {held: now}

    def compared(now: dict) -> dict:
        """What is ticked, drawn again where it is another thing than before."""
        names = now["ticked"][: run_library.COMPARED]
        courses = run_library.courses(workspace, names)
        drawn = [
            (name, len(one.trained), one.trained[-1:], len(one.held_out), len(one.previews)) for name, one in courses
        ]
        if drawn == now["drawn"]:
            return {}
        now["drawn"] = drawn
        films = [(name, run_library.film(workspace, name, one, len(courses))) for name, one in courses]
        on = bool(courses)
        differ = run_library.differences(workspace, [name for name, _ in courses])
        rows = views.settings_table([name for name, _ in courses], differ, NAMES)
        return {
            chart: gr.update(value=compare_chart(courses) if on else "", visible=on),
            table: gr.update(value=rows, visible=bool(rows)),
            film: gr.update(value=views.film(films) if on else "", visible=on),
        }

    @show_errors
    def look(now, *chosen_filters):
        """The tab was opened, or the filter changed."""
        now = {**FRESH, **(now or {}), "shown": PAGE, "sure": False}
        return shown(now, *chosen_filters) | {timer: gr.Timer(active=True)}

    @show_errors
    def watch(now, *chosen_filters):
        """Each second while the tab is open: says nothing when nothing is new."""
        now = now or FRESH
        if now["stamp"] and not now["stamp"][-1] and run_library.list_stamp(workspace) == now["stamp"][:-1]:
            return gr.skip()
        return shown(dict(now), *chosen_filters)

    @show_errors
    def act(now, find, state_is, order, event: gr.EventData):
        did, arg, ticked = clicked(event)
        now = {**FRESH, **(now or {})}
        if did in ("tick", "delete"):
            now["ticked"] = _still(now["ticked"], ticked, now["rows"])
        steps: dict[str, Callable] = {
            "clear": lambda: now.update(ticked=[]),
            "more": lambda: now.update(shown=now["shown"] + PAGE),
            "delete": lambda: run_library.move_to_trash(workspace, ticked),
            "undo": lambda: run_library.restore_run(workspace, arg),
            "really": lambda: run_library.empty_trash(workspace),
        }
        now["sure"] = did == "empty"
        if did == "open":
            return {chosen: arg, held: now}
        if did in steps:
            steps[did]()
        return shown(now, find, state_is, order)

    quiet = {**NO_PROGRESS, **PRIVATE}
    in_turn = {**quiet, "concurrency_id": "runs", "concurrency_limit": 1}  # else a look would write back older ticks
    tab.select(look, [held, *filters], [*outputs, timer], **in_turn)
    for other in others:
        other.select(lambda: gr.Timer(active=False), None, timer, **quiet)
    for field in filters:
        field.change(look, [held, *filters], [*outputs, timer], trigger_mode="always_last", **in_turn)
    timer.tick(watch, [held, *filters], outputs, **in_turn)
    for board in (listed, binned):
        board.click(act, [held, *filters], [*outputs, chosen], trigger_mode="multiple", **in_turn)
    return chosen


def _still(before: list[str], ticked: list[str], rows: list[str]) -> list[str]:
    """What is ticked now, those that the filter hides too; each keeps its place, which is its colour."""
    still = [name for name in before if name in ticked or name not in rows]
    return [*still, *(name for name in ticked if name not in before)]


def queue_board(workspace: Workspace) -> gr.HTML:
    """The runs that wait, below the buttons that start them; `queue_now` fills it."""
    line = _board("queue", BOARD_JS, visible=False)

    @show_errors
    def act(event: gr.EventData):
        did, name, _ = clicked(event)
        steps: dict[str, Callable] = {
            "go": lambda: run_queue.start_queue(workspace),
            "hold": lambda: run_queue.pause_queue(workspace),
            "up": lambda: run_queue.move_in_queue(workspace, name, -1),
            "down": lambda: run_queue.move_in_queue(workspace, name, 1),
            "out": lambda: run_queue.leave_queue(workspace, name),
        }
        if did in steps:
            steps[did]()
        return queue_now(workspace)

    line.click(act, None, line, trigger_mode="multiple", **NO_PROGRESS, **PRIVATE)
    return line


def queue_now(workspace: Workspace):
    """An update of the queue's board, which takes no room while nothing waits."""
    html = views.queue_list(run_queue.queue_of(workspace), run_queue.going(workspace))
    return gr.update(value=html, visible=bool(html))


def _board(name: str, script: str, visible: bool = True) -> gr.HTML:
    return gr.HTML(
        elem_id=name, elem_classes="board", html_template="${value}", js_on_load=script or None, visible=visible,
        padding=False,
    )  # fmt: skip
