"""The page and its server. `build` makes the three tabs; `serve` opens them on this machine."""

import logging
import os
import signal
import threading
import time

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import: nothing is sent anywhere

import gradio as gr  # noqa: E402

from studio.errors import ConfigError  # noqa: E402
from studio.ui import thumbnails  # noqa: E402
from studio.ui.actions_datasets import list_datasets  # noqa: E402
from studio.ui.api import endpoints  # noqa: E402
from studio.ui.dataset_tab import dataset_tab  # noqa: E402
from studio.ui.generate_tab import generate_tab  # noqa: E402
from studio.ui.theme import CSS, theme  # noqa: E402
from studio.ui.train_tab import train_tab  # noqa: E402
from studio.ui.widgets import HIDDEN, QUIET  # noqa: E402
from studio.workspace import ASSETS, Workspace  # noqa: E402

_HOME = ("127.0.0.1", "localhost", "::1")  # addresses that only this machine reaches
AWAKE = 5  # seconds
MOST_UPLOAD = "2gb"  # one file; a zip's content is bounded again when it is read


def build(settings) -> gr.Blocks:
    """The page, not yet served. Imports neither torch nor a service that needs it."""
    workspace = _workspace(settings)
    day = 24 * 3600
    with gr.Blocks(title="LoRA Studio", analytics_enabled=False, delete_cache=(day, 2 * day)) as demo:
        gr.HTML(
            "<h1>LoRA Studio</h1><p>Teach a picture model something new from a few pictures.</p>", elem_id="masthead"
        )
        endpoints(workspace)  # first, so that their names are taken as they are
        timer = gr.Timer(1)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Dataset", id="dataset", elem_id="tab-dataset"):
                data = dataset_tab(workspace, demo, timer, local=settings.host in _HOME and not settings.share)
            with gr.Tab("Train", id="train", elem_id="tab-train", render_children=True):
                train = train_tab(workspace, demo, timer)
            with gr.Tab("Generate", id="generate", elem_id="tab-generate", render_children=True):
                generate = generate_tab(workspace, demo)

        def go_train(name):
            return gr.Tabs(selected="train"), gr.update(choices=list_datasets(workspace), value=name)

        def go_generate(run):
            return gr.Tabs(selected="generate"), f"run:{run}"

        # When the server closes its stream while an event is being sent, Gradio's client hears nothing until another
        # one is sent; and timers send none while theirs are pending. This one always does.
        awake = {"trigger_mode": "multiple", "concurrency_limit": None, **QUIET, **HIDDEN}
        gr.Timer(AWAKE).tick(lambda: None, None, None, **awake)
        data.onward.click(go_train, data.choice, [tabs, train.dataset], **QUIET, **HIDDEN)
        train.onward.click(go_generate, train.run, [tabs, generate.incoming], **QUIET, **HIDDEN)
    return demo


def launch_options(settings) -> dict:
    """What `launch` gets: this machine only, and only folders of pictures may be read by the browser."""
    workspace = _workspace(settings)
    folders = [
        thumbnails.folder(workspace),
        workspace.cache / "downloads",
        workspace.outputs,
        workspace.exports,
        ASSETS / "datasets",
    ]
    return {
        "server_name": settings.host or "127.0.0.1",
        "server_port": settings.port,
        "share": settings.share,
        "auth": settings.auth,
        "inbrowser": settings.browser,
        "allowed_paths": [str(folder) for folder in folders],
        "max_file_size": MOST_UPLOAD,
        "run_history": False,
        "ssr_mode": False,
        "mcp_server": False,
        "footer_links": ["api", "settings"],
        "theme": theme(),
        "css": CSS,
    }


def serve(settings) -> None:
    """Serve the page until interrupted. The heavy libraries are loaded once the page can be seen."""
    demo = build(settings).queue()
    try:
        demo.launch(**launch_options(settings), prevent_thread_lock=True)
    except OSError as error:
        raise ConfigError(f"The page can't be opened there ({error}): choose another --port or --host.") from error
    threading.Thread(target=_warm, daemon=True, name="warm").start()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    demo.block_thread()  # returns on Ctrl-C
    _finish()


def _finish(seconds: float = 60) -> None:
    """Let what runs in the background end its step and write its checkpoint."""
    from studio.jobs import jobs

    going = jobs.running()
    for job in going:
        print(f"{job.title}: stopping after this step.", flush=True)
        job.stop()
    until = time.monotonic() + seconds
    for job in going:
        if job.thread:
            job.thread.join(max(0.0, until - time.monotonic()))


def _warm() -> None:
    try:
        import studio.basemodels.stable_diffusion
        import studio.training.trainer  # noqa: F401
    except Exception:  # said, in its own words, by whoever first needs what is missing
        logging.getLogger(__name__).debug("warming up failed", exc_info=True)


def _workspace(settings) -> Workspace:
    given = settings.workspace
    return given if isinstance(given, Workspace) else Workspace.open(given)
