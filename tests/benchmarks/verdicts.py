"""Does the verdict name what is wrong with a run? python -m tests.benchmarks.verdicts [--seeds 0 1]

Trains planted runs (`planted_runs.PLANTS`) on the starter, one after the other, scores their best and their last
checkpoint, and keeps losses, scores and what the independent judge (assets/starter/recipe/judge.py, no part of the
base) says of the images in a folder that git ignores. A run that is there already is not made again. --table prints the
verdicts of what is there: even seeds are those on which thresholds were set, odd ones are judged. Of healthy runs every
checkpoint's held-out loss is measured once more, at other noise than that of the run, to see how good the pick is.
"""

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from studio.adapters import attach_file, read_adapter
from studio.basemodels import load_base
from studio.captioning.shapes import Shapes
from studio.errors import StudioError
from studio.training import config_from, read_run, train
from studio.training.presets import preset
from studio.training.scorecard.card import Scorer
from studio.training.scorecard.on_demand import shown_of
from studio.training.scorecard.plan import SIZES
from studio.training.scorecard.scores import Measure, Scores
from studio.training.scorecard.sheet import LABEL, SIDE
from studio.training.scorecard.verdict import Evidence, Loss, verdict_of
from studio.training.selection import split
from studio.workspace import ASSETS, Workspace
from tests.benchmarks.planted_runs import PLANTS, SETS, TRIGGER, Plant

RECIPE = ASSETS / "starter" / "recipe"
RESULTS = Path(__file__).parent / "results" / "verdicts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", default="", help="plants whose name has this in it")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the verdicts of what is there")
    parser.add_argument("--sheets", type=Path, help="what the runs of the last seed drew, as one image in this file")
    given = parser.parse_args()
    sys.path.insert(0, str(RECIPE))
    if not given.table:
        for plant in PLANTS:
            for seed in given.seeds:
                if given.only in plant.name:
                    try:
                        planted(plant, seed, given.folder)
                    except StudioError as error:  # a run that fails by itself needs no verdict; the others go on
                        print(f"{plant.name}, seed {seed}: {error}", flush=True)
    print(table(given.folder))
    if given.sheets:
        sheets(given.folder, max(given.seeds)).save(given.sheets, quality=80)


def planted(plant: Plant, seed: int, results: Path) -> None:
    """Make the run and keep what was measured of it, unless it is there."""
    key = f"{plant.name.replace(' ', '-').replace(',', '')}-{seed}"
    file = results / f"{key}.json"
    if file.is_file():
        return
    began, work = time.monotonic(), results / "work" / key
    shutil.rmtree(work, ignore_errors=True)
    data = work / "data"
    shutil.copytree(SETS / plant.style, data)
    plant.make(data, seed)
    held_out = SETS / "held-out" / plant.style
    values = preset("starter, style") | {
        "name": "run",
        "data.folder": str(data),
        "data.trigger": TRIGGER,
        "data.held_out": str(held_out) if held_out.is_dir() else "",
        "preview.every": 0,
        "training.seed": seed,
        "validation.scorecard": 0,
    }
    values |= plant.settings
    steps = values["training.steps"]
    values |= {"training.warmup": min(10, steps // 5), "validation.every": max(4, steps // 5)}
    config = config_from({"training.checkpoint_every": values["validation.every"]} | values)
    workspace = Workspace.open(work / "workspace")
    for _ in train(config, workspace):
        pass
    found = measured(plant, config, workspace) | {"seed": seed, "seconds": round(time.monotonic() - began)}
    results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1), "utf-8")
    shutil.rmtree(work / "workspace" / "cache", ignore_errors=True)
    print(f"{key}: {found['seconds']} s, {verdict_of(evidence_of(found)).sentence}", flush=True)


def measured(plant: Plant, config: Any, workspace: Workspace) -> dict[str, Any]:
    """The losses, and the scorecards of the best and the last checkpoint, with the judge's word on their images."""
    view = read_run(workspace, config.name)
    losses = [
        {"step": one.step, "loss": one.loss, "base": one.base_loss, "spread": one.spread} for one in view.validations
    ]
    chosen, base = split(config), load_base("starter")
    held_out, trained = (shown_of(items, chosen, config, base) for items in (chosen.held_out, chosen.items))
    kept = min((row for row in losses if row["step"]), key=lambda row: row["loss"])["step"]
    checkpoints = sorted((workspace.runs / config.name).glob("checkpoints/*/adapter.safetensors"))
    files = {kept: workspace.runs / config.name / "adapter.safetensors"} | (
        {} if kept == view.step else {view.step: checkpoints[-1]}
    )
    strength: list[Any] = [None]

    def set_strength(value: float) -> None:
        strength[0].strength = value

    scorer = Scorer(base, config, held_out, trained, config.preview.prompts, set_strength, SIZES[2])
    cards = []
    for step, file in sorted(files.items()):
        strength[0] = attach_file(read_adapter(file), base.modules())
        scores, sheet = scorer.score(step)
        sheet.save(workspace.root.parent / f"{step}.png")
        cards.append(as_json(scores) | {"judge": judged(scorer)})
        strength[0].detach()
    held_out_again = {}
    for file in checkpoints if plant.healthy else ():
        strength[0] = attach_file(read_adapter(file), base.modules())
        held_out_again[int(file.parent.name)] = _held_out_share(scorer)
        strength[0].detach()
    return {
        "plant": plant.name,
        "losses": losses,
        "cards": cards,
        "steps": config.training.steps,
        "held_out_again": held_out_again,
    }


def _held_out_share(scorer: Scorer) -> float:
    """The held-out loss of the adapter as it is now, as a share of the base's, at the scorer's noise."""
    before, now = scorer._base and scorer._base.losses, scorer._losses()
    assert before and now
    return (now[0].mean() / before[0].mean()).item()


def as_json(scores: Scores) -> dict[str, Any]:
    return asdict(scores) | {"strengths": [[s, share] for s, share in scores.strengths.items()]}


def judged(scorer: Scorer) -> dict[str, Any]:
    """Of the prompts whose name the judge knows: how many images of base and adapter it names right in its top 5, and
    how far the adapter's went in what is style.
    """
    import judge
    from measure import pixels

    from tests.benchmarks.style_lesson import style_of, vocabulary, way

    names = vocabulary()
    rows = [n for n, probe in enumerate(scorer.probes) if probe.plain.split(",")[0].strip() in names]
    own = [n for n in rows if scorer.probes[n].kind != "unrelated"]
    base = scorer._base
    assert base is not None
    found: dict[str, Any] = {"count": len(own)}
    shapes = Shapes.read(RECIPE / "judge.safetensors")
    for title, images in (("base", base.images), ("adapter", scorer.drawn)):
        if own:
            truth = torch.tensor([names.index(scorer.probes[n].plain.split(",")[0].strip()) for n in own])
            place = judge.ranks(shapes, pixels([images[n] for n in own]), truth)
            found[title] = int((place < 5).sum())
    every = [n for n, probe in enumerate(scorer.probes) if probe.kind != "unrelated"]
    start, now = (style_of(pixels([images[n] for n in every])) for images in (base.images, scorer.drawn))
    end = style_of(pixels([scorer._image(one) for one in scorer.held_out]))
    found["style"] = {key: way(start[key], now[key], end[key]) for key in start}
    return found


def evidence_of(found: dict[str, Any]) -> Evidence:
    cards = [
        Scores(
            card["step"],
            {name: Measure(**one) for name, one in card["measures"].items()},
            {float(s): share for s, share in card["strengths"]},
            tuple(card["suspects"]),
            card["encoder"],
            card["rows"],
            card["seconds"],
        )
        for card in found["cards"]
    ]
    return Evidence([Loss(**row) for row in found["losses"]], cards)


def table(results: Path) -> str:
    """A row for each run that is there, and how often the verdict was right."""
    plants = {plant.name: plant for plant in PLANTS}
    lines = ["| run | seed | right answer | verdict | judge | sentence |", "| --- | --- | --- | --- | --- | --- |"]
    right: dict[bool, list[bool]] = {False: [], True: []}
    picks: dict[bool, list[float]] = {False: [], True: []}
    for file in sorted(results.glob("*.json")):
        found = json.loads(file.read_text("utf-8"))
        if found["plant"] not in plants:
            continue
        plant, said = plants[found["plant"]], verdict_of(evidence_of(found))
        good = said.outcome in plant.outcomes
        right[found["seed"] % 2 == 1].append(good)
        if again := {int(step): share for step, share in found.get("held_out_again", {}).items()}:
            lost = again[said.checkpoint] / min(again.values()) - 1 if said.checkpoint in again else float("inf")
            picks[found["seed"] % 2 == 1].append(lost)
        judge = found["cards"][-1]["judge"]
        named = f"{judge.get('adapter', '–')} / {judge.get('base', '–')} of {judge['count']}"
        lines.append(
            f"| {plant.name} | {found['seed']} | {', '.join(plant.outcomes)} | "
            f"{said.outcome if good else f'**{said.outcome}**'} | {named} | {said.sentence} |"
        )
    for held, title in ((False, "thresholds set on these"), (True, "judged")):
        if right[held]:
            near = f"{sum(lost <= 0.02 for lost in picks[held])} of {len(picks[held])}"
            lines.append(
                f"\n{title}: {sum(right[held])} of {len(right[held])} right; of healthy runs {near} picks are "
                "within 2 % of the lowest held-out loss."
            )
    return "\n".join(lines)


def sheets(results: Path, seed: int, across: int = 4, shown: int = 3) -> Image.Image:
    """Of each run the dataset's image, the base's and the adapter's for the first prompts of its last scorecard."""
    tall, wide = LABEL + shown * (SIDE + LABEL), 3 * SIDE
    tiles = []
    for file in sorted(results.glob(f"*-{seed}.json")):
        sheet = Image.open(max((results / "work" / file.stem).glob("*.png"), key=lambda path: int(path.stem)))
        tile = Image.new("RGB", (wide + 8, tall + LABEL), "white")
        tile.paste(sheet.crop((0, 0, wide, min(tall, sheet.height))), (0, LABEL))
        said = verdict_of(evidence_of(json.loads(file.read_text("utf-8"))))
        ImageDraw.Draw(tile).text((4, 2), f"{file.stem.replace('-', ' ')[:-2]}: {said.outcome}", fill="black")
        tiles.append(tile)
    rows = -(-len(tiles) // across)
    canvas = Image.new("RGB", (across * (wide + 8), rows * (tall + LABEL + 8)), "white")
    for n, tile in enumerate(tiles):
        canvas.paste(tile, (n % across * (wide + 8), n // across * (tall + LABEL + 8)))
    return canvas.resize((canvas.width // 2, canvas.height // 2), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
