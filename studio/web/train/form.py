"""The settings of a run as a form: a preset on top, what most people change below it, and all else folded away."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import base_models, datasets, runs
from studio.services.thumbnails import cropped
from studio.web.components.base_model_picker import base_chooser
from studio.web.components.fields import NO_PROGRESS, PRIVATE, field_for, gallery, setting
from studio.web.components.html import note
from studio.web.errors import show_errors, show_warning
from studio.workspace import Workspace

GROUPS = {  # heading of a folded part -> its settings, with their labels
    "Pictures and captions": {
        "data.trigger": "Trigger word",
        "data.resolution": "Resolution",
        "data.repeats": "Repeats",
        "data.caption_dropout": "Caption dropout",
        "data.keep_tags": "Tags that stay",
        "data.outside": "Outside masks",
        "data.regularisation": "Ordinary pictures",
        "data.regularisation_weight": "Their weight",
        "data.buckets": "Keep shapes",
        "data.upscale": "Enlarge small pictures",
        "data.flip": "Mirror pictures",
        "data.shuffle_tags": "Shuffle tags",
        "data.masks": "Use masks",
    },
    "Adapter": {
        "adapter.kind": "Kind",
        "adapter.targets": "Layers",
        "adapter.alpha": "Alpha",
        "adapter.dropout": "Dropout",
        "adapter.text_encoder": "Text encoder too",
    },
    "Steps and rates": {
        "training.batch_size": "Batch size",
        "training.accumulation": "Accumulation",
        "training.optimizer": "Optimizer",
        "training.schedule": "Schedule",
        "training.warmup": "Warm-up",
        "training.restarts": "Waves",
        "training.text_encoder_rate": "Text encoder's rate",
        "training.lora_plus": "LoRA+",
        "training.weight_decay": "Weight decay",
        "training.clip": "Clip",
        "training.ema": "Averaging",
        "training.seed": "Seed",
    },
    "Loss and noise": {
        "training.loss": "Loss",
        "training.huber_c": "Huber's bend",
        "training.timesteps": "Noise levels",
        "training.shift": "Shift (flow models)",
        "training.min_snr_gamma": "Min-SNR gamma",
        "training.noise_offset": "Noise offset",
        "training.input_perturbation": "Input noise",
        "training.least_noise": "Least noise",
        "training.most_noise": "Most noise",
    },
    "Previews": {
        "preview.every": "Preview every",
        "preview.steps": "Preview steps",
        "preview.guidance": "Guidance",
        "preview.seed": "Preview seed",
    },
    "Held-out pictures": {
        "data.held_out": "Held-out pictures",
        "validation.every": "Look every",
        "validation.fraction": "Share held out",
        "validation.stop": "Stop when over-fitting",
    },
    "Saving and speed": {
        "training.checkpoint_every": "Checkpoint every",
        "training.keep_checkpoints": "Checkpoints kept",
        "training.precision": "Precision",
        "training.gradient_checkpointing": "Save memory",
        "training.compile": "Compile",
        "training.tensorboard": "TensorBoard",
    },
}
FIRST = {
    "training.steps": "Steps",
    "adapter.rank": "Rank",
    "training.learning_rate": "Learning rate",
    "preview.prompts": "Preview prompts",
}
LABELS = {"base": "Base model"} | FIRST | {key: label for group in GROUPS.values() for key, label in group.items()}
NOT_CHOSEN = {"data.held_out": "a share of the dataset", "data.regularisation": "none"}
OWN = ("base", "data.trigger", "preview.prompts", *NOT_CHOSEN)  # what no preset changes
SIZED = ("adapter.kind", "adapter.rank", "adapter.targets", "adapter.text_encoder")  # decide how much is trained
CROPS = 24


@dataclass(frozen=True)
class TrainForm:
    """The fields; `fields` by dotted setting, in the order of LABELS."""

    dataset: gr.Dropdown
    name: gr.Textbox
    fields: dict[str, Any]

    @property
    def inputs(self) -> list:
        return [self.dataset, self.name, *self.fields.values()]


def train_form(workspace: Workspace, demo: gr.Blocks) -> TrainForm:
    """Build the fields inside the caller's column."""
    chooser = base_chooser(workspace, demo, "train")
    presets = list(runs.list_presets(workspace))
    preset = gr.Dropdown(
        presets,
        value=presets[0],
        label="Preset",
        info="Fills in the settings below.",
        elem_id="preset",
        interactive=True,
    )
    dataset = gr.Dropdown(label="Dataset", choices=[], elem_id="train-dataset", interactive=True)
    name = gr.Textbox(label="Name of the run", placeholder="the dataset's name", max_lines=1, elem_id="run-name")
    with gr.Row(elem_classes="aligned"):
        steps, rank = (field_for(key, FIRST[key], min_width=130) for key in ("training.steps", "adapter.rank"))
    size = gr.HTML(elem_id="numbers", elem_classes="tight")
    rate = field_for("training.learning_rate", FIRST["training.learning_rate"])
    prompts = gr.Textbox(
        label="Preview prompts",
        info="One a line. A picture of each is made while training goes on.",
        value=as_shown("preview.prompts", setting("preview.prompts").default),
        lines=3,
        max_lines=8,
        elem_id="preview-prompts",
    )
    fields = {
        "base": chooser.choice, "training.steps": steps, "adapter.rank": rank, "training.learning_rate": rate,
        "preview.prompts": prompts,
    }  # fmt: skip
    with gr.Accordion("More settings", open=False, elem_id="expert"):
        for title, labels in GROUPS.items():
            with gr.Accordion(title, open=False, elem_classes="group", elem_id=title.split()[0].lower() + "-settings"):
                fields |= _group(labels)
    form = TrainForm(dataset, name, {key: fields[key] for key in LABELS})
    _size(workspace, demo, form, size)
    _crops(workspace, form)

    def load_choices():
        return {dataset: gr.update(choices=datasets.dataset_choices(workspace))} | {
            form.fields[key]: gr.update(choices=_folders(workspace, key)) for key in NOT_CHOSEN
        }  # no values: the person may be choosing one now

    @show_errors
    def fill(chosen, base):
        return filled(runs.list_presets(workspace, base).get(chosen, {}))

    def filled(values):
        values = defaults() | values
        return shown_in(form, workspace, {key: value for key, value in values.items() if key not in OWN})

    @show_errors
    def follow(base):
        """A base was chosen: its family's presets, and the first of them in the fields."""
        found = runs.list_presets(workspace, base)
        base_models.choose(workspace, base)
        first = next(iter(found), "")
        return filled(found.get(first, {})) | {preset: gr.update(choices=list(found), value=first)}

    @show_errors
    def presets_of(base):
        """A run's settings brought their base along."""
        return gr.update(choices=list(runs.list_presets(workspace, base)))

    quiet = {**NO_PROGRESS, **PRIVATE}
    folders = [dataset, *(form.fields[key] for key in NOT_CHOSEN)]
    demo.load(load_choices, None, folders, **quiet)
    for field in folders:
        field.focus(load_choices, None, folders, **quiet)
    preset.input(fill, [preset, chooser.choice], list(form.fields.values()), **quiet)
    chooser.when_chosen(follow, [], [preset, *form.fields.values()])
    chooser.choice.change(presets_of, chooser.choice, preset, **quiet)
    return form


def _group(labels: dict[str, str]) -> dict[str, Any]:
    """The fields of one folded part: two a line, then what is only on or off."""
    fields = {}
    with gr.Row(elem_classes="aligned"):
        for key, label in labels.items():
            if setting(key).kind is not bool:
                choices = {"choices": [(NOT_CHOSEN[key], "")], "value": ""} if key in NOT_CHOSEN else {}
                fields[key] = field_for(key, label, min_width=130, **choices)
    for key, label in labels.items():
        if setting(key).kind is bool:
            fields[key] = field_for(key, label)
    return fields


def _folders(workspace: Workspace, key: str) -> list[tuple[str, str]]:
    return [(NOT_CHOSEN[key], ""), *datasets.dataset_choices(workspace)]


# Between settings and what stands in the fields ---------------------------------------------------------------------


def defaults() -> dict[str, Any]:
    return {key: setting(key).default for key in LABELS}


def as_shown(key: str, value: Any) -> Any:
    """A setting's value as its field shows it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(value)
    return f"{value:.10g}" if setting(key).kind is float else value


def typed(dataset, name, *values) -> dict[str, Any]:
    """What `runs.config_of` takes, from the values of `TrainForm.inputs`. An empty field is left out."""
    found = {"dataset": dataset, "name": (name or "").strip()} | dict(zip(LABELS, values, strict=True))
    found["preview.prompts"] = [line.strip() for line in (found["preview.prompts"] or "").splitlines() if line.strip()]
    return {key: value for key, value in found.items() if value not in ("", None) or key == "dataset"}


def shown_in(form: TrainForm, workspace: Workspace, values: dict[str, Any]) -> dict:
    """Updates that write settings into the form; what has no field is passed over."""
    updates = {}
    for key, value in values.items():
        if key == "base":
            if not value:
                show_warning(StudioError("The base model of that run is not on the list here: choose one."))
                continue
            updates[form.fields[key]] = gr.update(choices=base_models.base_choices(workspace), value=value)
        elif key in NOT_CHOSEN:
            updates[form.fields[key]] = gr.update(choices=_folders(workspace, key), value=value)
        elif key in form.fields:
            updates[form.fields[key]] = as_shown(key, value)
    if values.get("dataset"):
        updates[form.dataset] = gr.update(choices=datasets.dataset_choices(workspace), value=values["dataset"])
    return updates


# How much is trained ------------------------------------------------------------------------------------------------


def _size(workspace: Workspace, demo: gr.Blocks, form: TrainForm, shown: gr.HTML) -> None:
    """A line that says how many numbers are trained, and what another choice of layers would come to."""
    parts = [form.fields[key] for key in ("base", *SIZED)]

    def count(base, *values):
        given = dict(zip((key.split(".")[1] for key in SIZED), values))
        try:
            return note(base_models.parameter_line(workspace, base, given))
        except StudioError as error:
            return note(str(error), bad=True)

    events = [part.change for part in parts]
    gr.on([demo.load, *events], count, parts, shown, trigger_mode="always_last", **NO_PROGRESS, **PRIVATE)


# What the trainer will see ------------------------------------------------------------------------------------------


def _crops(workspace: Workspace, form: TrainForm) -> None:
    """The first pictures with what is kept of each, made when the part is opened or the button is pressed."""
    with gr.Accordion("What the trainer will see", open=False, elem_id="crops") as part:
        buckets = gr.HTML(elem_id="buckets")
        grid = gallery("cropped")
        again = gr.Button("Look again", size="sm", elem_id="look-again")

    keys = ("base", "data.resolution", "data.buckets", "data.upscale")

    @show_errors
    def look(dataset, *values):
        if not dataset:
            return note("Choose a dataset first."), gr.update(visible=False)
        given = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
        try:
            crops, counts = runs.crops_of(workspace, dataset, given)
        except StudioError as error:
            return note(str(error), bad=True), gr.update(visible=False)
        cells = []
        for crop in crops[:CROPS]:
            box = crop.frame.box(crop.width, crop.height)
            lost = f"{100 * crop.frame.lost:.0f} % cut off" if crop.frame.lost >= 0.005 else "whole"
            size = f"{crop.frame.size[0]} × {crop.frame.size[1]}"
            cells.append((str(cropped(workspace, crop.item.path, box, crop.width)), f"{size} · {lost}"))
        found = ", ".join(f"{w} × {h}: {count}" for (w, h), count in sorted(counts.items()))
        more = f" The first {CROPS} are drawn; what is cut off is pale." if len(crops) > CROPS else ""
        return note(f"Pictures by size: {found}.{more}"), gr.update(value=cells, visible=bool(cells))

    for event in (part.expand, again.click):
        event(look, [form.dataset, *(form.fields[key] for key in keys)], [buckets, grid], **NO_PROGRESS, **PRIVATE)
