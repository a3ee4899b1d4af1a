"""The endpoints about datasets. See api.py."""

from dataclasses import asdict
from pathlib import Path

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from studio.errors import DatasetError
from studio.schema import explain
from studio.services import captioning, datasets
from studio.services.base_models import DEFAULT_SIZE
from studio.services.jobs import stop_job
from studio.web.endpoint import endpoint, job_facts, json_of
from studio.workspace import Workspace


def dataset_endpoints(workspace: Workspace) -> None:
    """Add them to the page being built."""

    def list_datasets():
        """Names of all datasets; a sample is copied into the workspace when it is opened."""
        return [name for _, name in datasets.list_datasets(workspace)]

    def open_dataset(dataset):
        """Open a dataset of the workspace, or copy a sample into it. Answers its pictures and captions."""
        return _dataset(datasets.open_named(workspace, dataset))

    def import_pictures(files, name):
        """Add pictures or zips to a dataset, made if missing. `skipped` says what was left out and why."""
        dataset, skipped = datasets.import_files(workspace, name, files or [])
        return _dataset(dataset) | {"skipped": skipped}

    def export_dataset(dataset, background):
        """A zip of the pictures with captions as .txt beside them."""
        job = datasets.start_export(workspace, dataset, "zip", background or "")
        job.wait()
        if not isinstance(job.result, Path):
            raise DatasetError(job.error or "The export was stopped.")
        return str(job.result)

    def save_caption(dataset, file, caption):
        """Set the caption of one picture. Answers the caption as it was written."""
        return datasets.save_caption(workspace, dataset, file, caption)

    def list_captioners():
        """Every captioner: what it is and its settings with their defaults."""
        from studio.captioning import list_captioners as kinds
        from studio.schema import settings_of

        return {
            name: {
                "about": kind.about,
                "settings": [
                    {"name": setting, "default": default, "about": about}
                    for setting, default, about in settings_of(kind.settings)
                ],
            }
            for name, kind in kinds().items()
        }

    def caption_dataset(dataset, trigger, overwrite, captioner, mode, settings, download):
        """Start captioning a dataset in the background; ask job_status how it goes."""
        chosen = json_of(settings, dict, "settings")
        return job_facts(
            captioning.start_captioning(
                workspace, dataset, trigger, overwrite, captioner or "starter", chosen, mode or None, bool(download)
            )
        )

    def stop_captioning():
        """Stop captioning after the picture it is at. Answers whether anything ran."""
        return stop_job("caption")

    def check_dataset(dataset, resolution, trigger):
        """Look for broken, doubled, small, blurred pictures and bad captions. Answers what was found, by number."""
        job = datasets.start_health(workspace, dataset, int(resolution or DEFAULT_SIZE), trigger or "")
        job.wait()
        if job.error:
            raise DatasetError(job.error)
        return [{"number": number, **_finding(one)} for number, one in enumerate(job.result)]

    def score_captions(dataset, trigger):
        """How well each caption fits its picture, the worst fit first: a cosine of the built-in image encoder."""
        job = captioning.start_scoring(workspace, dataset, trigger or "")
        job.wait()
        if job.error:
            raise DatasetError(job.error)
        return asdict(job.result)

    def mend_dataset(dataset, number, remedy):
        """Do a remedy to a finding of the newest check_dataset, undoably. The numbers after it move up by one."""
        return _change(datasets.mend(workspace, dataset, int(number or 0), remedy))

    def edit_captions(dataset, operation, first, second, filter, write):
        """Edit many captions. Answers what would change, or with `write` what was changed, undoably."""
        from studio.datasets.bulk import Filter

        try:
            wanted = TypeAdapter(Filter).validate_python(json_of(filter, dict, "filter"))
        except ValidationError as error:
            raise DatasetError(f"filter.{explain(error)}") from None
        found = datasets.propose(workspace, dataset, wanted, operation, first, second)
        if write:
            return _change(datasets.accept(workspace, dataset, found, operation))
        return [one._asdict() for one in found]

    def remove_pictures(dataset, files):
        """Take pictures out of the set, undoably."""
        return _change(datasets.remove(workspace, dataset, json_of(files, list, "files")))

    def undo(dataset):
        """Take back the newest change of a dataset."""
        return _change(datasets.turn_back(workspace, dataset, "undo"))

    def redo(dataset):
        """Make again what was undone last."""
        return _change(datasets.turn_back(workspace, dataset, "redo"))

    def dataset_history(dataset):
        """Every change of a dataset, newest first."""
        from studio.datasets import history

        return [asdict(step) for step in history(datasets.open_named(workspace, dataset))[:500]]

    def trigger_report(word):
        """How the base's tokenizer splits a candidate for a trigger word, and whether it means something already."""
        return asdict(captioning.look_at_trigger(workspace, word))

    with gr.Column(visible=False):
        answer, text = gr.JSON(label="answer"), gr.Textbox(label="answer")
        yes = gr.Checkbox(label="whether anything ran")
        dataset = gr.Textbox(label="dataset: a name, as in the Dataset tab", value="")
        word = gr.Textbox(label="trigger word", value="")
        endpoint(list_datasets, [], answer)
        endpoint(open_dataset, [dataset], answer)
        pictures = gr.File(label="files: pictures or zips", file_count="multiple")
        endpoint(import_pictures, [pictures, gr.Textbox(label="name of the dataset", value="my-pictures")], answer)
        colour = gr.Textbox(label="background: a colour for transparent pictures; empty: they stay", value="")
        endpoint(export_dataset, [dataset, colour], gr.File(label="the zip"))
        file = gr.Textbox(label="file: the picture's name, as open_dataset says it", value="")
        endpoint(save_caption, [dataset, file, gr.Textbox(label="caption", value="")], text)
        endpoint(list_captioners, [], answer)
        again = gr.Checkbox(label="overwrite captions that are there already", value=False)
        more = [
            gr.Textbox(label="captioner: a name of list_captioners", value="starter"),
            gr.Textbox(label="mode: skip, overwrite, append or refresh; empty: skip", value=""),
            gr.JSON(label="settings of the captioner", value={}),
            gr.Checkbox(label="download its model if it is missing", value=False),
        ]
        endpoint(caption_dataset, [dataset, word, again, *more], answer)
        endpoint(stop_captioning, [], yes)
        side = gr.Number(label="resolution: what will be trained at, in pixels", value=DEFAULT_SIZE, precision=0)
        endpoint(check_dataset, [dataset, side, word], answer)
        endpoint(score_captions, [dataset, word], answer)
        number = gr.Number(label="number of the finding", value=0, precision=0)
        endpoint(mend_dataset, [dataset, number, gr.Textbox(label="remedy: one of the finding's", value="")], answer)
        edit = [
            gr.Textbox(label=f"operation: {', '.join(datasets.OPERATIONS)}", value=""),
            gr.Textbox(label="first: the tag or text", value=""),
            gr.Textbox(label="second: the new name or text", value=""),
            gr.JSON(label='filter: such as {"has": "cat", "captioned": true}', value={}),
            gr.Checkbox(label="write: change them and do not only tell", value=False),
        ]
        endpoint(edit_captions, [dataset, *edit], answer)
        endpoint(remove_pictures, [dataset, gr.JSON(label="files: a list of names", value=[])], answer)
        endpoint(undo, [dataset], answer)
        endpoint(redo, [dataset], answer)
        endpoint(dataset_history, [dataset], answer)
        endpoint(trigger_report, [word], answer)


def _dataset(dataset) -> dict:
    items = [{"file": dataset.file_of(item), "caption": item.caption} for item in dataset.items]
    return {"name": dataset.name, "items": items, "problems": list(dataset.problems)}


def _finding(finding) -> dict:
    fields = ("kind", "message", "files", "remedies", "details", "groups")
    return {name: getattr(finding, name) for name in fields}


def _change(change) -> dict:
    return {"label": change.label, "files": change.files, "left": change.left}
