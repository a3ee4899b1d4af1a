"""Made the archive and the recording beside this file, by hand and once, with version 0.1 (commit 5889198):

    git worktree add --detach ../studio-0.1 5889198
    PYTHONPATH=../studio-0.1 python tests/frozen/make.py /tmp/frozen-0.1
    git worktree remove --force ../studio-0.1

It needs the extras test and mcp, and a folder that is not there yet. What 0.1 makes and answers there is real: a
studio is served and asked by gradio_client; only what no endpoint does (votes, a picture with every field of a recipe)
is done by 0.1's own functions. The base model is a tiny Stable Diffusion 1 of random numbers under ~/bases, with HOME
set to the folder, so that runs, pictures and adapters name no place of the machine.
"""

import argparse
import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

BASE = "~/bases/sd1"
TINY = {"base": "sd1", "training.batch_size": 2, "training.warmup": 0, "data.resolution": 64, "preview.steps": 2,
        "adapter.targets": "attention", "training.checkpoint_every": 2, "preview.every": 3,
        "validation.every": 2}  # fmt: skip
COLOURS = ("red", "green", "blue", "orange", "purple", "black", "teal", "navy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", action="store_true", help="the archive is there: call 0.1 on it")
    given = parser.parse_args()
    root = given.folder.resolve() / "made"
    os.environ["HOME"] = str(root)  # before anything is imported
    import studio
    import tests

    assert studio.__version__ == "0.1.0"
    tests.__path__.append(str(Path(__file__).parent.parent))  # 0.1's own tests, and this folder beside them
    from tests.frozen.fixture import pack
    from tests.frozen.record import record

    if given.record:
        return record(root.with_name("unpacked"), Path(studio.__file__).parent.parent)
    root.mkdir(parents=True)
    (root / "workspace").mkdir()
    save_base(root)
    save_files(root)
    build(root)
    pack(root)
    # By another process: what this one left in the middle counts as running while it lives.
    subprocess.run([sys.executable, __file__, str(given.folder), "--record"], check=True)


def save_base(root: Path) -> None:
    """In half precision, which is half the bytes."""
    from safetensors.torch import load_file, save_file

    from tests.families import tiny

    for file in tiny.save("sd1", root / "bases").rglob("*.safetensors"):
        save_file({name: value.half() for name, value in load_file(file).items()}, file, {"format": "pt"})


def picture(number: int, size: tuple[int, int] = (64, 64)):
    """A disc, a ring or a square, each in another place and colour."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, ("white", "lightyellow", "pink")[number % 3])
    x, y, wide = 8 + 5 * (number % 4), 6 + 6 * (number % 3), 24 + 3 * (number % 5)
    draw = (ImageDraw.Draw(image).ellipse, ImageDraw.Draw(image).rectangle)[number % 2]
    draw((x, y, x + wide, y + wide), fill=COLOURS[number % 8], outline="black", width=1 + number % 4)
    return image


def mask(image):
    from PIL import Image, ImageDraw

    made = Image.new("L", image.size, 0)
    ImageDraw.Draw(made).ellipse((8, 8, 50, 50), fill=255)
    return made


def png(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def save_files(root: Path) -> None:
    """What a person drops: pictures, and a zip of pictures with captions and masks."""
    files = root / "files"
    files.mkdir()
    for number in range(3):
        (files / f"plain-{number}.png").write_bytes(png(picture(number + 20)))
    (files / "new.png").write_bytes(png(picture(31)))
    with zipfile.ZipFile(files / "shapes.zip", "w") as archive:
        for number in range(7):
            image = picture(number, ((64, 64), (80, 64))[number == 2])
            archive.writestr(f"shape-{number}.png", png(image))
            if number < 2:
                archive.writestr(f"shape-{number}.txt", f"a {COLOURS[number]} shape, drawn by hand")
            if number % 2 == 0:
                archive.writestr(f"shape-{number}-masklabel.png", png(mask(image)))


# The workspace --------------------------------------------------------------------------------------------------------


class Studio:
    """0.1, served in this process and asked as programs ask it."""

    def __init__(self, url: str, downloads: Path):
        from gradio_client import Client

        self.client = Client(url, verbose=False, download_files=str(downloads))

    def ask(self, endpoint: str, **arguments):
        return self.client.predict(api_name=f"/{endpoint}", **arguments)

    def wait(self, endpoint: str = "job_status", states: tuple[str, ...] = ("done",), **arguments) -> None:
        while (found := self.ask(endpoint, **arguments))["state"] not in states:
            assert found["state"] in ("running", "interrupted", "none"), found
            time.sleep(0.05)

    def train(self, name: str, steps: int, state: str = "finished", **more) -> None:
        more = {key.replace("__", "."): value for key, value in more.items()}
        self.ask("start_training", dataset=more.pop("dataset", "shapes"), name=name, steps=steps,
                 rank=more.pop("rank", 1), prompts="zsk, a disc\na square@0.5", more=TINY | more)  # fmt: skip
        if state:
            self.wait("run_status", (state,), run=name)


def build(root: Path) -> None:
    from studio.ui import actions_bases

    from studio.workspace import Workspace
    from tests.serving import served

    with served(root / "workspace") as url:
        studio = Studio(url, root.parent / "downloads")
        make_datasets(studio, root / "files")
        actions_bases.remember(Workspace.open(root / "workspace"), BASE)  # the endpoint would write its whole path
        make_runs(studio, root / "workspace" / "datasets")
        make_pictures(studio, root / "workspace")
        pause_a_run(studio)
        leave(root / "workspace", root.parent / "left")
        studio.ask("stop_training")
        studio.client.close()
    left = root.parent / "left"
    (root / "workspace").rename(root.parent / "ended")
    left.rename(root / "workspace")


def leave(workspace: Path, target: Path) -> None:
    """The workspace as it is while a run stands still: as a closed laptop leaves it."""
    import shutil

    shutil.copytree(workspace, target)


def make_datasets(studio: Studio, files: Path) -> None:
    """Captions by a person, by the built-in captioner and by rules; a picture taken out; a change that was undone."""
    from gradio_client import handle_file

    studio.ask("import_pictures", files=[handle_file(str(files / "shapes.zip"))], name="shapes")
    plain = [handle_file(str(files / f"plain-{number}.png")) for number in range(3)]
    studio.ask("import_pictures", files=plain, name="plain")
    studio.ask("import_pictures", files=plain[:1], name="torn")
    studio.ask("caption_dataset", dataset="shapes", trigger="zsk", mode="append")
    studio.wait()
    studio.ask("edit_captions", dataset="shapes", operation="add tag", first="flat", write=True)
    studio.ask("save_caption", dataset="shapes", file="shape-3.png", caption="zsk, a square, flat, of orange paper")
    studio.ask("remove_pictures", dataset="shapes", files=["shape-6.png"])
    studio.ask("edit_captions", dataset="shapes", operation="add tag", first="mistaken", write=True)
    studio.ask("undo", dataset="shapes")
    studio.ask("check_dataset", dataset="shapes", resolution=64, trigger="zsk")


def make_runs(studio: Studio, datasets: Path) -> None:
    """Of every state but the paused one, which comes last."""
    studio.train("finished", 6, data__masks=True, training__ema=0.9, adapter__text_encoder=True,
                 validation__fraction=0.3)  # fmt: skip
    studio.ask("note_run", run="finished", note="The good one.\nKeep it.")
    studio.train("stopped", 1000, "", adapter__kind="lokr", training__optimizer="schedule-free-adamw",
                 training__schedule="constant", rank=2, preview__every=0)  # fmt: skip
    while studio.ask("run_status", run="stopped")["step"] < 3:
        time.sleep(0.02)
    studio.ask("stop_training")
    studio.wait("run_status", ("stopped",), run="stopped")
    torn = datasets / "torn" / "plain-0.png"
    torn.write_bytes(torn.read_bytes()[:120])
    studio.train("failed", 4, "failed", dataset="torn", preview__every=0)
    studio.train("thrown", 1, dataset="plain", preview__every=0, validation__every=0)
    studio.ask("delete_run", run="thrown")
    studio.train("on-starter", 2, base="starter", preview__every=0, validation__every=0, data__resolution=128)
    for name, steps in (("first-in-line", 2), ("second-in-line", 3)):
        studio.ask("queue_training", dataset="shapes", name=name, steps=steps, rank=1, more=TINY)


def make_pictures(studio: Studio, folder: Path) -> None:
    """Pictures, a grid with votes, adapter files, and what is remembered of them."""
    from studio.ui import actions_bases, actions_grids, actions_history, actions_shelf

    from studio.datasets import open_dataset
    from studio.generation import Recipe, generate, save_picture, votes
    from studio.training.summary import summaries
    from studio.workspace import Workspace

    workspace = Workspace.open(folder)
    actions_bases.choose(workspace, "sd1")
    recipe = {"prompt": "zsk, a (disc:1.2)", "negative": "a square", "seed": 7, "steps": 2, "width": 64, "height": 64,
              "adapters": [{"run": "finished", "strength": 0.8}], "more": {"base": "sd1"}}  # fmt: skip
    studio.ask("generate", **recipe)
    studio.ask("generate", **recipe | {"prompt": "deleted"})
    studio.ask("delete_picture", picture="deleted-7.png")
    axes = [{"kind": "strength", "which": "finished", "text": "0, 0.5, 1"}, {"kind": "seed", "text": "1-2"}]
    studio.ask("draw_grid", axes=axes, **recipe)
    studio.wait()
    grid = actions_grids.newest(workspace)
    for said in ("left", "right", "same"):
        votes.cast(grid, *votes.next_pair(grid), said)
    studio.ask("convert_adapter", adapter={"run": "on-starter"}, layout="kohya")
    studio.wait()
    studio.ask("export_adapters", name="baked", layout="diffusers", **recipe)
    studio.wait()
    (made,) = [path for path in workspace.adapters.glob("*.safetensors") if "baked" not in path.name]
    shapes = open_dataset(workspace.datasets / "shapes")
    whole = Recipe(
        prompt="zsk, every field", negative_prompt="none", seed=11, steps=3, guidance=5.5, width=64, height=72,
        scheduler="Euler", clip_skip=2, count=2, source=shapes.items[0].path, denoising=0.7,
        mask=workspace.datasets / "shapes" / "shape-0-masklabel.png", base=BASE,
        adapters=[
            {"file": workspace.runs / "finished" / "adapter.safetensors", "strength": 0.9, "text_strength": 0.5,
             "blocks": {"unet.down_blocks.1": 0.25}, "start": 0.1, "end": 0.9},
            {"file": workspace.adapters / "baked.safetensors", "strength": -0.5},
        ],
    )  # fmt: skip
    save_picture(generate(whole), whole, workspace.outputs)
    on_starter = {"prompt": "zsk, a fish", "steps": 1, "width": 64, "height": 64, "adapters": [{"run": "on-starter"}]}
    studio.ask("measure_adapter", adapter={"run": "on-starter"}, seeds=1, **on_starter)
    studio.wait()
    studio.ask("publish_run", run="finished", repo="someone/shapes", licence="mit", triggers="zsk")
    studio.wait()
    actions_history.find(workspace)
    assert made.is_file() and actions_shelf.cards(workspace)
    names = [path.name for path in workspace.runs.iterdir()]
    assert len(summaries(workspace, names, 60)[0]) == len(names)


def pause_a_run(studio: Studio) -> None:
    """In the middle, with a checkpoint."""
    studio.train("paused", 20, "", adapter__kind="dora", rank=2, data__regularisation="plain", data__flip=True,
                 data__shuffle_tags=True, training__accumulation=2, training__min_snr_gamma=5,
                 training__checkpoint_every=100, validation__every=1, validation__fraction=0.3)  # fmt: skip
    while studio.ask("run_status", run="paused")["step"] < 2:
        time.sleep(0.01)
    studio.ask("pause_training")
    studio.wait("run_status", ("paused",), run="paused")
    assert studio.ask("run_status", run="paused")["step"] < 18


if __name__ == "__main__":
    sys.exit(main())
