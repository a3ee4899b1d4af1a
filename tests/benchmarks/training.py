"""How fast training is, how much memory it takes and what it learns, against plain diffusers with peft.

python -m tests.benchmarks.training [--lesson] [--large] [--rounds N] [--targets all]

Each part runs in a process of its own (`training_parts`), and this one stays small: Linux counts what a process held
when it started a child as the child's own peak.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[2] / "assets" / "datasets"
VARIANTS = ("floor", "peft", "ours")
STEPS, BATCH, RANK, RATE, WARMUP, SEEDS = 200, 4, 16, 1e-3, 10, (0, 1, 2)


@dataclass
class Ended:
    """A process that did its part."""

    answer: str
    seconds: float
    megabytes: float  # at its peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lesson", action="store_true", help="also train both for 200 steps and judge them: minutes")
    parser.add_argument("--large", action="store_true", help="also a UNet of Stable Diffusion 1.5's shape: 8 GB")
    parser.add_argument("--rounds", type=int, default=30, help="of the starter; a sixth of it of the large one")
    parser.add_argument(
        "--targets", choices=["attention", "attention+feed-forward", "all"], default="attention+feed-forward"
    )
    given = parser.parse_args()
    steps("starter", (1, 2, 4), given.rounds, given.targets)
    if given.large:
        steps("sd15", (1,), max(3, given.rounds // 6), given.targets)
    if given.lesson:
        lesson()


def steps(model: str, batches: tuple[int, ...], rounds: int, targets: str) -> None:
    """The step table: medians over rounds in which all take a step in turn."""
    print(f"\n{model}, rank {RANK} on {targets}: a step is forward, loss, backward, clip, optimiser")
    print("floor: the frozen model alone, forward and backward to its input")
    print(f"{'':8}{'':8}{'steps/s':>9}{'to floor':>10}{'to peft':>9}{'MB beyond the model':>21}")
    loaded = part("memory", model, "loaded", "1", targets).megabytes
    for batch in batches:
        measured = json.loads(part("steps", model, str(batch), str(rounds), targets).answer)
        for variant in VARIANTS:
            row = measured[variant]
            beyond = part("memory", model, variant, str(batch), targets).megabytes - loaded
            print(
                f"{f'batch {batch}':8}{variant:8}{1 / row['seconds']:9.2f}{row['rate to floor']:10.3f}"
                f"{row['rate to peft']:9.3f}{beyond:21.0f}",
                flush=True,
            )


def lesson() -> None:
    """The same images, steps, batch, rank and rate for both, from three seeds, judged by diffusers alone."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ended: dict[str, list[Ended]] = {"peft": [], "ours": []}
        files: dict[str, list[Path]] = {"peft": [], "ours": []}
        for seed in SEEDS:
            files["peft"].append(folder / f"peft-{seed}" / "pytorch_lora_weights.safetensors")
            ended["peft"].append(part("learn", str(files["peft"][-1].parent), str(seed)))
            files["ours"].append(folder / "runs" / f"seed-{seed}" / "adapter.safetensors")
            ended["ours"].append(process("studio", *studio_arguments(folder, seed)))
        judged = json.loads(part("judge", *map(str, files["peft"] + files["ours"])).answer)
    print(f"\nsilhouettes, starter: {STEPS} steps at batch {BATCH}, rank {RANK}, rate {RATE:g}, seeds {SEEDS}")
    print(f"{'':8}{'held-out loss':>20}{'seconds':>10}{'peak MB':>10}")
    print(f"{'base':8}{judged['base']:12.4f}")
    for name, runs in ended.items():
        losses = [judged[str(file)] for file in files[name]]
        seconds, peak = (statistics.median(getattr(run, what) for run in runs) for what in ("seconds", "megabytes"))
        loss = f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}"
        print(f"{name:8}{loss:>20}{seconds:10.1f}{peak:10.0f}", flush=True)


def studio_arguments(workspace: Path, seed: int) -> list[str]:
    """`python -m studio` with these trains what `training_parts.learn` trains."""
    settings = {
        "data.held_out": DATA / "held-out" / "silhouette",
        "data.caption_dropout": 0.05,
        "adapter.rank": RANK,
        "adapter.targets": "attention+feed-forward",
        "training.steps": STEPS,
        "training.batch_size": BATCH,
        "training.learning_rate": RATE,
        "training.warmup": WARMUP,
        "training.seed": seed,
        "preview.every": 0,
        "validation.every": 0,
    }
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = ["--data", str(DATA / "silhouette"), "--name", f"seed-{seed}"]
    return ["train", "--workspace", str(workspace), *run, *changes]


def part(*arguments: str) -> Ended:
    return process("tests.benchmarks.training_parts", *arguments)


def process(module: str, *arguments: str) -> Ended:
    """Run a module to its end. Its last line on stdout is its answer."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=out, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), errors.seek(0)
        if child.returncode:
            raise SystemExit(f"{module} {' '.join(arguments)} ended with {child.returncode}:\n{errors.read()[-2000:]}")
        lines = out.read().splitlines()
    return Ended(lines[-1] if lines else "", time.monotonic() - began, usage.ru_maxrss / 1000)


if __name__ == "__main__":
    main()
