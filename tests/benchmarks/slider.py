"""From a slider that is let go to its image, against drawing alone; and what previews cost. On the starter, on the CPU.

python -m tests.benchmarks.slider [--rounds 9] [--steps 20]

The page's own handler is called, without a browser: the recipe is made, drawn in the background with previews, saved,
and the HTML is made. "Drawing" is the same recipe drawn and nothing else. Both take turns; medians, and the median of
the ratios within a round, since machines are noisy.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.generation import generate_all
from studio.generation.latent_preview import LivePreview
from studio.server.settings import Settings
from studio.services.adapter_files import add_adapter_file
from studio.web.components.context import page_context
from studio.web.generate import tab
from studio.web.generate.context import FIELDS
from studio.web.generate.stage import OFF
from studio.workspace import Workspace

REQUEST = SimpleNamespace(session_hash="a page")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace.open(Path(root))
        with gr.Blocks() as demo:
            page = page_context(workspace, Settings(workspace=workspace.root, browser=False), demo)
            with gr.Tabs():
                part = tab.build(page)
        measure(part, adapter(workspace), given)


def adapter(workspace: Workspace) -> str:
    file = workspace.root / "ink.safetensors"
    attach(load_base(shared=False).model, AdapterSpec(rank=8)).save(file)
    return add_adapter_file(workspace, file)


def measure(part: tab.GenerateTab, key: str, given: argparse.Namespace) -> None:
    context = part.context
    values = [[key], *[field.value for field in context.form.fields], *[row.value for row in context.rows.values]]
    values[1 + FIELDS.index("prompt")] = "red apple, on a blue background"
    values[1 + FIELDS.index("steps")] = given.steps
    base = load_base("starter")

    def page_draws(strength: float) -> None:
        values[2 + len(FIELDS)] = strength
        list(part.result.generate_again(REQUEST, True, None, OFF, *values))

    def draws(strength: float, previews: bool) -> None:
        values[2 + len(FIELDS)] = strength
        live = LivePreview(base, lambda image: None) if previews else None
        list(generate_all(context.recipe(*values), preview=live))

    ways = {
        "drawing": lambda strength: draws(strength, False),
        "drawing with previews": lambda strength: draws(strength, True),
        "slider to image": page_draws,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.rounds + 1):
        for place, (name, act) in enumerate(ways.items()):
            began = time.perf_counter()
            act(0.1 + 0.01 * (3 * turn + place))  # another strength each time: weights are merged anew
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    print("| what | seconds | of drawing |\n| --- | --- | --- |")
    for name, taken in seconds.items():
        ratio = statistics.median(one / alone for one, alone in zip(taken, seconds["drawing"]))
        print(f"| {name} | {statistics.median(taken):.3f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
