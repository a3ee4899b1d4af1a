"""Train from Python, compare two learning rates by their validation loss, and generate at several strengths.

    python examples/train_and_sweep.py [--steps 100] [--workspace DIR] [--set section.key=value]...

Trains on the sample "silhouette" and the built-in base model: about a minute on two CPU cores.
"""

import argparse
from pathlib import Path

from studio.datasets import copy_sample
from studio.generation import Recipe, generate, save_image
from studio.training import config_from, new_run, read_run_folder, train
from studio.workspace import Workspace


def one_run(workspace: Workspace, settings: dict) -> tuple[Path, float]:
    """Train to the end. Returns the adapter's file and the lowest validation loss."""
    config = config_from(settings)
    folder = new_run(config, workspace)
    for event in train(config, workspace, folder=folder):  # every event also stands in the run folder
        if type(event).__name__ in ("Warned", "Finished"):
            print(f"  {event}")
    run = read_run_folder(folder)
    assert run.adapter is not None
    return run.adapter, min(loss for _, loss, _ in run.validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workspace", help="where runs and images are kept (the usual one)")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="a setting of the runs")
    given = parser.parse_args()
    workspace = Workspace.open(given.workspace)
    dataset = copy_sample(workspace, "silhouette")
    common = {
        "data.folder": str(dataset.folder),
        "training.steps": given.steps,
        "training.warmup": 0,
        "validation.every": max(1, given.steps // 4),
        "preview.every": 0,
    }
    common |= dict(change.split("=", 1) for change in given.set)

    found = {}
    for rate in (1e-3, 3e-4):
        print(f"learning rate {rate:g}")
        found[rate] = one_run(workspace, common | {"name": f"sweep-{rate:g}", "training.learning_rate": rate})
        print(f"  lowest validation loss {found[rate][1]:.4f}")
    best = min(found, key=lambda rate: found[rate][1])
    print(f"best: learning rate {best:g}")

    for strength in (0.0, 0.5, 1.0):
        recipe = Recipe(prompt="rabbit face, on a green background", adapters=((found[best][0], strength),))
        print(save_image(generate(recipe), recipe, workspace.outputs))


if __name__ == "__main__":
    main()
