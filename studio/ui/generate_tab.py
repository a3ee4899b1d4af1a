"""The Generate tab: a prompt, adapters with a slider each, and the picture with and without them."""

import threading
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from studio.errors import StudioError
from studio.ui import actions
from studio.ui.widgets import HIDDEN, QUIET, SIDE, empty, note, plainly, setting, tell
from studio.workspace import Workspace

POOL = 6  # rows made once and shown when needed: rows made on the fly lose their values in Gradio
NOTHING = empty("No picture yet", "Write a prompt and press Generate. Adapters are optional: add one to compare.")


@dataclass(frozen=True)
class GenerateTab:
    """What the other tabs need: the hidden field that adds an adapter when it is filled."""

    incoming: gr.Textbox


def generate_tab(workspace: Workspace, demo: gr.Blocks) -> GenerateTab:
    """Build the tab inside the caller's gr.Tab."""
    keys = gr.State([""] * POOL)  # what each row holds: "run:NAME", "file:NAME" or ""
    incoming = gr.Textbox(visible=False)
    made = gr.State(False)  # moving a slider draws again only when there is a picture to compare with
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            prompt = gr.Textbox(
                label="Prompt", lines=3, max_lines=8, placeholder="red apple, on a blue background", elem_id="prompt"
            )
            negative = gr.Textbox(
                label="Negative prompt", info="What to keep away from.", max_lines=3, elem_id="negative"
            )
            with gr.Group(), gr.Row():
                seed = gr.Number(label="Seed", value=0, precision=0, min_width=80, elem_id="seed")
                steps = gr.Number(
                    label="Steps",
                    value=setting("preview.steps").default,
                    precision=0,
                    min_width=90,
                    elem_id="gen-steps",
                )
                guidance = gr.Number(
                    label="Guidance", value=setting("preview.guidance").default, min_width=90, elem_id="guidance"
                )
                width = gr.Number(label="Width", value=SIDE, precision=0, step=8, min_width=90, elem_id="width")
                height = gr.Number(label="Height", value=SIDE, precision=0, step=8, min_width=90, elem_id="height")
            gr.Markdown("### Adapters", elem_classes="heading")
            rows, strengths, removes = [], [], []
            for index in range(POOL):
                with gr.Row(visible=False, elem_classes="adapter", elem_id=f"adapter-{index}") as row:
                    strengths.append(
                        gr.Slider(
                            -2,
                            2,
                            value=1.0,
                            step=0.05,
                            label="Strength",
                            interactive=True,
                            scale=6,
                            min_width=200,
                            elem_id=f"strength-{index}",
                        )
                    )
                    removes.append(gr.Button("Remove", size="sm", scale=1, min_width=76, elem_id=f"remove-{index}"))
                rows.append(row)
            none_yet = gr.HTML(note("None. The picture comes from the base model alone."), elem_id="no-adapters")
            chooser = gr.Dropdown(
                label="Add an adapter", choices=[], value=None, elem_id="add-adapter", interactive=True
            )
            drop = gr.File(
                label="or drop .safetensors files",
                file_count="multiple",
                height=130,
                elem_id="drop-adapters",
                elem_classes="drop",
            )
            compare = gr.Checkbox(label="With and without, side by side", value=True, elem_id="compare")
            with gr.Row():
                go = gr.Button("Generate", variant="primary", elem_id="go", min_width=140, scale=3)
                stop = gr.Button("Stop", elem_id="stop-drawing", min_width=90)
        with gr.Column(scale=8, min_width=320):
            blank = gr.HTML(NOTHING)
            with gr.Row():
                frame = {"interactive": False, "type": "filepath", "format": "png", "visible": False}
                frame |= {"buttons": ["download", "fullscreen"], "elem_classes": "picture", "min_width": 200}
                without = gr.Image(label="Without adapters", elem_id="without", **frame)
                picture = gr.Image(label="Picture", elem_id="picture", **frame)
            line = gr.HTML(elem_id="recipe")
            before = gr.Markdown("### Earlier pictures", elem_classes="heading", visible=False)
            earlier = gr.Gallery(
                show_label=False,
                columns=8,
                height="auto",
                buttons=[],
                interactive=False,
                visible=False,
                object_fit="contain",
                elem_id="earlier",
                elem_classes="gallery strip",
            )

    # Adapter rows ------------------------------------------------------------------------------------------------

    def rows_of(held: list[str], new: tuple[int, ...] = ()):
        """Updates for keys, the rows, the sliders and the line for none. Only new rows get a fresh strength."""
        names = dict((key, label) for label, key in actions.list_adapters(workspace))
        sliders = []
        for index, key in enumerate(held):
            label = names.get(key, key.partition(":")[2])
            sliders.append(gr.update(label=label, **({"value": 1.0} if index in new else {})) if key else gr.skip())
        return held, *[gr.update(visible=bool(key)) for key in held], *sliders, gr.update(visible=not any(held))

    pool = [keys, *rows, *strengths, none_yet]

    def place(held: list[str], wanted: list[str]) -> tuple[list[str], tuple[int, ...]]:
        """Put each wanted key in a free row; one that is there already stays as it is."""
        held, new = list(held), []
        for key in wanted:
            if key in held:
                continue
            if "" not in held:
                raise StudioError(f"{POOL} adapters at once is the most: remove one first.")
            new.append(held.index(""))
            held[new[-1]] = key
        return held, tuple(new)

    @plainly
    def add(key, held):
        if not key:
            return [gr.skip()] * (len(pool) + 1)
        actions.adapter_path(workspace, key)
        return *rows_of(*place(held, [key])), gr.update(value=None)

    @plainly
    def add_files(files, held):
        wanted = []
        for path in files or []:
            try:
                wanted.append(actions.add_adapter_file(workspace, path))
            except StudioError as error:  # told in one line; the others are kept
                tell(error)
        return *rows_of(*place(held, wanted)), gr.update(choices=actions.list_adapters(workspace)), None

    def remove(index, held):
        return rows_of([("" if i == index else key) for i, key in enumerate(held)])

    def load_adapters():
        return gr.update(choices=actions.list_adapters(workspace))

    # The picture -------------------------------------------------------------------------------------------------

    @plainly
    def generate(request: gr.Request, text, avoid, n_seed, n_steps, how_close, wide, high, both, held, *values):
        if not (text or "").strip():
            raise StudioError("The prompt is empty: write what the picture should show.")
        fields = {"prompt": text, "negative_prompt": avoid or "", "seed": n_seed, "steps": n_steps}
        fields |= {"guidance": how_close, "width": wide, "height": high}
        adapters = [(key, strength) for key, strength in zip(held, values, strict=True) if key]
        recipe = actions.make_recipe(workspace, adapters, **fields)
        bare = actions.make_recipe(workspace, [], **fields) if both and adapters else None
        signal = _signals[request.session_hash] = threading.Event()
        bar = gr.Progress()
        base_path = None
        if bare is not None:
            base_path = _saved(workspace, bare, signal, bar, "Without adapters", keep=True)
        path = _saved(workspace, recipe, signal, bar, "Picture")
        if path is None or (bare is not None and base_path is None):
            return gr.skip(), gr.skip(), gr.skip(), note("Stopped."), gr.skip(), gr.skip(), gr.skip()
        return (
            gr.update(visible=False),
            gr.update(value=base_path, visible=base_path is not None),
            gr.update(value=path, visible=True, label="With adapters" if base_path else "Picture"),
            f'<div class="note mono">{escape(actions.recipe_line(recipe))}</div>',
            *_gallery(workspace),
            True,
        )

    def halt(request: gr.Request):
        signal = _signals.get(request.session_hash)
        if signal:
            signal.set()

    quiet = {**QUIET, **HIDDEN}
    inputs = [prompt, negative, seed, steps, guidance, width, height, compare, keys, *strengths]
    outputs = [blank, without, picture, line, before, earlier, made]
    shared = {"concurrency_id": "device", "concurrency_limit": 1, **HIDDEN}
    for event in (go.click, prompt.submit):
        event(generate, inputs, outputs, show_progress="full", show_progress_on=[picture, blank], **shared)

    def again(request: gr.Request, ready, *everything):
        if not ready:
            return [gr.skip()] * len(outputs)
        return generate(request, *everything)

    for index in range(POOL):
        removes[index].click(lambda held, i=index: remove(i, held), keys, pool, **quiet)
        strengths[index].release(
            again, [made, *inputs], outputs, trigger_mode="always_last", show_progress_on=[picture], **shared
        )
    stop.click(halt, None, None, queue=False, **quiet)
    chooser.input(add, [chooser, keys], [*pool, chooser], **quiet)
    chooser.focus(load_adapters, None, chooser, **quiet)
    incoming.change(add, [incoming, keys], [*pool, incoming], **quiet)
    drop.upload(add_files, [drop, keys], [*pool, chooser, drop], **quiet)
    demo.load(load_adapters, None, chooser, **quiet)
    demo.load(lambda: _gallery(workspace), None, [before, earlier], **quiet)
    return GenerateTab(incoming)


_signals: dict[str, threading.Event] = {}  # session -> how to stop what it draws
_without: dict[str, str] = {}  # recipe -> picture without adapters, so that a slider costs one picture and not two


def _saved(workspace: Workspace, recipe, signal, bar, label: str, keep: bool = False) -> str | None:
    """Draw and save; the path, or None when stopped. `keep` remembers the picture by its recipe."""
    from studio.generation import save_picture

    if keep and Path(_without.get(repr(recipe), "")).is_file():
        return _without[repr(recipe)]
    bar(0, desc=label)
    image = actions.draw(recipe, stop=signal, progress=lambda done, total: bar((done, total), desc=label, unit="steps"))
    if image is None:
        return None
    path = str(save_picture(image, recipe, workspace.outputs))
    if keep:
        if len(_without) > 100:
            _without.clear()
        _without[repr(recipe)] = path
    return path


def _newest(workspace: Workspace, count: int = 16) -> list[str]:
    pictures = sorted(workspace.outputs.glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path) for path in pictures[:count]]


def _gallery(workspace: Workspace):
    pictures = _newest(workspace)
    return gr.update(visible=bool(pictures)), gr.update(value=pictures, visible=bool(pictures))
