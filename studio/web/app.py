"""The page and its server. `build` makes the page with its tabs; `serve` opens it on this machine."""

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from studio.server.uploads import make_private, usual_folder

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import: nothing is sent anywhere
# After every event Gradio sums up the last 10,000 in a table, which is not used here.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_TEMP_DIR", usual_folder())

import gradio as gr  # noqa: E402
import httpx  # noqa: E402
from gradio import networking  # noqa: E402
from gradio.utils import get_upload_folder  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from studio.errors import ConfigError  # noqa: E402
from studio.server import owners, zero_gpu  # noqa: E402
from studio.server.login import RULE, Login  # noqa: E402
from studio.server.logs import cut_lines  # noqa: E402
from studio.server.memory import few_heaps  # noqa: E402
from studio.server.middleware import Guard  # noqa: E402
from studio.server.settings import HOME, Settings  # noqa: E402
from studio.server.visitors import LIFE, Visitors, VisitorsWorkspace  # noqa: E402
from studio.services import stages  # noqa: E402
from studio.services.datasets import dataset_choices  # noqa: E402
from studio.services.jobs import jobs  # noqa: E402
from studio.web import about, drop, guide, mcp_tools, warm  # noqa: E402
from studio.web.api import endpoints  # noqa: E402
from studio.web.components import jobs_bar, steps  # noqa: E402
from studio.web.components.clickable import clicked  # noqa: E402
from studio.web.components.context import page_context  # noqa: E402
from studio.web.components.fields import QUIET  # noqa: E402
from studio.web.dataset import start  # noqa: E402
from studio.web.dataset import tab as dataset_tab  # noqa: E402
from studio.web.generate import tab as generate_tab  # noqa: E402
from studio.web.i18n import Speaks  # noqa: E402
from studio.web.job_events import JobEvents  # noqa: E402
from studio.web.page import PAGE_JS, Page  # noqa: E402
from studio.web.quick_client import QuickClient  # noqa: E402
from studio.web.sessions import OpenPages, kept_small  # noqa: E402
from studio.web.theme import CSS, theme  # noqa: E402
from studio.web.train import tab as train_tab  # noqa: E402
from studio.web.visitor_note import note_html  # noqa: E402
from studio.workspace import FOLDERS, SERVED, SHOWN_ASSETS, Workspace, keep_private, sweep  # noqa: E402

AWAKE = 5  # seconds
PATIENCE = 60  # seconds until a page that does not answer counts as closed
SWITCH = 0.001  # seconds until busy threads let the one that answers have its turn; Python's own 5 ms add up
TABS = ("dataset", "train", "generate", "about")
BEHIND = (Login, OpenPages, JobEvents, Speaks, QuickClient)  # middleware behind the guard, in this order
VISITORS = "visitors"  # the folder of their workspaces, below the workspace


def build(settings: Settings) -> gr.Blocks:
    """The page, not yet served. Imports neither torch nor a service that needs it."""
    if zero_gpu.on_zero_gpu():
        import studio.generation.zero_gpu_drawing  # noqa: F401  (a ZeroGPU Space looks for it before the first page)
    workspace = _workspace(settings)
    # Parts that read the workspace while they are built find an empty one: there is no visitor yet.
    with owners.acting(owners.NO_VISITOR) if settings.public else nullcontext():
        return _build(settings, workspace)


def _build(settings: Settings, workspace: Workspace) -> gr.Blocks:
    kept = LIFE if settings.public else 48 * 3600  # seconds that uploads are kept
    with Page(title="LoRA Studio", analytics_enabled=False, delete_cache=(kept // 2, kept)) as demo:
        context = page_context(workspace, settings, demo)
        gr.HTML(
            "<h1>LoRA Studio</h1><p>Teach an image model your style or subject from a few images.</p>"
            '<button type="button" id="keys-button" aria-haspopup="dialog" aria-label="Keys" title="Keys">?</button>',
            elem_id="masthead",
        )
        demo.leave_out(endpoints(workspace))  # first, so that their names are taken as they are
        jobs_bar.build(context)
        line, example = steps.build(context), guide.build(context)
        dropped = drop.build(context)
        if settings.public:
            gr.HTML(note_html(settings), padding=False, elem_id="visitor-note")
        with gr.Tabs(elem_id="tabs") as tabs:
            data = dataset_tab.build(context)
            train = train_tab.build(context)
            generate = generate_tab.build(context)
            about.build(context)
        line.watch(data.choice)
        example.wire(tabs, data, train, generate)
        dropped.wire(tabs, data, train, generate)
        context.poller.start()

        def open_tab(name):
            return gr.Tabs(selected=name) if name in TABS else gr.skip()

        def fill_dataset(name, there):
            """The dataset that is open is the one to train on, unless another was chosen."""
            return gr.skip() if there or not name else gr.update(choices=dataset_choices(workspace), value=name)

        def just_generate(event: gr.EventData):
            return gr.Tabs(selected="generate") if clicked(event)[0] == start.GENERATE else gr.skip()

        def go_train(name):
            chosen = gr.update(choices=dataset_choices(workspace), value=name)
            return {tabs: gr.Tabs(selected="train"), train.dataset: chosen}

        def go_generate(run):
            return {tabs: gr.Tabs(selected="generate"), generate.incoming: f"run:{run}"}

        def take_step(name, event: gr.EventData):
            """A step was clicked, whose tab the browser has opened: the next one takes along what the last one made."""
            step, now = steps.chosen(event), stages.stages(workspace, name or "")
            if step == now.next == "train" and now.dataset and now.state not in ("running", "paused"):
                return {train.dataset: go_train(name)[train.dataset]}
            if step == now.next == "test":
                return {generate.incoming: f"run:{now.run}"}
            return gr.skip()

        def take_preview(name):
            if not name:
                return gr.skip()
            return {tabs: gr.Tabs(selected="generate"), generate.context.taken: name, train.recipe: ""}

        # When the server closes its stream while an event is being sent, Gradio's client receives nothing until another
        # one is sent; and timers send none while theirs are pending. This one always does.
        gr.Timer(AWAKE).tick(lambda: None, None, None, trigger_mode="multiple", concurrency_limit=None, **QUIET)
        address = gr.Textbox(visible=False)
        demo.load(open_tab, address, tabs, js="() => location.hash.slice(1)", **QUIET)
        data.choice.change(fill_dataset, [data.choice, train.dataset], train.dataset, **QUIET)
        data.start.generate.click(just_generate, None, tabs, **QUIET)
        line.line.click(take_step, data.choice, [train.dataset, generate.incoming], **QUIET)
        data.onward.click(go_train, data.choice, [tabs, train.dataset], **QUIET)
        train.onward.click(go_generate, train.run, [tabs, generate.incoming], **QUIET)
        train.recipe.change(take_preview, train.recipe, [tabs, generate.context.taken, train.recipe], **QUIET)
    return demo


def launch_options(settings: Settings) -> dict:
    """What `launch` gets: this machine only, and only folders of images may be read by the browser."""
    base, allows = Workspace.open(settings.workspace), settings.allows
    if settings.mcp:
        mcp_tools.install()
    visitors = base.root / VISITORS if settings.public else None
    served = [visitors] if visitors else [base.root / name for name in SERVED]
    host = settings.host or "127.0.0.1"
    guard = Middleware(
        Guard,
        local={*HOME, host.lower()},
        names=set(settings.hosts),
        addresses=host in ("0.0.0.0", "::"),
        uploads=get_upload_folder(),
        allows=allows,
        visitors=visitors,
        served=served,
        embedded=settings.on_space,
    )
    return {
        "server_name": host,
        "server_port": settings.port,
        "share": settings.share,
        "auth": settings.auth,
        "auth_message": RULE,
        "inbrowser": settings.browser,
        "allowed_paths": [str(folder) for folder in [*served, *SHOWN_ASSETS]],
        "max_file_size": allows.upload,
        "app_kwargs": {
            "middleware": [guard, *(Middleware(one) for one in BEHIND)],
            "lifespan": partial(kept_small, allows=allows),
        },
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "mcp_server": settings.mcp,
        "footer_links": ["api", "settings"],
        "theme": theme(),
        "css": CSS,
        "js": PAGE_JS,
    }


# Waiting events of everyone together (turns.py says how many are one visitor's). /run and /api, which skip the queue,
# are closed to what belongs into it.
QUEUE = {"max_size": 500, "api_open": False}


def serve(settings: Settings) -> None:
    """Serve the page until interrupted. The heavy libraries are loaded once the page can be seen."""
    if settings.mcp and find_spec("mcp") is None:
        raise ConfigError("--mcp needs a package that is missing: pip install 'mcp<2'.")
    cut_lines()
    few_heaps()
    if settings.warning:
        print(settings.warning, flush=True)
    closed = keep_private(Workspace.open(settings.workspace).root)
    if closed:
        print(f"Closed to other users of this machine, in the workspace: {', '.join(closed)}.", flush=True)
    make_private(get_upload_folder())
    _end_politely()
    sys.setswitchinterval(SWITCH)
    demo, options = build(settings).queue(**QUEUE), launch_options(settings)
    networking.url_ok = _answers
    if settings.on_space:
        warm.read_everything()
    try:
        demo.launch(**options, prevent_thread_lock=True)
    except OSError as error:
        raise ConfigError(f"The page can't be opened there ({error}): choose another --port or --host.") from error
    except ValueError as error:  # Gradio asks the page, and gives up where it does not answer
        if "localhost" not in str(error):
            raise
        raise ConfigError(
            f"The page does not answer on this machine ({demo.local_url}): the machine is very busy, or a proxy stands "
            "between (set NO_PROXY=localhost,127.0.0.1). Try again."
        ) from error
    if demo.share_url:
        options["app_kwargs"]["middleware"][0].kwargs["names"].add(urlsplit(demo.share_url).hostname)
    try:
        warm.begin()
        threading.Thread(target=_sweep, args=[settings], daemon=True, name="sweep").start()
        demo.block_thread()  # returns on Ctrl-C
    except (KeyboardInterrupt, OSError):  # it came a moment before, or the terminal is closed: the server would go on
        demo.close(verbose=False)
    _finish()


def _answers(url: str) -> bool:
    """Whether the page is there, for Gradio, which gives it 3 seconds: a busy machine, or a Space that starts, takes
    longer for its first page."""
    try:
        return httpx.head(url, timeout=PATIENCE, verify=False).status_code < 500
    except httpx.HTTPError:
        return False


def _end_politely() -> None:
    """A polite kill and a closed terminal end the studio as Ctrl-C does, also where a shell's `&` ignores that."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not hasattr(signal, "SIGHUP"):  # Windows
        return
    hang_up = signal.SIGHUP

    def once(number: int, frame: Any) -> None:
        signal.signal(hang_up, signal.SIG_IGN)  # shell and system both send it; a second one must not cut short the end
        raise KeyboardInterrupt

    if signal.getsignal(hang_up) is not signal.SIG_IGN:  # as nohup wants it
        signal.signal(hang_up, once)


def _finish(seconds: float = 60) -> None:
    """Let what runs in the background end its step and write its checkpoint."""
    running = jobs.everyone()
    for job in running:
        job.stop()
        with suppress(OSError):  # the terminal may be closed
            print(f"{job.title}: stopping after this step.", flush=True)
    until = time.monotonic() + seconds
    for job in running:
        if job.thread:
            job.thread.join(max(0.0, until - time.monotonic()))


def _sweep(settings: Settings) -> None:
    """Delete what was left in the workspace's own folders by writes that were killed; none of them takes an hour."""
    root = Workspace.open(settings.workspace).root
    for name in (*FOLDERS, VISITORS):
        sweep(root / name, time.time() - 3600)


def _at_work() -> set[str]:
    return {job.owner for job in jobs.everyone()}


def _workspace(settings: Settings) -> Workspace:
    """The one that everything on the page goes by; in public mode it is another one for each visitor."""
    base = Workspace.open(settings.workspace)
    if settings.public:
        root = base.root / VISITORS
        gr.set_static_paths(root)  # served from where it lies, so that middleware.py knows whose it is
        return VisitorsWorkspace(Visitors(root, at_work=_at_work), settings.allows)
    return replace(base, allows=settings.allows)
