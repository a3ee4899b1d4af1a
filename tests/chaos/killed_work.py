"""What is done in a workspace until a kill, and what must hold there after it. See killed.py.

A work goes on from wherever the one before was killed, and says what is saved; one that is `doomed` to be killed never
ends by itself where it could. A check gets what was said.
"""

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

from studio.adapters import read_adapter, write_adapter
from studio.adapters.update import Update
from studio.basemodels import load_base
from studio.datasets import history, open_dataset, redo, undo, write_captions
from studio.generation import Recipe, read_recipe, save_image
from studio.services.run_order import dequeue, enqueue, move, waiting
from studio.training import checkpoints, config_from, config_to_toml, list_runs, new_run, read_run, train
from studio.training.events import Checkpoint, Finished
from studio.training.run_notes import note_of, write_note
from studio.training.trash import empty_trash, list_trash, move_to_trash, restore
from studio.workspace import ASSETS, Workspace
from tests.chaos.children import Say
from tests.training.test_exact_resume import BUSY, same

ROOT = Path(__file__).parents[2]
SAMPLE = ASSETS / "datasets" / "silhouette"
LAYER = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
LONG = 100_000  # rounds of a work that goes on until it is killed
QUICK = {
    "data.folder": str(SAMPLE), "adapter.rank": 4, "adapter.targets": "attention", "training.batch_size": 2,
    "training.warmup": 0, "training.checkpoint_every": 2, "preview.every": 0, "validation.every": 0,
}  # fmt: skip


def import_everything(page: bool) -> None:
    """So that a fork begins to work at once. Nothing is trained here: torch's threads do not survive a fork."""
    import studio.training.trainer  # noqa: F401

    if page:
        import studio.web.app  # noqa: F401
    torch.set_num_threads(1)
    load_base()


# Training -----------------------------------------------------------------------------------------------------------


def encode(root: Path, say: Say, doomed: bool) -> None:
    """The cache from nothing, and one step behind it."""
    _train(root, say, {"training.steps": 1}, fresh=True)


def train_busy(root: Path, say: Say, doomed: bool) -> None:
    """Everything that keeps a state of its own, with looks and previews."""
    _train(root, say, BUSY | {"training.steps": 10, "training.accumulation": 1, "training.checkpoint_every": 3})


def train_keeping(root: Path, say: Say, doomed: bool) -> None:
    """A checkpoint after each step, of which few are kept."""
    _train(root, say, {"training.steps": 8, "training.checkpoint_every": 1, "training.keep_checkpoints": 3})


def command_line(root: Path, say: Say, doomed: bool) -> None:
    """`python -m studio train`, in the place of this process."""
    workspace = Workspace.open(root)
    name, folder = _unfinished(workspace)
    file = root / "settings.toml"
    file.write_text(config_to_toml(config_from(QUICK | {"training.steps": 40, "name": name})), encoding="utf-8")
    what = ["--resume", str(folder)] if folder else [str(file)]
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "studio", "--workspace", str(root), "train", *what]
    os.execv(sys.executable, command)


def _unfinished(workspace: Workspace) -> tuple[str, Path | None]:
    """(the run to go on with, its folder), or the name of the next one."""
    names = sorted(list_runs(workspace), key=lambda name: int(name[3:]))
    if names and read_run(workspace, names[-1]).state != "finished":
        return names[-1], workspace.runs / names[-1]
    return f"run{len(names)}", None


def _train(root: Path, say: Say, settings: dict[str, Any], fresh: bool = False) -> None:
    workspace = Workspace.open(root)
    name, folder = _unfinished(workspace)
    if fresh and folder is None:
        for file in (workspace.cache / "encoded").rglob("*.*"):
            file.unlink()
    for event in train(config_from(QUICK | settings | {"name": name}), workspace, folder=folder):
        if isinstance(event, Checkpoint):
            say({"run": name, "step": event.step, "hashes": _hashes(workspace.runs / name / event.folder)})
        elif isinstance(event, Finished):
            say({"run": name, "finished": True})


def _hashes(checkpoint: Path) -> list[str]:
    return [
        hashlib.sha256((checkpoint / file).read_bytes()).hexdigest() for file in ("state.pt", "adapter.safetensors")
    ]


def check_runs(root: Path, said: list[Any], known: dict) -> list[str]:
    """What was saved is there, a run that is finished equals the one that was never killed, and no other is."""
    workspace, wrong = Workspace.open(root), []
    finished = {one["run"] for one in said if "finished" in one}
    for one in (one for one in said if "step" in one):
        known.setdefault("saved", {})[one["run"]] = one
    for name in list_runs(workspace):
        view, folder = read_run(workspace, name), workspace.runs / name
        if view.state not in ("interrupted", "finished"):
            wrong.append(f"{name} reads as {view.state}")
        for checkpoint in checkpoints.every(folder):
            if not (checkpoint / "adapter.safetensors").is_file():
                wrong.append(f"the checkpoint {checkpoint.name} of {name} has no adapter")
        wrong += _check_saved(folder, known.get("saved", {}).get(name))
        if view.state == "finished":
            wrong += _check_equal(workspace, name, known)
        elif name in finished:
            wrong.append(f"{name} had ended, and reads as {view.state}")
    return wrong


def _check_saved(folder: Path, saved: dict | None) -> list[str]:
    """The last checkpoint that was reported, or one behind it."""
    if saved is None:
        return []
    state = checkpoints.newest(folder)
    if state is None or state["step"] < saved["step"]:
        return [f"the checkpoint of step {saved['step']} of {folder.name} was reported and is lost"]
    place = folder / "checkpoints" / f"{saved['step']:06d}"
    if state["step"] == saved["step"] and _hashes(place) != saved["hashes"]:
        return [f"the checkpoint of step {saved['step']} of {folder.name} is another one than was reported"]
    return []


def _check_equal(workspace: Workspace, name: str, known: dict) -> list[str]:
    if name in known.setdefault("compared", set()) or workspace.root == known["uninterrupted"]:
        return []
    known["compared"].add(name)
    other = Workspace.open(known["uninterrupted"])
    one, two = read_run(workspace, name), read_run(other, "run0")
    if one.losses != two.losses or one.validation != two.validation:
        return [f"{name} has other losses than the run that was never killed"]
    if not same(checkpoints.newest(workspace.runs / name), checkpoints.newest(other.runs / "run0")):
        return [f"{name} has another state than the run that was never killed"]
    files = [space.runs / run / "adapter.safetensors" for space, run in ((workspace, name), (other, "run0"))]
    first, second = ({key: dict(update.parts) for key, update in read_adapter(file).layers.items()} for file in files)
    return [] if same(first, second) else [f"{name} has another adapter than the run that was never killed"]


# Captions -----------------------------------------------------------------------------------------------------------


def write_captions_in(root: Path, say: Say, doomed: bool) -> None:
    """Captions one by one, and every fifth time all of them as one change."""
    folder = root / "datasets" / "mine"
    if not folder.exists():
        for number in range(8):
            save_image_file(folder / f"{number}.png", number)
    dataset, salt = open_dataset(folder), time.time_ns()
    files = sorted(dataset.by_file())
    for number in range(LONG if doomed else 40):
        wanted = files if number % 5 == 4 else [files[number % len(files)]]
        captions = {file: f"caption {salt} {number} of {file}" for file in wanted}
        say({"trying": captions})
        write_captions(dataset, captions, "Rewrite")
        say({"saved": captions})


def check_captions(root: Path, said: list[Any], known: dict) -> list[str]:
    """Each caption is the one that was reported last, or, of a change under way, all of the new ones; undo works."""
    folder = root / "datasets" / "mine"
    if not folder.exists() or len(list(folder.glob("*.png"))) < 8:
        return []
    dataset = open_dataset(folder)
    saved = known.setdefault("captions", {})
    for one in said:
        saved |= one.get("saved", {})
    under_way = saved | (said[-1].get("trying", {}) if said else {})
    now = {file: item.caption for file, item in dataset.by_file().items()}
    before = {file: saved.get(file, "") for file in now}
    wrong = [f"opening says: {line}" for line in dataset.problems]
    if now not in (before, {file: under_way.get(file, "") for file in now}):
        wrong.append(f"captions are neither those before nor those after: {[f for f in now if now[f] != before[f]]}")
    saved |= now
    if any(now.values()):
        undo(dataset)
        redo(open_dataset(folder))
        again = {file: item.caption for file, item in open_dataset(folder).by_file().items()}
        if again != now or not history(dataset):
            wrong.append("undo and redo gave other captions")
    return wrong


def save_image_file(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (30 * number % 256, 90, 200)).save(path)


# Adapter files ------------------------------------------------------------------------------------------------------


def write_adapters(root: Path, say: Say, doomed: bool) -> None:
    """One adapter's file over itself, larger each time by what is in it, and its copy for the browser."""
    from studio.services.runs import download_copy

    workspace = Workspace.open(root)
    if not list_runs(workspace):
        new_run(config_from(QUICK | {"name": "ink"}), workspace)
    file = workspace.runs / "ink" / "adapter.safetensors"
    first = round(_value(file)) + 1 if file.exists() else 1
    for number in range(first, first + (LONG if doomed else 20)):
        parts = {"A": torch.full((64, 2048), float(number)), "B": torch.full((2048, 64), float(number))}
        write_adapter(file, {LAYER: Update("lora", parts, 64.0)})
        say({"saved": number})
        download_copy(workspace, "ink")
        say({"copied": number})


def _value(file: Path) -> float:
    return read_adapter(file).layers[LAYER].parts["A"].mean().item()


def check_adapters(root: Path, said: list[Any], known: dict) -> list[str]:
    workspace, wrong = Workspace.open(root), []
    for one in said:
        known |= one
    file, copy = workspace.runs / "ink" / "adapter.safetensors", workspace.cache / "downloads" / "ink.safetensors"
    if file.exists():
        if _value(file) - known.get("saved", 0) not in (0, 1):
            wrong.append(f"the file holds number {_value(file)} and {known.get('saved')} was reported")
        known["saved"] = _value(file)
    elif "saved" in known:
        wrong.append("the file is lost")
    if copy.exists() and not known.get("copied", 0) <= _value(copy) <= known["saved"]:
        wrong.append("the copy is another one than was reported")
    return wrong


# Notes, queue and trash -----------------------------------------------------------------------------------------------


def keep_runs(root: Path, say: Say, doomed: bool) -> None:
    """Runs made, noted, queued, moved, deleted and restored, in an order by chance."""
    workspace = Workspace.open(root)
    chance = random.Random(time.time_ns() if doomed else 0)
    for _ in range(LONG if doomed else 60):
        state = kept(workspace)
        step = _next(state, chance)
        say({"will": step})
        _do(workspace, step)
        say({"state": kept(workspace)})


def kept(workspace: Workspace) -> dict[str, Any]:
    """All that a person would find again."""
    runs = {name: note_of(workspace, name) for name in sorted(list_runs(workspace))}
    return {"runs": runs, "queue": waiting(workspace), "bin": sorted(one.name for one in list_trash(workspace))}


def _next(state: dict, chance: random.Random) -> list:
    names = list(state["runs"])
    steps: list[list] = [["make", f"r{chance.randrange(10**9)}"]] * (len(names) < 6)
    steps += [[kind, name] for name in names for kind in ("note", "queue", "leave", "back", "throw")]
    steps += [["bring", name] for name in state["bin"]] + [["empty"]] * (len(state["bin"]) > 4)
    return [*chance.choice(steps), f"note {chance.randrange(10**6)}"]


def _do(workspace: Workspace, step: list) -> None:
    match step:
        case ["make", name, _]:
            new_run(config_from(QUICK | {"name": name}), workspace)
        case ["note", name, text]:
            write_note(workspace, name, text)
        case ["queue", name, _]:
            enqueue(workspace, name)
        case ["leave", name, _]:
            dequeue(workspace, name)
        case ["back", name, _]:
            move(workspace, name, 1)
        case ["throw", name, _]:
            move_to_trash(workspace, name)
        case ["bring", name, _]:
            restore(workspace, next(one.key for one in list_trash(workspace) if one.name == name))
        case ["empty", _]:
            empty_trash(workspace)


def check_kept(root: Path, said: list[Any], known: dict) -> list[str]:
    """All is as it was reported last, or as the step under way would have it."""
    workspace = Workspace.open(root)
    states = [one["state"] for one in said if "state" in one]
    before, now = states[-1] if states else known.get("kept"), kept(workspace)
    known["kept"] = now
    step = said[-1].get("will") if said else None
    if before is None or now == before:
        return []
    if step is None:
        return [f"nothing was under way, and {before} became {now}"]
    gone = [name for name in before["runs"] if name not in now["runs"]]
    new = [name for name in now["runs"] if name not in before["runs"]]
    if step[0] == "empty":
        fine = set(now["bin"]) <= set(before["bin"]) and now["runs"] == before["runs"]
    elif step[0] in ("make", "throw", "bring"):
        others = all(now["runs"][name] == note for name, note in before["runs"].items() if name in now["runs"])
        fine = others and (gone, new) == (([step[1]], []) if step[0] == "throw" else ([], [step[1]]))
    else:
        notes = before["runs"] | {step[1]: step[2]} if step[0] == "note" else before["runs"]
        fine = now["runs"] == notes and now["bin"] == before["bin"]
        fine = fine and sorted({*now["queue"], step[1]}) == sorted({*before["queue"], step[1]})
    return [] if fine else [f"{step} made {now} of {before}"]


# Images and the page ----------------------------------------------------------------------------------------------


def save_images(root: Path, say: Say, doomed: bool) -> None:
    """Images with their recipes, and the small copies of them that the page shows."""
    from studio.services.thumbnails import cropped, thumbnail

    workspace = Workspace.open(root)
    for seed in range(LONG if doomed else 12):
        image = Image.effect_noise((256, 256), 60).convert("RGB")
        path = save_image(image, Recipe(prompt="a red apple", seed=seed), workspace.outputs)
        say({"image": path.name, "seed": seed, "hash": hashlib.sha256(path.read_bytes()).hexdigest()})
        thumbnail(workspace, path)
        cropped(workspace, path, (10.0, 10.0, 200.0, 200.0), 256)


def check_images(root: Path, said: list[Any], known: dict) -> list[str]:
    outputs = Workspace.open(root).outputs
    known |= {one["image"]: one for one in said}
    wrong = []
    for one in [one for name, one in known.items() if name.endswith(".png")]:
        path = outputs / one["image"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != one["hash"]:
            wrong.append(f"{path.name} is lost or another one")
        elif read_recipe(path).values["seed"] != one["seed"]:
            wrong.append(f"{path.name} has lost its recipe")
    return wrong


def open_page(root: Path, say: Say, doomed: bool) -> None:
    """The studio as launch.py opens it, until its page answers."""
    import threading

    from studio.server.settings import Settings
    from studio.web import app

    def ask(address: str) -> None:
        say({"answer": httpx.get(address, timeout=30).status_code})
        os._exit(0)

    launch = app.gr.Blocks.launch

    def launched(self, **options):
        found = launch(self, **options)
        threading.Thread(target=ask, args=(found[1],), daemon=True).start()
        return found

    app.gr.Blocks.launch = launched  # type: ignore[method-assign]
    app.serve(Settings(workspace=root, browser=False))


def check_page(root: Path, said: list[Any], known: dict) -> list[str]:
    """A queue and a run that were there before stay there."""
    workspace = Workspace.open(root)
    wrong = [f"the page answered {one['answer']}" for one in said if one.get("answer", 200) != 200]
    if not list_runs(workspace):
        enqueue(workspace, new_run(config_from(QUICK | {"name": "waits"}), workspace).name)
    elif waiting(workspace) != ["waits"] or json.loads((root / "queue.json").read_text()) != {"runs": ["waits"]}:
        wrong.append("the queue has changed")
    return wrong
