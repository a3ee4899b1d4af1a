"""The health of a set, mended by one click, and how well captions fit. A part of the Dataset tab."""

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.services import base_models, captioning, datasets
from studio.services.base_models import DEFAULT_SIZE
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import thumbnail
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE, encoder_fields
from studio.web.components.html import empty, note, progress_bar
from studio.web.components.polling import Beat
from studio.web.errors import show_errors, show_warning
from studio.workspace import Workspace

NOTHING = empty("Not checked yet", "The check looks at every picture and caption; it changes nothing by itself.")
WELL = empty("All is well", "No broken, doubled, small or blurred picture, and every caption is there.")
REMEDIES = {
    "remove the images": "Remove them",
    "keep the largest of each": "Keep the largest of each",
    "put the trigger in front": "Put the trigger in front",
    "clear the captions": "Clear these captions",
    "cut the captions at the limit": "Cut them at the limit",
    "remove the tag everywhere": "Remove the tag",
    "set the files aside": "Set the files aside",
}


def check_board(
    workspace: Workspace,
    choice: gr.Dropdown,
    trigger: gr.Textbox,
    revision: gr.State,
    asked: gr.State,
    timer: Beat,
) -> None:
    """The sub-tab. asked is given "dataset/file" of a picture that was clicked."""
    seen, suited = gr.State(None), gr.State((base_models.STARTER, DEFAULT_SIZE))  # suited: a base and its size
    with gr.Row(equal_height=False, elem_classes="low"):
        resolution = gr.Number(
            label="Training size", info="Side in pixels; smaller pictures are named.", value=DEFAULT_SIZE, precision=0,
            minimum=64, maximum=4096, elem_id="check-size", min_width=160,
        )  # fmt: skip
        check = gr.Button("Check this dataset", variant="primary", elem_id="check-set", min_width=180)
        fit = gr.Button("Find captions that don't fit", elem_id="score", min_width=240)
        stop = gr.Button("Stop", interactive=False, elem_id="stop-check-set", min_width=80, scale=0)
    encoder, download = encoder_fields(workspace, "score", "Image encoder that finds captions that don't fit")
    progress = gr.HTML(elem_id="check-progress")
    findings = clickable.board("findings", NOTHING)
    worst = clickable.board("worst")

    @show_errors
    def start(dataset, side, word):
        datasets.check_dataset(workspace, dataset, int(side or DEFAULT_SIZE), word or "")
        return note("Starting.")

    @show_errors
    def start_score(dataset, word, clip, fetch):
        captioning.score_captions(workspace, dataset, word or "", clip or "", bool(fetch))
        return note("Starting.")

    def halt():
        stop_job("health")
        stop_job("score")

    def link(dataset):
        known = dataset.by_file()

        def picture(file: str) -> str | None:
            return clickable.picture_link(thumbnail(workspace, known[file].path)) if file in known else None

        return picture

    def shown(dataset) -> str:
        """The findings of the set that is open; a note when another one was checked."""
        found = datasets.findings_of(dataset or "")
        if found is None:
            return NOTHING
        if not found:
            return WELL
        try:
            return clickable.findings(found, REMEDIES, link(datasets.view(workspace, dataset)))
        except StudioError as error:
            return note(str(error), bad=True)

    def watch(last, dataset):
        """Progress, and what was found once it is known."""
        health, score = latest.get("health"), latest.get("score")
        state = (dataset, *((id(one.job), one.job.state, one.job.done) for one in (health, score) if one))
        if state == last:
            return [gr.skip()] * 5
        going = next((one.job for one in (health, score) if one and one.job.state == "running"), None)
        line = ""
        if going:
            said = going.message if going.kind == "score" else f"{going.done:,} of {going.total:,}"
            line = progress_bar(going.done, going.total) + note(f"{going.title}: {said}")
        elif failed := next((one.job.error for one in (health, score) if one and one.job.error), None):
            line = note(failed, bad=True)
        rows = ""
        if score and score.name == dataset and score.job.state == "done":
            title = "The captions that fit their pictures least, as the image encoder sees them; click one to edit it."
            try:
                rows = note(title) + clickable.scored(score.job.result.rows, link(datasets.view(workspace, dataset)))
            except StudioError as error:
                line = line or note(str(error), bad=True)
        return state, line, shown(dataset), rows, gr.update(interactive=going is not None)

    def follow(last, side):
        """The size of the base that is chosen to be trained, unless a person typed another one."""
        base = base_models.chosen(workspace)
        if base == last[0]:
            return gr.skip()
        size = base_models.size_of(base)
        return (base, size), size if side == last[1] else gr.skip()

    @show_errors
    def act(dataset, event: gr.EventData):
        kind, arg, ticked = clickable.clicked(event)
        number, _, name = arg.partition(" ")
        if kind != "mend" or not number.isdigit():
            return gr.skip(), gr.skip()
        found = datasets.findings_of(dataset) or []
        finding = found[int(number)] if int(number) < len(found) else None
        groups = finding.groups or (finding.files,) if finding else ()
        there = [file for group in groups for file in group][: clickable.FEW]
        spared = [file for file in there if f"{number} {file}" not in ticked]
        change = datasets.mend(workspace, dataset, int(number), name, spared)
        if change.left:
            show_warning(DatasetError(change.left[0]))
        return datasets.stamp(workspace, dataset), shown(dataset)

    @show_errors
    def look(dataset, event: gr.EventData):
        kind, arg, _ = clickable.clicked(event)
        return f"{dataset}/{arg}" if kind == "open" else gr.skip()

    check.click(start, [choice, resolution, trigger], progress, **NO_PROGRESS, **PRIVATE)
    fit.click(start_score, [choice, trigger, encoder, download], progress, **NO_PROGRESS, **PRIVATE)
    stop.click(halt, None, None, **NO_PROGRESS, **PRIVATE)
    timer.tick(watch, [seen, choice], [seen, progress, findings, worst, stop])
    timer.tick(follow, [suited, resolution], [suited, resolution])
    findings.click(act, choice, [revision, findings], **NO_PROGRESS, **PRIVATE)
    worst.click(look, choice, asked, **NO_PROGRESS, **PRIVATE)
