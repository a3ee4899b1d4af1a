"""Masks of many images: made by a model, from files, cleared; what is trained of each. A part of the Dataset tab."""

import gradio as gr

from studio.datasets.mask_models import MISSING, is_installed
from studio.errors import DatasetError
from studio.schema import setting
from studio.services import datasets, masks
from studio.services.jobs import latest, running, stop_job
from studio.services.operations import all_operations
from studio.services.thumbnails import GRID
from studio.web.components.fields import QUIET, gallery
from studio.web.components.html import first_lines, job_report, note
from studio.web.dataset.context import DatasetContext
from studio.web.dataset.images import PAGE
from studio.web.errors import show_errors, show_warning

NOTHING_SHOWN = ()  # a job that is done before "Starting." arrives would else count as shown


class Masks:
    """The sub-tab. Its buttons are about the images that the filter under Images lets through.

    files: of the gallery, so that a click names an image, not a position
    """

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        schema = all_operations()["make_masks"].model
        with (
            gr.Tab("Masks", id="masks", elem_id="tab-masks", render_children=True),
            gr.Row(equal_height=False),
        ):
            self.seen, self.files = gr.State(None), gr.State([])
            with gr.Column(scale=2, min_width=260):
                known = setting(schema, "model")
                self.missing = gr.HTML(note(MISSING), visible=not is_installed(), elem_id="masks-missing")
                self.model = gr.Dropdown(
                    list(known.choices or ()),
                    value=known.default,
                    label="Mask model",
                    info="Finds the main thing of each image that the filter under Images lets through.",
                    elem_id="mask-model",
                )
                self.overwrite = self._box(schema, "overwrite", "Replace masks")
                self.invert = self._box(schema, "invert", "Learn the background")
                self.download = self._box(schema, "download", "Download its model if it is missing")
                with gr.Row():
                    self.make = gr.Button(
                        "Make masks", variant="primary", interactive=is_installed(), elem_id="make-masks", min_width=150
                    )
                    self.stop = gr.Button("Stop", interactive=False, elem_id="stop-masks", min_width=70, scale=0)
                self.progress = gr.HTML(elem_id="masks-progress")
                with gr.Row():
                    self.upload = gr.UploadButton(
                        "Masks from files", file_count="multiple", size="sm", elem_id="mask-files", min_width=120
                    )
                    self.clear = gr.Button("Clear masks", size="sm", elem_id="clear-masks", min_width=100)
                self.left = gr.HTML(elem_id="masks-left")
            with gr.Column(scale=5, min_width=320):
                self.summary = gr.HTML(elem_id="masks-summary")
                self.grid = gallery("masked", allow_preview=False)

    @staticmethod
    def _box(schema, key: str, label: str) -> gr.Checkbox:
        known = setting(schema, key)
        return gr.Checkbox(label=label, info=known.description, value=False, elem_id=f"mask-{key}")

    def wire(self) -> None:
        context, listing = self.context, self.context.images.listing
        started = [self.progress, self.stop, self.seen]
        inputs = [self.model, self.overwrite, self.invert, self.download, *listing]
        self.make.click(self.start, inputs, started, **QUIET)
        self.stop.click(halt, None, None, **QUIET)
        self.upload.upload(self.take, [self.upload, context.choice], [self.left, context.revision], **QUIET)
        self.clear.click(self.remove, listing, [self.left, context.revision], **QUIET)
        context.poller.watch(self.watch, self.seen, [self.seen, self.make, self.stop, self.progress])
        shown = [self.summary, self.grid, self.files]
        for event in (context.revision.change, *(field.change for field in listing[1:])):
            event(self.show, listing, shown, trigger_mode="always_last", **QUIET)
        self.grid.select(open_selected, [self.files, context.choice], context.requested, **QUIET)

    @show_errors
    def show(self, *listing):
        """The first images that the filter lets through, as a run with masks sees them."""
        if not listing[0]:
            return gr.skip()
        dataset, items = self.context.images.listed(*listing)
        with_mask = [item for item in items if item.mask_file is not None][:PAGE]
        cells = [(str(masks.trained_view(self.workspace, item, side=GRID)), item.file) for item in with_mask]
        more = f" The first {PAGE} of those are shown." if len(with_mask) == PAGE else ""
        text = f"{masks.counted(dataset)}; what is dark is not learned, where Use masks of a run is on.{more}"
        return {
            self.summary: note(text),
            self.grid: gr.update(value=cells, visible=bool(cells), selected_index=None),
            self.files: [dataset.file_of(item) for item in with_mask],
        }

    def chosen(self, listing) -> tuple[str, list[str]]:
        """(the dataset, the images that the filter lets through). Raises DatasetError where there is none."""
        dataset, items = self.context.images.listed(*listing)
        if not items:
            raise DatasetError("The filter under Images lets no image through.")
        return dataset.name, [dataset.file_of(item) for item in items]

    @show_errors
    def start(self, model, overwrite, invert, download, *listing):
        name, files = self.chosen(listing)
        masks.make_masks(self.workspace, name, files, model, bool(overwrite), bool(invert), bool(download))
        return {
            self.progress: note("Starting."),
            self.stop: gr.update(interactive=True),
            self.seen: NOTHING_SHOWN,
        }

    @show_errors
    def take(self, files, dataset):
        change = masks.set_masks(self.workspace, files or [], dataset or "")
        return {
            self.left: note(f"{change.label}.") + first_lines(change.left, bad=True),
            self.context.revision: datasets.stamp(self.workspace, dataset),
        }

    @show_errors
    def remove(self, *listing):
        name, files = self.chosen(listing)
        change = masks.clear_masks(self.workspace, name, files)
        if change.left:
            show_warning(DatasetError(change.left[0]))
        return {
            self.left: note(f"{change.label}; Undo brings them back."),
            self.context.revision: datasets.stamp(self.workspace, name),
        }

    def watch(self, last):
        newest, busy = latest.get(masks.KIND), running()
        job = newest.job if newest else None
        state = busy and id(busy), job and (id(job), job.state, job.done, job.message)
        if state == last:
            return gr.skip()
        updates = {
            self.seen: state,
            self.make: gr.update(interactive=busy is None and is_installed()),
            self.stop: gr.update(interactive=job is not None and job.state == "running"),
        }
        return updates | ({self.progress: job_report(job)} if job else {})


def build(context: DatasetContext) -> Masks:
    """The sub-tab. Images is built before it."""
    part = Masks(context)
    part.wire()
    return part


def halt():
    stop_job(masks.KIND)


def open_selected(event: gr.SelectData, files, dataset):
    index = event.index if isinstance(event.index, int) else -1
    return f"{dataset}/{files[index]}" if 0 <= index < len(files) else gr.skip()
