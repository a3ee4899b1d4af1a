"""The same actions for programs: named, typed endpoints for gradio_client, described under "Use via API".

from gradio_client import Client, handle_file
studio = Client("http://127.0.0.1:7860")
studio.predict("silhouette", api_name="/open_dataset")
"""

import threading
from dataclasses import asdict
from pathlib import Path

import gradio as gr

from studio.errors import GenerationError
from studio.ui import actions, actions_runs
from studio.ui.api_datasets import dataset_endpoints
from studio.ui.endpoint import endpoint, job_facts, json_of
from studio.ui.widgets import SIDE, setting
from studio.workspace import Workspace


def endpoints(workspace: Workspace) -> None:
    """Add every endpoint to the page being built, those about datasets first. None of them shows anything."""
    dataset_endpoints(workspace)

    def job_status():
        """The job that runs now, or the one that ended last: kind, state, done, total, message."""
        ended = [newest.job for newest in actions.latest.values()]
        job = actions.running() or (ended[-1] if ended else None)
        return job_facts(job) if job else {"state": "none"}

    def add_adapter(file):
        """Check an adapter file and keep it in the workspace. Answers the name to give to generate."""
        if not file:
            raise GenerationError("There is no file to add: give one .safetensors file.")
        return actions.add_adapter_file(workspace, Path(file)).partition(":")[2]

    def list_presets():
        """Settings to begin with, by name, for `more` of check_settings and start_training."""
        return actions_runs.list_presets()

    def check_settings(dataset, steps, rank, learning_rate, prompts, more):
        """Try the settings on a few real steps in the background; wait with job_status, then ask check_report."""
        return job_facts(
            actions_runs.start_check(workspace, _values(dataset, "", steps, rank, learning_rate, prompts, more))
        )

    def check_report():
        """What the newest check found: findings, seconds a step and in all, memory in GB, settings to change."""
        return _report(actions_runs.newest_check())

    def start_training(dataset, name, steps, rank, learning_rate, prompts, more):
        """Start a run in the background. Answers the run's name (name-2 when the name is taken)."""
        values = _values(dataset, name, steps, rank, learning_rate, prompts, more)
        return actions_runs.start_training(workspace, values)

    def stop_training():
        """Stop the run after its current step; it keeps what it learned. Answers whether anything ran."""
        return actions.stop_job("train")

    def pause_training():
        """Pause the run after a checkpoint, which frees the device for generate. Answers whether anything ran."""
        return actions_runs.pause()

    def resume_training(run):
        """Go on with the paused run, or with one that was stopped or broken off. Answers the run's name."""
        return actions_runs.resume(workspace, run)

    def extend_training(run, steps):
        """Give a run that has ended more steps and go on with it. Answers the run's name."""
        return actions_runs.extend(workspace, run, steps)

    def run_status(run):
        """A run's state, step, speed, losses, verdict, warnings, hardest pictures and whether its adapter is ready."""
        view = actions_runs.run_view(workspace, run)
        return _run(workspace, view) if view else {"state": "none"}

    def list_runs():
        """Names of all runs, newest first."""
        return actions_runs.list_run_names(workspace)

    def generate(prompt, negative, seed, steps, guidance, width, height, adapters):
        """Draw one picture and save it in the workspace. Answers the picture and its recipe."""
        from studio.generation import save_picture

        pairs = [_adapter(entry) for entry in json_of(adapters, list, "adapters")]
        fields = {"prompt": prompt, "negative_prompt": negative or "", "seed": seed, "steps": steps}
        fields |= {"guidance": guidance, "width": width, "height": height}
        recipe = actions.make_recipe(workspace, pairs, **fields)
        image = actions.draw(recipe, stop=threading.Event())
        return str(save_picture(image, recipe, workspace.outputs)), actions.recipe_line(recipe)

    with gr.Column(visible=False):
        answer = gr.JSON(label="answer")
        text = gr.Textbox(label="answer")
        yes = gr.Checkbox(label="whether anything ran")
        dataset = gr.Textbox(label="dataset: a name, as in the Dataset tab", value="")
        whole = {"precision": 0}
        endpoint(job_status, [], answer)
        endpoint(add_adapter, [gr.File(label="file: one .safetensors")], text)
        settings = [
            gr.Number(label="steps", value=setting("training.steps").default, **whole),
            gr.Number(label="rank", value=setting("adapter.rank").default, **whole),
            gr.Textbox(label="learning rate", value=f"{setting('training.learning_rate').default:g}"),
            gr.Textbox(label="preview prompts, one a line", value=""),
            gr.JSON(label='more settings, such as {"training.batch_size": 4}', value={}),
        ]
        name = gr.Textbox(label="name of the run; empty: the dataset's", value="")
        run = gr.Textbox(label="run: a name; empty: the current or newest", value="")
        endpoint(list_presets, [], answer)
        endpoint(check_settings, [dataset, *settings], answer)
        endpoint(check_report, [], answer)
        endpoint(start_training, [dataset, name, *settings], text)
        endpoint(stop_training, [], yes)
        endpoint(pause_training, [], yes)
        endpoint(resume_training, [gr.Textbox(label="run: a name; empty: the paused one", value="")], text)
        endpoint(
            extend_training,
            [gr.Textbox(label="run: a name", value=""), gr.Number(label="steps to add", value=100, **whole)],
            text,
        )
        endpoint(run_status, [run], answer)
        endpoint(list_runs, [], answer)
        endpoint(
            generate,
            [
                gr.Textbox(label="prompt", value=""),
                gr.Textbox(label="negative prompt", value=""),
                gr.Number(label="seed", value=0, **whole),
                gr.Number(label="steps", value=setting("preview.steps").default, **whole),
                gr.Number(label="guidance", value=setting("preview.guidance").default),
                gr.Number(label="width in pixels", value=SIDE, **whole),
                gr.Number(label="height in pixels", value=SIDE, **whole),
                gr.JSON(label='adapters: [{"run": NAME, "strength": 1}, {"file": NAME, "strength": 0.5}]', value=[]),
            ],
            [gr.Image(label="picture", type="filepath", format="png"), gr.Textbox(label="recipe")],
            concurrency_id="device",
        )


def _values(dataset, name, steps, rank, learning_rate, prompts, more) -> dict:
    """What `actions_runs.config_of` takes; empty fields are left out."""
    values = json_of(more, dict, "more") | {
        "dataset": dataset,
        "name": name,
        "training.steps": steps,
        "adapter.rank": rank,
        "training.learning_rate": learning_rate,
    }
    lines = [line.strip() for line in (prompts or "").splitlines() if line.strip()]
    if lines:
        values["preview.prompts"] = lines
    return {key: value for key, value in values.items() if value not in (None, "")}


def _report(job) -> dict:
    if job is None:
        return {"state": "none"}
    findings = [{"level": "stop", "message": job.error}] if job.error else []
    return {"state": job.state, "ready": False, "findings": findings, "proposal": {}} | (
        {"ready": job.result.ready, **asdict(job.result)} if job.result else {}
    )


def _run(workspace: Workspace, view) -> dict:
    fields = ("name", "state", "step", "steps", "rate", "seconds_left", "message", "setup")
    return {name: getattr(view, name) for name in fields} | {
        "losses": [list(row) for row in view.losses[-50:]],
        "looks": [asdict(look) for look in view.looks],  # step, loss, base_loss, spread, bands, base_bands, verdict
        "verdict": view.looks[-1].verdict if view.looks else "",
        "warnings": [{"step": step, "message": message} for step, message in view.warnings],
        "certificate": asdict(view.certificate) if view.certificate else None,
        "hardest": [
            {"file": item.path.name, "caption": item.caption, "times_usual": hard}
            for item, hard in actions_runs.hardest_of(workspace, view.name)
        ],
        "previews": [{"step": step, "prompt": prompt} for step, prompt, _ in view.previews],
        "adapter_ready": bool(view.adapter),
    }


def _adapter(entry) -> tuple[str, float]:
    kind = next(
        (kind for kind in ("run", "file") if isinstance(entry, dict) and isinstance(entry.get(kind), str)), None
    )
    if not kind:
        raise GenerationError('Each adapter must be {"run": NAME} or {"file": NAME}, and may have a "strength".')
    return f"{kind}:{entry[kind]}", entry.get("strength", 1.0)
