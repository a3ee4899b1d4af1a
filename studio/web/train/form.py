"""The settings of a run as a form: a preset on top, what most people change below it, and the rest in closed groups."""

from typing import Any

import gradio as gr

from studio.errors import NotAllowedError, StudioError
from studio.services import base_models, datasets, run_data, runs
from studio.services.adapter_files import adapter_choices
from studio.services.preview_lines import suggested_for
from studio.web.components import base_model_picker
from studio.web.components.fields import QUIET, field_for, setting
from studio.web.components.html import note
from studio.web.errors import show_errors, show_warning
from studio.web.train import crops, preview_lines, views
from studio.web.train.context import TrainContext
from studio.web.train.labels import FIRST, GROUPS, LABELS
from studio.workspace import Workspace

NOT_CHOSEN = {
    "data.held_out": "a share of the dataset",
    "data.regularisation": "none",
    "adapter.init_from": "a new adapter",
    "training.training_adapter": "none",
}
PATTERNS = "adapter.patterns"
LISTS = (
    "preview.prompts",
    "adapter.patterns",
    "data.folders",
    "data.more_resolutions",
    "slider.preserve",
)  # a line each
NUMBERS = ("data.more_resolutions",)  # in one line, with commas or spaces
OWN = ("base", "data.trigger", "preview.prompts", *NOT_CHOSEN)  # what no preset changes
# What decides how much is trained.
SIZED = ("adapter.kind", "adapter.rank", "adapter.targets", "adapter.text_encoder", "adapter.patterns")
# What decides how often an image of a folder is shown.
FOLDERED = (
    "data.folders",
    "data.repeats",
    "data.trigger",
    "data.held_out",
    "validation.every",
    "validation.fraction",
    "training.seed",
)
# What decides which timesteps are drawn.
TIMED = (
    "base",
    *(f"training.{key}" for key in ("timesteps", "logit_mean", "logit_std", "mode_scale", "shift")),
    *(f"training.{key}" for key in ("shift_by_resolution", "least_noise", "most_noise")),
    "data.resolution",
)


class TrainForm:
    """The fields; `fields` by dotted setting, in the order of LABELS."""

    def __init__(self, context: TrainContext):
        self.context, self.workspace = context, context.workspace
        context.form = self
        self.picker = base_model_picker.build(context, "train")
        presets = list(runs.list_presets(self.workspace))
        self.preset = gr.Dropdown(
            presets,
            value=presets[0],
            label="Preset",
            info="Fills in the settings below.",
            elem_id="preset",
            interactive=True,
        )
        self.dataset = gr.Dropdown(label="Dataset", choices=[], elem_id="train-dataset", interactive=True)
        self.name = gr.Textbox(
            label="Name of the run", placeholder="the dataset's name", max_lines=1, elem_id="run-name"
        )
        fields, self.errors = {"base": self.picker.choice}, dict[str, Any]()
        with gr.Row(elem_classes="aligned"):
            for key in ("training.steps", "adapter.rank"):
                fields[key] = field_for(key, FIRST[key], min_width=130)
        self.parameters = gr.HTML(elem_id="parameters", elem_classes="tight")
        fields["training.learning_rate"] = field_for("training.learning_rate", FIRST["training.learning_rate"])
        self.prompts = fields["preview.prompts"] = gr.Textbox(
            label=FIRST["preview.prompts"],
            info="One a line. An image of each is generated during training.",
            value=as_shown("preview.prompts", setting("preview.prompts").default),
            lines=3,
            max_lines=8,
            elem_id="preview-prompts",
        )
        self.lines = preview_lines.build(context)
        with gr.Accordion("More settings", open=False, elem_id="expert"):
            for title, labels in GROUPS.items():
                name = title.split()[0].lower() + "-settings"
                with gr.Accordion(title, open=False, elem_classes="group", elem_id=name):
                    fields |= _group(labels, self.errors)
                    if title == "Images and captions":
                        self.folders = gr.HTML(elem_id="folder-table", elem_classes="tight")
                    if title == "Adapter":
                        self.layers = gr.HTML(elem_id="layer-table", elem_classes="tight")
                    if title == "Loss and noise":
                        self.drawn = gr.HTML(elem_id="timestep-plot", elem_classes="tight")
        self.fields: dict[str, Any] = {key: fields[key] for key in LABELS}
        crops.build(context)

    @property
    def inputs(self) -> list[Any]:
        return [self.dataset, self.name, *self.fields.values()]

    def wire(self) -> None:
        demo, settings, base = self.context.demo, list(self.fields.values()), self.picker.choice
        folders = [self.dataset, *(self.fields[key] for key in NOT_CHOSEN)]
        demo.load(self.list_folders, None, folders, **QUIET)
        for field in folders:
            field.focus(self.list_folders, None, folders, **QUIET)
        self.preset.input(self.fill, [self.preset, base], settings, **QUIET)
        self.picker.when_chosen(self.follow_base, [self.fields["preview.prompts"]], [self.preset, *settings])
        base.change(self.list_presets, base, self.preset, **QUIET)
        of_set = [self.dataset, self.fields["data.trigger"], base, self.prompts]
        self.dataset.change(self.suggest, of_set, self.prompts, trigger_mode="always_last", **QUIET)
        self.lines.wire()
        sized = [self.fields[key] for key in ("base", *SIZED)]
        gr.on(
            [demo.load, *(part.change for part in sized)],
            self.count_parameters,
            sized,
            [self.parameters, self.layers, self.errors[PATTERNS]],
            trigger_mode="always_last",
            **QUIET,
        )

        foldered = [self.dataset, *(self.fields[key] for key in FOLDERED)]
        gr.on(
            [part.change for part in foldered],
            self.count_folders,
            foldered,
            self.folders,
            trigger_mode="always_last",
            **QUIET,
        )

        timed = [self.fields[key] for key in TIMED]
        gr.on(
            [demo.load, *(part.change for part in timed)],
            self.plot_timesteps,
            timed,
            self.drawn,
            trigger_mode="always_last",
            **QUIET,
        )

    def list_folders(self):
        """No values: the person may be choosing one now."""
        known = {self.dataset: gr.update(choices=datasets.dataset_choices(self.workspace))}
        return known | {self.fields[key]: gr.update(choices=_folders(self.workspace, key)) for key in NOT_CHOSEN}

    @show_errors
    def fill(self, chosen, base):
        return self.filled(runs.list_presets(self.workspace, base).get(chosen, {}))

    def filled(self, values: dict[str, Any]) -> dict:
        """Updates that show a preset."""
        values = {key: value for key, value in (defaults() | values).items() if key not in OWN}
        return shown_in(self, self.workspace, values)

    @show_errors
    def follow_base(self, base, prompts):
        """A base was chosen: its presets, the first of them in the fields, and its prompts where none was written."""
        found = runs.list_presets(self.workspace, base)
        base_models.choose(self.workspace, base)
        first = next(iter(found), "")
        updates = self.filled(found.get(first, {})) | {self.preset: gr.update(choices=list(found), value=first)}
        own = runs.prompts_for(self.workspace, base, prompts or "")
        return updates if own is None else updates | {self.fields["preview.prompts"]: own}

    def suggest(self, dataset, trigger, base, prompts):
        """Prompts from the dataset, where none was written."""
        try:
            found = suggested_for(self.workspace, dataset or "", trigger or "", base, prompts or "")
        except StudioError:  # the run says what is wrong with the dataset
            return gr.skip()
        return gr.skip() if found is None else found

    @show_errors
    def list_presets(self, base):
        """A run's settings brought their base along."""
        return gr.update(choices=list(runs.list_presets(self.workspace, base)))

    def count_parameters(self, base, *values):
        """How many parameters are trainable, what another choice of modules would come to, what each line catches."""
        given = dict(zip((key.split(".")[1] for key in SIZED), values))
        given["patterns"] = (given["patterns"] or "").splitlines()
        wrong = ""
        try:
            said = note(base_models.parameter_line(self.workspace, base, given))
            rows = base_models.layer_table(self.workspace, base, given) if given["patterns"] else []
        except StudioError as error:
            said, rows = note(str(error), bad=True), []
            if given["patterns"] and (PATTERNS in str(error) or isinstance(error, NotAllowedError)):
                wrong, said = said, note(f"Not counted: see {LABELS[PATTERNS]}, among the settings of the adapter.")
        return {self.parameters: said, self.layers: views.layer_table(rows), self.errors[PATTERNS]: wrong}

    def count_folders(self, dataset, *values):
        """What each dataset folder comes to, where there are several."""
        given = listed(dict(zip(FOLDERED, values)))
        if not (dataset and given.get("data.folders")):
            return ""
        try:
            return views.folder_table(run_data.folder_table(self.workspace, dataset, given))
        except StudioError as error:
            return note(str(error), bad=True)

    def plot_timesteps(self, base, *values):
        """Which timesteps will be drawn."""
        given = {key: value for key, value in zip(TIMED[1:], values) if value not in ("", None)}
        try:
            return views.timestep_plot(runs.timestep_histogram(self.workspace, base or base_models.STARTER, given))
        except StudioError as error:
            return note(str(error), bad=True)


def build(context: TrainContext) -> TrainForm:
    """The fields, inside the caller's column."""
    part = TrainForm(context)
    part.wire()
    return part


def _group(labels: dict[str, str], errors: dict[str, Any]) -> dict[str, Any]:
    """The fields of one closed part: two a line, then what is on or off. errors: gets what stands below a field."""
    fields = {}
    with gr.Row(elem_classes="aligned"):
        for key, label in labels.items():
            if setting(key).kind is not bool:
                choices: dict[str, Any] = {"lines": 2, "max_lines": 8} if key in LISTS and key not in NUMBERS else {}
                choices |= {"choices": [(NOT_CHOSEN[key], "")], "value": ""} if key in NOT_CHOSEN else {}
                if key == PATTERNS:
                    with gr.Column(min_width=130):
                        fields[key] = field_for(key, label, **choices)
                        errors[key] = gr.HTML(elem_id="patterns-error", elem_classes="tight")
                else:
                    fields[key] = field_for(key, label, min_width=130, **choices)
    for key, label in labels.items():
        if setting(key).kind is bool:
            fields[key] = field_for(key, label)
    return fields


def _folders(workspace: Workspace, key: str) -> list[tuple[str, str]]:
    known = adapter_choices(workspace) if key in runs.FILES else datasets.dataset_choices(workspace)
    return [(NOT_CHOSEN[key], ""), *known]


# Between settings and what the fields hold --------------------------------------------------------------------------


def defaults() -> dict[str, Any]:
    return {key: setting(key).default for key in LABELS}


def as_shown(key: str, value: Any) -> Any:
    """A setting's value as its field shows it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if key in NUMBERS else "\n".join(value)
    return f"{value:.10g}" if setting(key).kind is float else value


def typed(dataset, name, *values) -> dict[str, Any]:
    """What `runs.config_of` takes, from the values of `TrainForm.inputs`. An empty field is left out."""
    found = {"dataset": dataset, "name": (name or "").strip()} | dict(zip(LABELS, values, strict=True))
    return listed(found)


def listed(found: dict[str, Any]) -> dict[str, Any]:
    """Values of fields as settings: lists as such, empty fields left out."""
    for key in LISTS:
        if key in found:
            text = found[key] or ""
            lines = text.replace(",", " ").split() if key in NUMBERS else text.splitlines()
            found[key] = [line.strip() for line in lines if line.strip()]
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
