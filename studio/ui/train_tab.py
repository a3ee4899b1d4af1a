"""The Train tab: settings on the left, the run on the right. Every tab of the browser looks at the same run folder."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from studio.errors import StudioError
from studio.ui import actions
from studio.ui.chart import empty_chart, loss_chart
from studio.ui.thumbnails import thumbnail
from studio.ui.widgets import HIDDEN, QUIET, bar, duration, empty, field_for, note, plainly, setting
from studio.workspace import Workspace

SECTIONS = {  # heading of the folded part -> its settings, with the label where the setting's own name is too short
    "Adapter": {"adapter.kind": "", "adapter.alpha": "", "adapter.targets": ""},
    "Training": {
        "training.batch_size": "",
        "training.seed": "",
        "training.warmup": "",
        "training.min_snr_gamma": "Min-SNR gamma",
        "training.checkpoint_every": "",
        "data.caption_dropout": "",
        "data.flip": "Mirror pictures",
    },
    "Previews": {
        "preview.every": "Preview every",
        "preview.steps": "Preview steps",
        "preview.guidance": "Preview guidance",
        "preview.seed": "Preview seed",
    },
    "Held-out pictures": {"validation.every": "Look every", "validation.fraction": "Share held out"},
}
EXPERT = tuple(key for keys in SECTIONS.values() for key in keys)
NO_RUN = empty("No run yet", "Choose a dataset and press Start. A first run of 200 steps takes minutes on a laptop.")
PREVIEWS = 24  # the newest ones shown


@dataclass(frozen=True)
class TrainTab:
    """What the other tabs need: the dataset field, and the button that goes on to generating."""

    dataset: gr.Dropdown
    run: gr.Dropdown
    onward: gr.Button


def train_tab(workspace: Workspace, demo: gr.Blocks, timer: gr.Timer) -> TrainTab:
    """Build the tab inside the caller's gr.Tab."""
    seen = gr.State({})  # what this browser tab has shown: {"runs", "stamp", "previews", "busy"}
    prompts_help = setting("preview.prompts")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            dataset = gr.Dropdown(label="Dataset", choices=[], elem_id="train-dataset", interactive=True)
            name = gr.Textbox(
                label="Name of the run", placeholder="the dataset's name", max_lines=1, elem_id="run-name"
            )
            with gr.Row(elem_classes="aligned"):
                steps = field_for("training.steps", "Steps", min_width=130)
                rank = field_for("adapter.rank", "Rank", min_width=130)
            rate = field_for("training.learning_rate", "Learning rate")
            prompts = gr.Textbox(
                label="Preview prompts",
                info="One a line. A picture of each is made while training goes on.",
                value="\n".join(prompts_help.default or []),
                lines=3,
                max_lines=8,
                elem_id="preview-prompts",
            )
            with gr.Accordion("More settings", open=False, elem_id="expert"):
                expert = []
                for title, fields in SECTIONS.items():
                    gr.Markdown(f"### {title}", elem_classes="heading")
                    with gr.Row(elem_classes="aligned"):
                        expert += [field_for(key, label, min_width=140) for key, label in fields.items()]
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="start", min_width=140)
                stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=90)
            why = gr.HTML(elem_id="why")
        with gr.Column(scale=9, min_width=320):
            run = gr.Dropdown(label="Run", choices=[], elem_id="run", visible=False, interactive=True)
            status = gr.HTML(NO_RUN, elem_id="status")
            chart = gr.HTML(empty_chart("The loss is drawn here as training goes on."), elem_id="loss", visible=False)
            heading = gr.Markdown("### Previews", elem_classes="heading", visible=False)
            previews = gr.Gallery(
                show_label=False,
                columns=6,
                height="auto",
                buttons=[],
                object_fit="contain",
                interactive=False,
                visible=False,
                elem_id="previews",
                elem_classes="gallery",
            )
            with gr.Row():
                onward = gr.Button("Try this adapter →", size="md", visible=False, elem_id="to-generate")
                download = gr.DownloadButton("Download adapter", size="md", visible=False, elem_id="download")

    @plainly
    def begin(chosen, wanted, n_steps, n_rank, learning_rate, lines, *more):
        values = {
            "dataset": chosen,
            "name": (wanted or "").strip(),
            "training.steps": n_steps,
            "adapter.rank": n_rank,
            "training.learning_rate": learning_rate,
            "preview.prompts": [line.strip() for line in (lines or "").splitlines() if line.strip()],
        }
        values.update({key: value for key, value in zip(EXPERT, more, strict=True) if value not in ("", None)})
        values.update(_lists(values))
        started = actions.start_training(workspace, values)
        return gr.update(interactive=False), gr.update(interactive=True), note(f"{started}: loading the base model.")

    def halt():
        actions.stop_job("train")
        return gr.update(interactive=False), note("Stopping after this step.")

    def watch(chosen, last):
        """Every second, in every browser tab: what is new about the chosen run. Skips when nothing is."""
        last = last or {}
        names, job = actions.list_run_names(workspace), actions.running()
        if names and names[0] not in last.get("runs", []):  # a new run, or this tab's first look: follow it
            current = actions.current_run() if actions.current_run() in names else names[0]
        else:
            current = chosen if chosen in names else next(iter(names), "")
        latest = actions.latest["train"].job if "train" in actions.latest else None
        busy = (job and (id(job), job.stop_event.is_set()), latest and latest.state)
        stamp = (*actions.run_stamp(workspace, current), busy) if current else (None, busy)
        if last and (stamp, names) == (last["stamp"], last["runs"]):
            return [gr.skip()] * 11
        start_state, stop_state, reason = _buttons(job, latest)
        if not current:
            fresh = {"runs": names, "stamp": stamp, "previews": None}
            return fresh, start_state, stop_state, reason, *([gr.skip()] * 7)
        try:
            view = actions.run_view(workspace, current)
        except StudioError:  # its folder went away under our eyes: the next look sees the list without it
            return [gr.skip()] * 11
        pictures, title, mark = gr.skip(), gr.skip(), (current, len(view.previews))
        if mark != last.get("previews"):
            newest = view.previews[: -PREVIEWS - 1 : -1]
            cells = [(str(thumbnail(workspace, path)), f"{s:,} · {p}") for s, p, path in newest]
            pictures = gr.update(value=cells, visible=bool(cells))
            title = gr.update(visible=bool(cells))
        fresh = {"runs": names, "stamp": stamp, "previews": mark}
        same = names == last.get("runs") and current == chosen
        ready = bool(view.adapter) and view.state != "running"
        copy = actions.download_copy(workspace, view.name) if ready else None
        return (
            fresh,
            start_state,
            stop_state,
            reason,
            gr.skip() if same else gr.update(choices=names, value=current, visible=True),
            _status(view),
            gr.update(value=loss_chart(view.losses, view.validation, view.steps), visible=True),
            title,
            pictures,
            gr.update(visible=ready),
            gr.update(visible=ready, value=str(copy) if copy else None),
        )

    def load_choices():
        return gr.update(choices=actions.list_datasets(workspace))  # no value: the person may be choosing one now

    quiet = {**QUIET, **HIDDEN}
    outputs = [seen, start, stop, why, run, status, chart, heading, previews, onward, download]
    for event in (timer.tick, demo.load, run.input):
        event(watch, [run, seen], outputs, concurrency_limit=None, **quiet)
    demo.load(load_choices, None, dataset, **quiet)
    dataset.focus(load_choices, None, dataset, **quiet)
    start.click(begin, [dataset, name, steps, rank, rate, prompts, *expert], [start, stop, why], **quiet)
    stop.click(halt, None, [stop, why], **quiet)
    return TrainTab(dataset, run, onward)


def _lists(values: dict) -> dict:
    """Settings that hold several words, typed with commas between them."""
    lists = {}
    for key, value in values.items():
        if key in EXPERT and isinstance(value, str) and isinstance(setting(key).default, list | tuple):
            lists[key] = [part.strip() for part in value.split(",") if part.strip()]
    return lists


def _buttons(job, latest) -> tuple:
    """Updates for Start, Stop and the line that says why Start can't be pressed."""
    training = job is not None and job.kind == "train"
    stopping = training and job.stop_event.is_set()
    if job is None:
        failed = latest is not None and latest.state == "failed"
        reason = note(f"The last run failed: {latest.error}", bad=True) if failed else ""
    elif stopping:
        reason = note("Stopping after this step.")
    elif training:
        reason = note("A run is going on. You can close this page: it goes on, and you find it here again.")
    else:
        reason = note(f"{job.title} is going on: wait until it is done, or stop it in the Dataset tab.")
    return gr.update(interactive=job is None), gr.update(interactive=training and not stopping), reason


def _status(view) -> str:
    """Name, state, step, speed and time left as a few large numbers."""
    facts = [("step", f"{view.step:,} of {view.steps:,}")]
    if view.losses:
        facts.append(("loss", f"{view.losses[-1][2]:.4f}"))
    if view.validation and view.validation[-1][2]:
        _, held, base = view.validation[-1]
        facts.append(("held-out against base", f"{100 * (held / base - 1):+.0f} %".replace("-", "−")))
    if view.rate:
        speed = f"{view.rate:.1f} steps a second" if view.rate >= 1 else f"{1 / view.rate:.1f} s a step"
        facts.append(("speed", speed))
    if view.state == "running" and view.rate:
        facts.append(("time left", duration(view.seconds_left)))
    cells = "".join(f"<div><span>{escape(label)}</span><b>{escape(value)}</b></div>" for label, value in facts)
    title = f'<div class="note"><b>{escape(view.name)}</b> <span class="pill {view.state}">{view.state}</span></div>'
    problem = note(view.message, bad=view.state == "failed") if view.message else ""
    return title + bar(view.step, view.steps) + f'<div class="facts">{cells}</div>' + problem
