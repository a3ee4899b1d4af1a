"""A 3 x 3 grid against nine images drawn by nine calls: the same recipes, on the starter model.

python -m tests.benchmarks.grid [--rounds 5] [--steps 10] [--side 128] [--processor-time]

Both take turns in one process, in changing order, and what counts is their ratio in each round: machines are noisy.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.generation import Recipe, generate
from studio.generation.grids import Axis, cells, draw_cells


def adapter(path: Path) -> Path:
    """A LoRA of rank 8 on the starter's attention, as training with the defaults makes it, with random weights."""
    base = load_base(shared=False)
    made = attach(base.model, AdapterSpec(rank=8, alpha=8))
    chance = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=chance) * 0.05
    made.save(path)
    return path


def measure(rounds: int, steps: int, side: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each round. {"nine calls": …, "grid": …}; one round before them to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        file = adapter(Path(folder) / "adapter.safetensors")
        recipe = Recipe(
            prompt="red apple, on a blue background", steps=steps, width=side, height=side, adapters=((file, 1.0),)
        )
        axes = [Axis("strength", (0.0, 0.5, 1.0)), Axis("seed", (1, 2, 3))]

        def nine_calls() -> None:
            for one in cells(recipe, axes):
                generate(one)

        def grid() -> None:
            for _ in draw_cells(recipe, axes):
                pass

        ways: dict[str, Callable[[], None]] = {"nine calls": nine_calls, "grid": grid}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name in list(ways)[:: 1 if number % 2 else -1]:
                began = clock()
                ways[name]()
                if number:
                    spent[name].append(clock() - began)
        return spent


def table(spent: dict[str, list[float]]) -> str:
    """Markdown: median seconds, and the median of the rounds' ratios."""
    lines = ["| 3 x 3 images, strength by seed | seconds | against nine calls |", "| --- | --- | --- |"]
    for name, times in spent.items():
        ratio = statistics.median(own / other for own, other in zip(times, spent["nine calls"]))
        lines.append(f"| {name} | {statistics.median(times):.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--processor-time", action="store_true", help="of this process alone: for a busy machine")
    given = parser.parse_args()
    clock = time.process_time if given.processor_time else time.perf_counter
    print(table(measure(given.rounds, given.steps, given.side, clock)))


if __name__ == "__main__":
    main()
