"""The Train tab: settings on the left, runs on the right. Every tab of the browser looks at the same run folders."""

from dataclasses import dataclass

import gradio as gr

from studio.errors import StudioError
from studio.services import run_queue, runs
from studio.services.jobs import latest, running, stop_job
from studio.services.thumbnails import thumbnail
from studio.web.components.fields import NO_PROGRESS, PRIVATE, gallery
from studio.web.components.html import empty, note
from studio.web.components.loss_chart import empty_chart, loss_chart
from studio.web.components.polling import Beat
from studio.web.errors import show_errors
from studio.web.train import run_details, status
from studio.web.train.all_runs import queue_board, queue_now, runs_board
from studio.web.train.form import LABELS, shown_in, train_form, typed
from studio.workspace import Workspace

NO_RUN = empty("No run yet", "Choose a dataset and press Start. A first run of 200 steps takes minutes on a laptop.")
PREVIEWS = 24  # the newest ones shown


@dataclass(frozen=True)
class TrainTab:
    """What the other tabs need: the dataset field, and the button that goes on to generating."""

    dataset: gr.Dropdown
    run: gr.Dropdown
    onward: gr.Button


def train_tab(workspace: Workspace, demo: gr.Blocks, timer: Beat) -> TrainTab:
    """Build the tab inside the caller's gr.Tab."""
    pulse = gr.State("")
    seen = gr.State({})  # what this browser tab has shown: {"runs", "stamp", "previews", "warnings", "check"}
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            form = train_form(workspace, demo)
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="start", min_width=120)
                check = gr.Button("Check first", elem_id="check", min_width=120)
                enqueue = gr.Button("Add to queue", visible=False, elem_id="enqueue", min_width=120)
            with gr.Row():
                pause = gr.Button("Pause", size="md", interactive=False, elem_id="pause", min_width=90)
                stop = gr.Button("Stop", size="md", interactive=False, elem_id="stop", min_width=90)
            why = gr.HTML(elem_id="why", visible=False, padding=False)
            queue = queue_board(workspace)
            report = gr.HTML(elem_id="report", visible=False, padding=False)
            use = gr.Button("Use this", size="md", visible=False, elem_id="use-proposal")
        with gr.Column(scale=9, min_width=320), gr.Tabs(elem_id="train-tabs") as tabs:
            with gr.Tab("This run", id="one", elem_id="tab-one") as one:
                run = gr.Dropdown(  # custom, since a run that was just deleted may still be asked for
                    label="Run", choices=[], allow_custom_value=True, elem_id="run", visible=False, interactive=True
                )
                shown = gr.HTML(NO_RUN, elem_id="status", padding=False)
                with gr.Row(elem_classes="tools"):
                    small = {"size": "md", "visible": False, "scale": 0, "min_width": 150}
                    onward = gr.Button("Try this adapter →", elem_id="to-generate", **small)
                    download = gr.DownloadButton("Download adapter", elem_id="download", **small)
                    again = gr.Button("Resume this run", elem_id="resume", **small)
                    copy = gr.Button("Copy settings", elem_id="copy-settings", **small)
                    with gr.Row(visible=False, elem_classes="more", elem_id="extend") as extending:
                        more = gr.Number(
                            100, precision=0, show_label=False, container=False, min_width=80, elem_id="more-steps"
                        )
                        extend = gr.Button("More steps", size="md", min_width=110, elem_id="go-on")
                chart = gr.HTML(
                    empty_chart("The loss is drawn here as training goes on."), elem_id="loss", visible=False,
                    padding=False,
                )  # fmt: skip
                warnings = gr.HTML(elem_id="warnings", visible=False, padding=False)
                heading = gr.Markdown("### Previews", elem_classes="heading", visible=False)
                previews = gallery("previews")
                with gr.Accordion("Hardest pictures", open=False, visible=False, elem_id="hardest") as hard:
                    hard_note = gr.HTML()
                    hard_pictures = gallery("hard-pictures")
                with gr.Column(visible=False, elem_id="run-extras") as extras:
                    run_details.previews_through_time(workspace, run)
                    run_details.note_and_files(workspace, run)
                    run_details.publish_form(workspace, run, demo)
            with gr.Tab("All runs", id="all", elem_id="tab-all", render_children=True) as every:
                picked = runs_board(workspace, every, [one])

    # What is pressed ---------------------------------------------------------------------------------------------

    off = gr.update(interactive=False)

    @show_errors
    def begin(*values):
        name = runs.start_training(workspace, values=typed(*values))
        return {
            start: off,
            check: off,
            stop: gr.update(interactive=True),
            why: _line(note(f"{name}: loading the base model.")),
        }

    @show_errors
    def wait_in_line(*values):
        name = run_queue.queue_training(workspace, values=typed(*values))
        return {why: _line(note(f"{name} waits in the queue.")), queue: queue_now(workspace)}

    @show_errors
    def check_first(*values):
        job = runs.check_settings(workspace, values=typed(*values))
        return {start: off, check: off, report: gr.update(value=status.check_report(job, LABELS), visible=True)}

    @show_errors
    def use_proposal():
        job = runs.newest_check()
        proposal = job.result.proposal if job and job.result else {}
        return shown_in(form, workspace, proposal) | {use: gr.update(visible=False)}

    def halt():
        if not stop_job("train"):
            stop_job("check")
        return off, off, _line(note("Stopping after this step."))

    @show_errors
    def pause_or_resume():
        job = running("train")
        if job and job.pause_event.is_set():
            runs.resume_training(workspace)
        else:
            runs.pause_training(workspace)
        return {pause: off, why: _line(status.why_not(job, None))}

    @show_errors
    def resume_shown(name):
        runs.resume_training(workspace, name or "")
        return {again: off, why: _line(note(f"{name}: going on from its last checkpoint."))}

    @show_errors
    def extend_shown(name, steps):
        runs.extend_training(workspace, name, steps)
        return {extending: gr.update(visible=False), why: _line(note(f"{name}: going on from its last step."))}

    @show_errors
    def copy_settings(chosen):
        values = runs.run_settings(workspace, chosen)
        return shown_in(form, workspace, values) | {
            form.name: chosen, why: _line(note(f"The settings of {chosen} stand in the form.")),
        }  # fmt: skip

    # What is shown -----------------------------------------------------------------------------------------------

    def stamp_of(current) -> tuple:
        """Changes with whatever `watch` shows."""
        job, newest, checked = running(), latest.get("train"), runs.newest_check()
        busy = job and (id(job), job.stop_event.is_set(), job.pause_event.is_set(), job.paused)
        looked = checked and (id(checked), checked.state)
        line = run_queue.queue_stamp(workspace)
        return runs.run_stamp(workspace, current), busy, newest and newest.job.state, looked, line

    def feel(chosen, last):
        """Whether `watch` has anything to say. With one output: a browser pays for each output of each event."""
        names = runs.list_run_names(workspace)
        now = repr((chosen, names, stamp_of(chosen if chosen in names else "")))
        return gr.skip() if now == last else now

    def watch(chosen, last):
        """What is new about the chosen run. Skips when nothing is."""
        last = last or {}
        names, job, going = runs.list_run_names(workspace), running(), runs.current_run()
        newest, checked = latest.get("train"), runs.newest_check()
        current = chosen if chosen in names else next(iter(names), "")
        before, waited = last.get("going", ""), last.get("line", ((), False))[0]
        ended = before or last.get("ended", "")
        if going in names and going != before and (going not in waited or chosen in ("", None, ended)):
            current = going  # a run began: follow it, but not from an older one to the next of the queue
        stamp = stamp_of(current)
        looked, line = stamp[-2:]
        if last and (stamp, names) == (last["stamp"], last["runs"]):
            return [gr.skip()] * len(watched)
        fresh = {**last, "runs": names, "stamp": stamp, "check": looked, "line": line}
        fresh |= {"going": going, "ended": ended}
        updates = {seen: fresh, **buttons_now(job, newest and newest.job, bool(line[0]))}
        if line != last.get("line"):
            updates[queue] = queue_now(workspace)
        if looked != last.get("check"):
            proposal = bool(checked and checked.result and checked.result.proposal)
            updates[report] = gr.update(value=status.check_report(checked, LABELS), visible=checked is not None)
            updates[use] = gr.update(visible=proposal)
        if not current:
            return updates | nothing_shown()
        try:
            view = runs.run_view(workspace, current)
        except StudioError:  # its folder went away under our eyes: the next look sees the list without it
            return [gr.skip()] * len(watched)
        if names != last.get("runs") or current != chosen:
            updates[run] = gr.update(choices=names, value=current, visible=True)
        updates[shown] = status.run_status(view)
        updates[chart] = gr.update(value=loss_chart(view.losses, view.validations, view.steps), visible=True)
        ready, idle = bool(view.adapter) and view.state not in ("running", "paused"), job is None
        updates[onward] = gr.update(visible=ready)
        updates[download] = gr.update(
            visible=ready, value=str(copy_of) if ready and (copy_of := copied(view)) else None
        )
        updates[again] = gr.update(visible=view.state in runs.UNFINISHED, interactive=idle)
        updates[copy] = updates[extras] = gr.update(visible=True)
        updates[extending] = gr.update(visible=view.state == "finished")
        updates[extend] = gr.update(interactive=idle)
        mark = (current, len(view.previews), view.previews[-1][0] if view.previews else 0)
        if mark != last.get("previews"):
            fresh["previews"] = mark
            cells = [
                (str(thumbnail(workspace, path)), f"{step:,} · {prompt}")
                for step, prompt, path in view.previews[: -PREVIEWS - 1 : -1]
            ]
            updates[previews] = gr.update(value=cells, visible=bool(cells))
            updates[heading] = gr.update(visible=bool(cells))
        told = (current, len(view.warnings))
        if told != last.get("warnings"):  # else it would fold itself each second
            fresh["warnings"] = told
            updates[warnings] = gr.update(value=status.warnings_list(view.warnings), visible=bool(view.warnings))
        known = (current, runs.knows_hardest(workspace, current))
        if known != last.get("hardest"):
            fresh["hardest"] = known
            updates[hard] = gr.update(visible=known[1], open=False)
        return updates

    def nothing_shown() -> dict:
        """There is no run any more."""
        off = [run, chart, warnings, heading, previews, hard, extras, onward, download, again, copy, extending]
        return {part: gr.update(visible=False) for part in off} | {shown: NO_RUN}

    def buttons_now(job, newest, waiting: bool) -> dict:
        """Start, check, queue, pause, stop and the line below them: the server's state alone decides."""
        training = job is not None and job.kind == "train" and not job.stop_event.is_set()
        checking = job is not None and job.kind == "check" and not job.stop_event.is_set()
        pausing = training and job.pause_event.is_set()
        free = gr.update(interactive=job is None)
        return {
            start: free,
            check: free,
            enqueue: gr.update(visible=job is not None or waiting),
            pause: gr.update(value="Resume" if pausing else "Pause", interactive=training),
            stop: gr.update(interactive=training or checking),
            why: _line(status.why_not(job, newest)),
        }

    def copied(view):
        return runs.download_copy(workspace, view.name)

    def show_hardest(name):
        rows = runs.hardest_of(workspace, name or "")
        cells = [
            (str(thumbnail(workspace, item.path)), f"{hard:.1f} × as hard as usual · {item.caption or 'no caption'}")
            for item, hard in rows
        ]
        text = "Their loss against that of the others at the same noise. Look for wrong captions and odd pictures."
        return note(text if cells else "The pictures are not there any more."), gr.update(
            value=cells, visible=bool(cells)
        )

    def show_picked(name):
        """A run was chosen among all: it is shown on its own."""
        names = runs.list_run_names(workspace)
        if name not in names:
            return gr.skip()
        return {run: gr.update(choices=names, value=name, visible=True), tabs: gr.Tabs(selected="one"), picked: ""}

    quiet = {**NO_PROGRESS, **PRIVATE}
    watched = [
        seen, start, check, enqueue, queue, pause, stop, why, report, use, run, shown, onward, download, again, copy,
        extending, extend, chart, warnings, heading, previews, hard, extras,
    ]  # fmt: skip
    timer.tick(feel, [run, pulse], pulse)
    for event in (pulse.change, demo.load, run.input):
        event(watch, [run, seen], watched, concurrency_limit=None, **quiet)
    start.click(begin, form.inputs, [start, check, stop, why], **quiet)
    enqueue.click(wait_in_line, form.inputs, [why, queue], **quiet)
    picked.change(show_picked, picked, [run, tabs, picked], **quiet)
    check.click(check_first, form.inputs, [start, check, report], **quiet)
    use.click(use_proposal, None, [*form.fields.values(), use], **quiet)
    pause.click(pause_or_resume, None, [pause, why], **quiet)
    stop.click(halt, None, [stop, pause, why], **quiet)
    again.click(resume_shown, run, [again, why], **quiet)
    extend.click(extend_shown, [run, more], [extending, why], **quiet)
    copy.click(copy_settings, run, [*form.inputs, why], **quiet)
    hard.expand(show_hardest, run, [hard_note, hard_pictures], **quiet)
    return TrainTab(form.dataset, run, onward)


def _line(html: str):
    """The line below the buttons; it takes no room when it is empty."""
    return gr.update(value=html, visible=bool(html))
