"""The Train tab: settings on the left, runs on the right. Every page that is open shows the same run folders."""

import gradio as gr

from studio.errors import StudioError
from studio.services import run_queue, runs
from studio.services.jobs import latest, running
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.train import all_runs, controls, form, planning, run_view
from studio.web.train.all_runs import queue_update
from studio.web.train.context import TrainContext

# On a phone the run lies below the form; on a wide page it may have been scrolled out of sight.
IN_VIEW_JS = """() => { setTimeout(() => {
    if (!document.getElementById('stop')) return;
    const run = document.getElementById('train-tabs');
    const hidden = innerWidth < 900 || run.getBoundingClientRect().top < 0;
    if (hidden) run.scrollIntoView({behavior: 'smooth', block: 'start'});
}, 100); }"""


class TrainTab:
    """dataset: of the form; run: the one that is shown; onward: the button that goes on to generating; recipe: hidden,
    the preview that Generate is to take.

    stamp   changes with whatever is shown. The poller asks for it alone: a browser pays for each output of each event
    seen    what this page has shown: {"runs", "stamp", "check", "line", "going", "ended", "previews", ...}
    """

    def __init__(self, page: PageContext):
        self.context, self.workspace = page, page.workspace
        self.run = gr.Dropdown(
            label="Run",
            choices=[],
            allow_custom_value=True,
            elem_id="run",
            visible=False,
            interactive=True,
            render=False,
        )
        context = TrainContext(**vars(page), run=self.run, message=controls.why_line())
        with (
            gr.Tab("Train", id="train", elem_id="tab-train", render_children=True),
            gr.Row(equal_height=False),
        ):
            self.stamp, self.seen = gr.State(""), gr.State({})
            with gr.Column(scale=4, min_width=300, elem_id="train-form"):
                self.form = form.build(context)
                self.dataset = self.form.dataset
                planning.build(context)
                self.controls = controls.build(context)
            with gr.Column(scale=9, min_width=320), gr.Tabs(elem_id="train-tabs") as self.tabs:
                self.view = run_view.build(context)
                self.all = all_runs.build(context)
        self.onward, self.recipe = self.view.onward, self.view.recipe

    def wire(self) -> None:
        run, picked = self.run, self.all.chosen
        self.outputs = [self.seen, run, *self.controls.outputs, *self.view.outputs]
        self.context.poller.watch(self.changed, [run, self.stamp], self.stamp)
        for event in (self.stamp.change, self.context.demo.load, run.input):
            event(self.watch, [run, self.seen], self.outputs, concurrency_limit=None, **QUIET)
        picked.change(self.show_picked, picked, [run, self.tabs, picked], **QUIET)
        begun = self.controls.begun.then(self.after_start, [run, self.seen], [*self.outputs, self.tabs], **QUIET)
        begun.then(None, None, None, js=IN_VIEW_JS, **QUIET)

    def stamp_of(self, current) -> tuple:
        """Changes with whatever `watch` shows."""
        job, newest, checked = running(), latest.get("train"), runs.newest_check()
        busy = job and (id(job), job.stop_event.is_set(), job.pause_event.is_set(), job.paused)
        check = checked and (id(checked), checked.state)
        queue = run_queue.queue_stamp(self.workspace)
        return runs.run_stamp(self.workspace, current), busy, newest and newest.job.state, check, queue

    def changed(self, chosen, last):
        """A new stamp when `watch` has news."""
        names = runs.list_run_names(self.workspace)
        now = repr((chosen, names, self.stamp_of(chosen if chosen in names else "")))
        return gr.skip() if now == last else now

    def watch(self, chosen, last):
        """What is new about the chosen run."""
        last = last or {}
        names, job, newest = runs.list_run_names(self.workspace), running(), latest.get("train")
        current, followed = followed_run(chosen, names, runs.current_run(), last)
        stamp = self.stamp_of(current)
        check, queue = stamp[-2:]
        if last and (stamp, names) == (last["stamp"], last["runs"]):
            return gr.skip()
        fresh = {**last, **followed, "runs": names, "stamp": stamp, "check": check, "line": queue}
        updates = self.controls.updates(job, newest and newest.job, bool(queue[0]))
        if queue != last.get("line"):
            updates[self.controls.queue] = queue_update(self.workspace)
        if check != last.get("check"):
            updates |= self.controls.check_updates()
        if not current:
            return updates | self.view.nothing() | {self.seen: fresh}
        try:
            view = runs.run_view(self.workspace, current)
        except StudioError:  # its folder was deleted meanwhile: the next poll finds the list without it
            return gr.skip()
        if names != last.get("runs") or current != chosen:
            updates[self.run] = gr.update(choices=names, value=current, visible=True)
        of_run, shown = self.view.updates(view, job is None, last)
        return updates | of_run | {self.seen: fresh | shown}

    def after_start(self, chosen, last):
        """Start was pressed: what it started is shown at once, not at the next poll."""
        if not running("train"):
            return gr.skip()
        updates = self.watch(chosen, last)
        return {self.tabs: gr.Tabs(selected="one")} | ({} if updates == gr.skip() else updates)

    def show_picked(self, name):
        """A run was chosen among all: it is shown on its own."""
        names = runs.list_run_names(self.workspace)
        if name not in names:
            return gr.skip()
        return {
            self.run: gr.update(choices=names, value=name, visible=True),
            self.tabs: gr.Tabs(selected="one"),
            self.all.chosen: "",
        }


def build(context: PageContext) -> TrainTab:
    """The tab, inside the caller's gr.Tabs."""
    part = TrainTab(context)
    part.wire()
    return part


def followed_run(chosen, names: list[str], going: str, last: dict) -> tuple[str, dict]:
    """(the run to show, what to remember of it). A run that begins is shown, but not when the person looks at an older
    one and the queue goes on to the next."""
    current = chosen if chosen in names else next(iter(names), "")
    before, waited = last.get("going", ""), last.get("line", ((), False))[0]
    ended = before or last.get("ended", "")
    if going in names and going != before and (going not in waited or chosen in ("", None, ended)):
        current = going
    return current, {"going": going, "ended": ended}
