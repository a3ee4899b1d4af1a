"""The same actions for programs: named, typed endpoints for gradio_client, described under "Use via API".

from gradio_client import Client, handle_file
studio = Client("http://127.0.0.1:7860")
studio.predict("silhouette", api_name="/open_dataset")
"""

from dataclasses import asdict

import gradio as gr

from studio.services import base_models, publishing, run_library, run_queue, system
from studio.services import runs as actions_runs
from studio.services.jobs import latest, running, stop_job
from studio.web.api_datasets import dataset_endpoints
from studio.web.api_pictures import picture_endpoints
from studio.web.components.fields import setting
from studio.web.endpoint import endpoint, job_facts, json_of
from studio.workspace import Workspace


def endpoints(workspace: Workspace) -> None:
    """Add every endpoint to the page being built: about datasets, pictures, then runs. None of them shows anything."""
    dataset_endpoints(workspace)
    picture_endpoints(workspace)

    def job_status():
        """The job that runs now, or the one that ended last: kind, state, done, total, message."""
        ended = [newest.job for newest in latest.values()]
        job = running() or (ended[-1] if ended else None)
        return job_facts(job) if job else {"state": "none"}

    def list_presets(base):
        """Settings to begin with, by name, for `more` of check_settings and start_training."""
        return actions_runs.list_presets(workspace, base or "starter")

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
        return stop_job("train")

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

    def queue_training(dataset, name, steps, rank, learning_rate, prompts, more):
        """Put a run in the queue: it begins once the device is free. Answers the run's name."""
        return run_queue.enqueue(workspace, _values(dataset, name, steps, rank, learning_rate, prompts, more))

    def list_queue():
        """Runs that wait, the next one first, and whether they begin by themselves."""
        waiting = [run.name for run in run_queue.queue_of(workspace)]
        return {"waiting": waiting, "going": run_queue.going(workspace)}

    def start_queue():
        """Begin the waiting runs, one after the other."""
        run_queue.go_on(workspace)
        return True

    def leave_queue(run):
        """Take a run out of the queue."""
        run_queue.remove(workspace, run)
        return True

    def delete_run(run):
        """Put a run into the bin. Answers the key that restore_run takes."""
        return (run_library.throw_away(workspace, [run]) or [""])[0]

    def restore_run(key):
        """Bring a run back from the bin. Answers its name."""
        return run_library.bring_back(workspace, key)

    def compare_runs(runs):
        """Where the settings of some runs differ, and the course of each: [step, loss] in training and held out."""
        names = list(map(str, json_of(runs, list, "runs")))
        lines = ("trained", "held_out", "base")
        courses = run_library.courses(workspace, names)
        return {
            "differences": dict(run_library.differences(workspace, names)),
            "losses": {name: {line: getattr(course, line) for line in lines} for name, course in courses},
        }

    def note_run(run, note):
        """Keep a note beside a run; empty takes it away. Answers the note."""
        run_library.write_note(workspace, run, note)
        return run_library.note_of(workspace, run)

    def publish_run(run, repo, licence, triggers, about, private, send, token):
        """Make the model card and folder of a run in the background and, with `send`, upload it to the hub; wait with
        job_status, then ask publish_result."""
        return job_facts(
            publishing.start_publishing(workspace, run, repo, licence, triggers, about, private, send, token)
        )

    def publish_result():
        """What the newest publishing made: the card, the files with their bytes, the address on the hub."""
        job, run = publishing.newest_publishing()
        made = job.result if job else None
        if not made:
            return {"run": run}
        return {"run": run, "card": made.card, "files": dict(made.files), "address": made.address}

    def list_bases():
        """Base models that are known here, by name."""
        return [name for _, name in base_models.list_bases(workspace)]

    def add_base(place):
        """Put a base on the list: a folder, a .safetensors file or owner/name of the hub. Answers its name."""
        return base_models.remember(workspace, base_models.line_from(workspace, place, {}))

    def doctor():
        """What this machine has and what works on it."""
        return system.examined(workspace)

    with gr.Column(visible=False):
        answer = gr.JSON(label="answer")
        text = gr.Textbox(label="answer")
        yes = gr.Checkbox(label="whether anything ran")
        dataset = gr.Textbox(label="dataset: a name, as in the Dataset tab", value="")
        whole = {"precision": 0}
        endpoint(job_status, [], answer)
        settings = [
            gr.Number(label="steps", value=setting("training.steps").default, **whole),
            gr.Number(label="rank", value=setting("adapter.rank").default, **whole),
            gr.Textbox(label="learning rate", value=f"{setting('training.learning_rate').default:g}"),
            gr.Textbox(label="preview prompts, one a line", value=""),
            gr.JSON(label='more settings, such as {"training.batch_size": 4}', value={}),
        ]
        name = gr.Textbox(label="name of the run; empty: the dataset's", value="")
        run = gr.Textbox(label="run: a name; empty: the current or newest", value="")
        endpoint(list_presets, [gr.Textbox(label="base: a name of list_bases", value="starter")], answer)
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
        endpoint(queue_training, [dataset, name, *settings], text)
        endpoint(list_queue, [], answer)
        endpoint(start_queue, [], yes)
        which = gr.Textbox(label="run: a name", value="")
        endpoint(leave_queue, [which], yes)
        endpoint(delete_run, [which], text)
        endpoint(restore_run, [gr.Textbox(label="key of delete_run", value="")], text)
        endpoint(compare_runs, [gr.JSON(label='runs: names, such as ["one", "two"]', value=[])], answer)
        endpoint(note_run, [which, gr.Textbox(label="note", value="")], text)
        endpoint(
            publish_run,
            [
                which, gr.Textbox(label="repo: owner/name on the hub", value=""),
                gr.Textbox(label="licence, as the hub names them; may be empty", value=""),
                gr.Textbox(label="trigger words, with commas between", value=""),
                gr.Textbox(label="about: Markdown for the card", value=""),
                gr.Checkbox(label="private: only you can see it", value=True),
                gr.Checkbox(label="send: false only prepares the folder", value=False),
                gr.Textbox(label="token of the hub that may write; it is kept nowhere", value="", type="password"),
            ],
            answer,
        )  # fmt: skip
        endpoint(publish_result, [], answer)
        endpoint(list_bases, [], answer)
        endpoint(add_base, [gr.Textbox(label="folder, .safetensors file or owner/name", value="")], text)
        endpoint(doctor, [], answer)


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
