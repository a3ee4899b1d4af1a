"""All runs: a list to find, select, compare and delete in, with what is selected drawn below it; and the queue."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.services import run_library, run_queue, runs
from studio.training.setting_groups import NAMES
from studio.web.components.clickable import clickable_html, clicked
from studio.web.components.fields import QUIET
from studio.web.components.loss_chart import compare_chart
from studio.web.errors import show_errors
from studio.web.train import views
from studio.web.train.context import TrainContext
from studio.web.train.views import LIST_JS, PAGE, TIMELINE_JS
from studio.workspace import Workspace

FRESH: dict = {
    "selected": [],
    "rows": [],
    "sure": False,
    "shown": PAGE,
    "stamp": None,
    "drawn": None,
}
IN_TURN = {**QUIET, "concurrency_id": "runs", "concurrency_limit": 1}  # else an update would restore an older selection


class AllRuns:
    """The sub-tab. While the other one is open, nothing here is asked for.

    held     what this page holds: FRESH
    chosen   hidden: the run that was chosen to be shown
    """

    def __init__(self, context: TrainContext):
        self.workspace, self.other = context.workspace, context.run_tab
        with gr.Tab("All runs", id="all", elem_id="tab-all", render_children=True) as self.tab:
            self.held, self.timer = gr.State(FRESH), gr.Timer(1, active=False)
            self.chosen = gr.Textbox(visible=False)
            self.filters = _filters()
            self.listed = clickable_html("runs", script=LIST_JS, padding=False)
            self.deleted = clickable_html("runs-trash", script=LIST_JS, padding=False)
            self.chart = gr.HTML(elem_id="runs-chart", visible=False, padding=False)
            self.table = clickable_html("runs-settings", script="", visible=False, padding=False)
            self.timeline = clickable_html("runs-timeline", script=TIMELINE_JS, visible=False, padding=False)
        self.outputs = [self.held, self.listed, self.deleted, self.chart, self.table, self.timeline]

    def wire(self) -> None:
        inputs, timed = [self.held, *self.filters], [*self.outputs, self.timer]
        self.tab.select(self.refresh, inputs, timed, **IN_TURN)
        self.other.select(lambda: gr.Timer(active=False), None, self.timer, **QUIET)
        for field in self.filters:
            field.change(self.refresh, inputs, timed, trigger_mode="always_last", **IN_TURN)
        self.timer.tick(self.watch, inputs, self.outputs, **IN_TURN)
        for part in (self.listed, self.deleted):
            part.click(self.act, inputs, [*self.outputs, self.chosen], trigger_mode="multiple", **IN_TURN)

    @show_errors
    def refresh(self, now, *filters):
        """The tab was opened, or the filter changed."""
        now = {**FRESH, **(now or {}), "shown": PAGE, "sure": False}
        return self.updates(now, *filters) | {self.timer: gr.Timer(active=True)}

    @show_errors
    def watch(self, now, *filters):
        """Each second while the tab is open."""
        now = now or FRESH
        if now["stamp"] and not now["stamp"][-1] and run_library.list_stamp(self.workspace) == now["stamp"][:-1]:
            return gr.skip()
        return self.updates(dict(now), *filters)

    @show_errors
    def act(self, now, text, state, order, event: gr.EventData):
        did, arg, selected = clicked(event)
        now = {**FRESH, **(now or {})}
        if did in ("select", "delete"):
            now["selected"] = still_selected(now["selected"], selected, now["rows"])
        steps: dict[str, Callable] = {
            "clear": lambda: now.update(selected=[]),
            "more": lambda: now.update(shown=now["shown"] + PAGE),
            "delete": lambda: run_library.move_to_trash(self.workspace, selected),
            "undo": lambda: run_library.restore_run(self.workspace, arg),
            "really": lambda: run_library.empty_trash(self.workspace),
        }
        now["sure"] = did == "empty"
        if did == "open":
            return {self.chosen: arg, self.held: now}
        if did in steps:
            steps[did]()
        return self.updates(now, text, state, order)

    def updates(self, now: dict, *filters) -> dict[Any, Any]:
        """Of everything, given what this page holds."""
        workspace = self.workspace
        found, total, left = run_library.all_runs(workspace, *filters)
        known = set(runs.list_run_names(workspace))
        now["selected"] = [name for name in now["selected"] if name in known]
        now["stamp"] = (*run_library.list_stamp(workspace), left)
        rows = run_library.rows(workspace, found[: now["shown"]])
        now["rows"] = [row.run.name for row in rows]
        return {
            self.listed: views.run_list(rows, now["selected"], len(found), total, left),
            self.deleted: views.trash_line(run_library.trashed_runs(workspace), now["sure"]),
            **self.compared(now),
            self.held: now,
        }

    def compared(self, now: dict) -> dict[Any, Any]:
        """The selected runs, drawn again when they have changed."""
        workspace, names = self.workspace, now["selected"][: run_library.COMPARED]
        courses = run_library.courses(workspace, names)
        drawn = [
            (name, len(one.trained), one.trained[-1:], len(one.held_out), len(one.previews)) for name, one in courses
        ]
        if drawn == now["drawn"]:
            return {}
        now["drawn"] = drawn
        previews = [(name, run_library.timeline(workspace, name, one, len(courses))) for name, one in courses]
        on, names = bool(courses), [name for name, _ in courses]
        rows = views.settings_table(names, run_library.differences(workspace, names), NAMES)
        return {
            self.chart: gr.update(value=compare_chart(courses) if on else "", visible=on),
            self.table: gr.update(value=rows, visible=bool(rows)),
            self.timeline: gr.update(value=views.timeline(previews) if on else "", visible=on),
        }


def build(context: TrainContext) -> AllRuns:
    """The sub-tab. The view of one run is built before it."""
    part = AllRuns(context)
    part.wire()
    return part


def _filters() -> list[Any]:
    with gr.Row(elem_classes="runs-filter"):
        return [
            gr.Textbox(
                label="Find",
                placeholder="name, dataset, base, note",
                max_lines=1,
                elem_id="runs-text",
                min_width=180,
                scale=3,
            ),
            gr.Dropdown(
                [("all", ""), *run_library.STATES],
                value="",
                label="State",
                elem_id="runs-state",
                min_width=120,
                interactive=True,
            ),
            gr.Dropdown(
                list(run_library.SORTS),
                value=next(iter(run_library.SORTS)),
                label="Sort by",
                elem_id="runs-sort",
                min_width=160,
                interactive=True,
            ),
        ]


def still_selected(before: list[str], selected: list[str], rows: list[str]) -> list[str]:
    """What is selected now, hidden by the filter or not; each keeps its place, which decides its colour."""
    still = [name for name in before if name in selected or name not in rows]
    return [*still, *(name for name in selected if name not in before)]


class Queue:
    """The runs that wait, below the buttons that start them; `queue_update` fills it."""

    def __init__(self, context: TrainContext):
        self.workspace = context.workspace
        self.listed = clickable_html("queue", script=LIST_JS, visible=False, padding=False)

    def wire(self) -> None:
        self.listed.click(self.act, None, self.listed, trigger_mode="multiple", **QUIET)

    @show_errors
    def act(self, event: gr.EventData):
        did, name, _ = clicked(event)
        steps: dict[str, Callable] = {
            "go": lambda: run_queue.start_queue(self.workspace),
            "hold": lambda: run_queue.pause_queue(self.workspace),
            "up": lambda: run_queue.move_in_queue(self.workspace, name, -1),
            "down": lambda: run_queue.move_in_queue(self.workspace, name, 1),
            "out": lambda: run_queue.leave_queue(self.workspace, name),
        }
        if did in steps:
            steps[did]()
        return queue_update(self.workspace)


def queue_list(context: TrainContext) -> gr.HTML:
    part = Queue(context)
    part.wire()
    return part.listed


def queue_update(workspace: Workspace):
    """An update of the queue, which takes no room while it is empty."""
    html = views.queue_list(run_queue.queue_of(workspace), run_queue.going(workspace))
    return gr.update(value=html, visible=bool(html))
