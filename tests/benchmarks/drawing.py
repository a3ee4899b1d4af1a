"""How fast images are drawn with adapters, against plain diffusers with peft: tables in Markdown.

python -m tests.benchmarks.drawing [--rounds 5] [--steps 4] [--side 256] [--small] [--processor-time]

On the starter model, and on a model of Stable Diffusion 1.5's shape with random weights (8 GB; `--small` makes its
UNet a tenth as wide, to try the benchmark itself). Everybody takes turns in one process, over one copy of the base's
weights; what is printed are medians, and medians of the ratios within a round, since machines are noisy.
"""

import argparse
import copy
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import torch
import transformers

from studio import devices
from studio.adapters import AdapterSpec, attach
from studio.basemodels import Family, load_base
from studio.basemodels.single_file import CONFIGS
from studio.basemodels.stable_diffusion import StableDiffusion
from studio.generation import Recipe, draw
from studio.generation.adapter_cache import cache_of
from studio.generation.adapter_info import read_adapter_info
from studio.services.adapter_files import add_adapter_file
from studio.services.generation import adapter_summary
from studio.training.run_resources import PeakMemory
from studio.workspace import Workspace
from tests.benchmarks.adapter_speed import SMALL

RANK, TARGETS, MANY, DROPPED = 16, "attention+feed-forward", 10, 20
PROMPT = "red apple, on a blue background"
PARTS = ["images", "first", "slider", "rows", "memory"]
Act = Callable[[], object]


class Bench:
    """A base, the same weights in plain pipelines of diffusers, and adapter files that fit them."""

    def __init__(self, name: str, given: argparse.Namespace, folder: Path):
        self.name, self.folder, self.clock = name, folder, time.process_time if given.processor_time else _clock
        self.base = load_base("starter", shared=False) if name == "starter" else shaped(given.small)
        side = 128 if name == "starter" else given.side
        self.recipe = Recipe(
            prompt=PROMPT, seed=7, steps=20 if name == "starter" else given.steps, width=side, height=side
        )
        self.rounds = given.rounds
        self._shared = {id(p): p for p in self.base.model.parameters()}
        self._bare = copy.deepcopy(self.base.model, dict(self._shared))  # before anything hangs on ours
        self._numbers = itertools.count()

    def files(self, count: int) -> list[Path]:
        """New files that nobody has read."""
        adapter = attach(self.base.model, AdapterSpec(rank=RANK, targets=TARGETS))
        paths = []
        for number in itertools.islice(self._numbers, count):
            chance = torch.Generator().manual_seed(number)
            for parameter in adapter.parameters():
                parameter.data = 0.02 * torch.randn(parameter.shape, generator=chance).to(parameter)
            paths.append(self.folder / f"{self.name[:2]}{number}.safetensors")
            adapter.save(paths[-1])
        adapter.detach()
        return paths

    def ours(self, *uses: tuple[Path, float]) -> object:
        """As `generate` draws it."""
        recipe = self.recipe.model_copy(update={"adapters": Recipe(prompt="", adapters=uses).adapters})
        with cache_of(self.base).active(recipe.adapters) as step:
            return draw(self.base, recipe, before=step)

    def plain(self) -> diffusers.StableDiffusionPipeline:
        """A pipeline over the base's own parameters, with modules of its own: what hangs on ours is not in it."""
        unet = copy.deepcopy(self._bare, dict(self._shared))
        parts = self.base.pipeline.components | {"unet": unet}
        pipe = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def with_peft(self, files: list[Path]) -> diffusers.StableDiffusionPipeline:
        pipe = self.plain()
        for file in files:
            pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=file.stem)
        pipe.set_adapters([file.stem for file in files], [1.0] * len(files))
        return pipe

    def theirs(self, pipe: diffusers.StableDiffusionPipeline) -> object:
        recipe = self.recipe
        return pipe(
            recipe.prompt,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            width=recipe.width,
            height=recipe.height,
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
        ).images[0]

    def turns(self, acts: dict[str, Act], between: Act = lambda: None) -> dict[str, list[float]]:
        """Seconds of each in each round; one round before them is not counted. `between` is not timed."""
        spent: dict[str, list[float]] = {name: [] for name in acts}
        for number in range(self.rounds + 1):
            turned = number % len(acts)  # nobody always comes behind the same one
            for name in [*acts, *acts][turned : turned + len(acts)]:
                began = self.clock()
                acts[name]()
                took = self.clock() - began
                between()
                if number:
                    spent[name].append(took)
        return spent


# The measurements ---------------------------------------------------------------------------------------------------


def images(bench: Bench) -> None:
    files = bench.files(3)
    plain, one, three = bench.plain(), bench.with_peft(files[:1]), bench.with_peft(files)
    uses = [(file, 1.0) for file in files]
    spent = bench.turns(
        {
            "diffusers, no adapter": lambda: bench.theirs(plain),
            "here, no adapter": lambda: bench.ours(),
            "here, 1 adapter": lambda: bench.ours(*uses[:1]),
            "here, 3 adapters": lambda: bench.ours(*uses),
            "diffusers + peft unmerged, 1 adapter": lambda: bench.theirs(one),
            "diffusers + peft unmerged, 3 adapters": lambda: bench.theirs(three),
        }
    )
    recipe = bench.recipe
    about = f"an image of {recipe.width} px in {recipe.steps} steps"
    _table(bench, about, spent, "here, no adapter", "diffusers, no adapter")


def first_image(bench: Bench, workspace: Workspace) -> None:
    """The file is new to the process each time, the base is warm."""
    fresh = iter(bench.files(3 * (bench.rounds + 1)))
    plain = bench.plain()
    modules = bench.base.modules()

    def dropped() -> None:
        path = workspace.adapters / add_adapter_file(workspace, next(fresh)).partition(":")[2]
        assert read_adapter_info(path, modules).matched
        bench.ours((path, 1.0))

    def by_hand() -> None:
        bench.ours((next(fresh), 1.0))

    def loaded() -> None:
        file = next(fresh)
        plain.load_lora_weights(file.parent, weight_name=file.name)
        bench.theirs(plain)

    spent = bench.turns(
        {
            "load_lora_weights + call": loaded,
            "here: checked, copied, its row, and the image": dropped,
            "here: the image alone": by_hand,
        },
        between=plain.unload_lora_weights,
    )
    _table(bench, "from a new file to its first image", spent, "load_lora_weights + call")


def slider(bench: Bench) -> None:
    """One strength of three moves. Here the words stay encoded and the touched weights are made anew."""
    files = bench.files(3)
    pipe = bench.with_peft(files)
    names = [file.stem for file in files]
    moved = itertools.cycle(number / 7 for number in range(1, 8))

    def theirs() -> None:
        pipe.set_adapters(names, [1.0, 1.0, next(moved)])
        bench.theirs(pipe)

    spent = bench.turns(
        {
            "set_adapters + call": theirs,
            "here, a strength moved": lambda: bench.ours((files[0], 1.0), (files[1], 1.0), (files[2], next(moved))),
            "here, nothing moved": lambda: bench.ours(*((file, 1.0) for file in files)),
        }
    )
    _table(bench, "from a slider's move to the image", spent, "set_adapters + call")


def rows(bench: Bench, workspace: Workspace) -> None:
    """What the page does for a file before its row stands: the copy into the workspace, kind, words and fit."""
    few, many = iter(bench.files(bench.rounds + 1)), iter(bench.files(DROPPED * (bench.rounds + 1)))

    def row(files: Iterator[Path], count: int) -> None:
        for file in itertools.islice(files, count):
            line, _, wrong = adapter_summary(workspace, add_adapter_file(workspace, file))
            assert not wrong, line

    spent = bench.turns({"1 file": lambda: row(few, 1), f"{DROPPED} files": lambda: row(many, DROPPED)})
    _table(bench, "from dropped files to their rows", spent, "1 file")


def memory(given: argparse.Namespace) -> None:
    """A process each, that draws one image."""
    print(f"\n| peak memory, {MANY} adapters acting | MB | MB beyond the base alone |\n| --- | --- | --- |")
    for model in given.models:
        alone = 0.0
        for variant in ("no adapter", "diffusers + peft unmerged", "here"):
            command = [sys.executable, "-m", "tests.benchmarks.drawing", *sys.argv[1:], "--held", f"{model}/{variant}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"| {model}, {variant} | {(done.stderr.splitlines() or ['killed'])[-1]} | |")
                continue
            held = 1000 * json.loads(done.stdout.splitlines()[-1])
            alone = alone or held
            print(f"| {model}, {variant} | {held:,.0f} | {held - alone:,.0f} |", flush=True)


def held(model: str, variant: str, given: argparse.Namespace, folder: Path) -> float:
    """GB at the peak of one image, the base and its adapters included."""
    bench = Bench(model, given, folder)
    files = bench.files(0 if variant == "no adapter" else MANY)
    plain = bench.with_peft(files) if "peft" in variant else None
    with PeakMemory(bench.base.device) as peak:
        if plain:
            plain.set_adapters([file.stem for file in files], [1 / MANY] * MANY)
            bench.theirs(plain)
        else:
            bench.ours(*((file, 1 / MANY) for file in files))
    return peak.gigabytes


# ---------------------------------------------------------------------------------------------------------------------


def shaped(small: bool) -> Family:
    """Stable Diffusion 1.5 with random weights: text encoder, UNet and VAE of their true shapes, a small vocabulary.

    small: with a UNet that is a tenth as wide, and the starter's text encoder and VAE.
    """
    folder = CONFIGS / "sd1"

    class Random(StableDiffusion):
        def _opened(self, place, dtypes):
            torch.manual_seed(0)
            parts = dict(load_base("starter", shared=False).pipeline.components)
            if small:
                width = parts["text_encoder"].config.hidden_size
                parts["unet"] = diffusers.UNet2DConditionModel(**SMALL | {"cross_attention_dim": width})
            else:
                kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
                parts |= {name: kind.from_config(_config(name)) for name, kind in kinds.items()}
                words = transformers.CLIPTextConfig.from_dict(_config("text_encoder"))
                parts["text_encoder"] = transformers.CLIPTextModel(words)
            return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)

    def _config(name: str) -> dict:
        return json.loads((folder / name / "config.json").read_text())

    return Random(folder)


def _clock() -> float:
    devices.synchronize(devices.best_device())
    return time.perf_counter()


def _table(bench: Bench, title: str, spent: dict[str, list[float]], *units: str) -> None:
    print(f"\n| {bench.name}: {title} | s | " + " | ".join(f"to {unit}" for unit in units) + " |")
    print("| --- " * (2 + len(units)) + "|")
    for name, times in spent.items():
        ratios = [statistics.median(a / b for a, b in zip(times, spent[unit])) for unit in units]
        seconds = f"{statistics.median(times):.3f}"
        print(f"| {name} | {seconds} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of the large model's images; the starter's have 20")
    parser.add_argument("--side", type=int, default=256, help="of the large model's images, in pixels")
    parser.add_argument("--small", action="store_true", help="try the benchmark itself")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    parser.add_argument("--models", nargs="+", choices=["starter", "large"], default=["starter", "large"])
    parser.add_argument("--processor-time", action="store_true", help="not the clock's, on a machine that is busy")
    parser.add_argument("--held", help=argparse.SUPPRESS)  # what this process is to hold
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.held:
            print(held(*given.held.split("/"), given, folder))
            return
        wanted = given.only or PARTS
        for model in given.models:
            measure(model, wanted, given, folder)
        if "memory" in wanted:
            memory(given)


def measure(model: str, wanted: list[str], given: argparse.Namespace, folder: Path) -> None:
    if wanted == ["memory"]:
        return
    bench, workspace = Bench(model, given, folder), Workspace.open(folder / model)
    if "images" in wanted:
        images(bench)
    if "first" in wanted:
        first_image(bench, workspace)
    if "slider" in wanted:
        slider(bench)
    if "rows" in wanted and model == "starter":
        rows(bench, workspace)


if __name__ == "__main__":
    main()
