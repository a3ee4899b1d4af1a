"""Training, captioning, importing and drawing while something runs out. Each row returns what was said."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from studio.captioning import caption_dataset
from studio.datasets import copy_sample, import_images, open_dataset
from studio.generation import Recipe, generate, read_recipe, save_image
from studio.training import checkpoints, config_from, extend_run, list_runs, new_run, read_run, train
from studio.training.events import Event, Finished, Step
from studio.workspace import Workspace
from tests.chaos.children import Child, Say
from tests.chaos.killed_work import QUICK, SAMPLE
from tests.chaos.starving import few_files, fill, free, little_memory, read_only, refused, sentence
from tests.chaos.whole import broken_files

STEPS = {"training.steps": 6, "name": "run"}
MARGINS = (1, 8, 24, 64, 160, 500)  # MB of memory that are left
HANDLES = (0, 1, 2, 4, 8)  # files that may still be opened
_prepared = Path()


def prepare(folder: Path) -> None:
    """A run that lacks nothing, to compare with, and what it has encoded."""
    global _prepared
    _prepared = folder

    def work(say: Say) -> None:
        workspace = Workspace.open(folder)
        copy_sample(workspace, "silhouette")
        list(run(workspace))

    assert Child(work).end(after=120).how == "done"


def space(root: Path, encoded: bool = True) -> Workspace:
    """A workspace with the images, on the small disk."""
    workspace = Workspace.open(root / "space")
    copy_sample(workspace, "silhouette")
    if encoded:
        shutil.copytree(_prepared / "cache" / "encoded", workspace.cache / "encoded")
    return workspace


def run(workspace: Workspace, stop: threading.Event | None = None, **changes: Any) -> Iterator[Event]:
    """The run of this workspace, from where it stands."""
    folder = workspace.runs / "run"
    settings = QUICK | STEPS | {"data.folder": str(workspace.datasets / "silhouette")} | changes
    return train(config_from(settings), workspace, stop, folder if (folder / "run.toml").is_file() else None)


def until(events: Iterator[Event], kind: type, step: int, do: Callable[[], Any]) -> list[Event]:
    """All events; `do` is done once, at the first event of this kind at this step."""
    seen: list[Event] = []
    for event in events:
        if (
            isinstance(event, kind)
            and event.step == step
            and not any(isinstance(e, kind) and e.step == step for e in seen)
        ):
            do()
        seen.append(event)
    return seen


def ends_well(workspace: Workspace) -> None:
    """Resumed with enough of everything, the run ends with the very losses of one that never lacked anything."""
    if read_run(workspace, "run").state != "finished":
        assert isinstance(list(run(workspace))[-1], Finished)
    view = read_run(workspace, "run")
    assert view.state == "finished" and view.adapter, view.state
    assert view.losses == read_run(Workspace.open(_prepared), "run").losses, "other losses than without the trouble"
    assert not broken_files(workspace.root), broken_files(workspace.root)


def captions(workspace: Workspace) -> dict[str, str]:
    dataset = open_dataset(workspace.datasets / "silhouette")
    assert not dataset.problems, dataset.problems
    return {file: item.caption for file, item in dataset.by_file().items()}


def caption(workspace: Workspace, **options: Any):
    return caption_dataset(open_dataset(workspace.datasets / "silhouette"), mode="overwrite", **options)


def images_in(folder: Path) -> int:
    return len(list(folder.glob("*.png")))


def draw(workspace: Workspace, seed: int = 1, **fields: Any) -> Path:
    recipe = Recipe(prompt="red apple", steps=2, seed=seed, **fields)
    return save_image(generate(recipe), recipe, workspace.outputs)


# A full disk --------------------------------------------------------------------------------------------------------


def training_on_a_full_disk(root: Path) -> str:
    workspace = space(root)
    said = refused(lambda: until(run(workspace), Step, 3, lambda: fill(root)))
    assert read_run(workspace, "run").state in ("interrupted", "failed")
    assert checkpoints.newest(workspace.runs / "run")["step"] == 2
    again = refused(lambda: list(run(workspace)))
    free(root)
    ends_well(workspace)
    return f"{said} / {again}"


def training_with_room_for_events_alone(root: Path) -> str:
    workspace = space(root)
    events: list[Event] = []
    said = refused(lambda: events.extend(until(run(workspace), Step, 3, lambda: fill(root, leave=24_000))))
    warned = [message for _, message in read_run(workspace, "run").warnings if "checkpoint" in message]
    assert warned and "step 2 is whole" in warned[0], warned
    assert [f.name for f in checkpoints.every(workspace.runs / "run")] == ["000002"]
    free(root)
    ends_well(workspace)
    return f"{warned[0]} / {said}"


def encoding_on_a_full_disk(root: Path) -> str:
    workspace = space(root, encoded=False)
    fill(root, leave=60_000)
    said = refused(lambda: list(run(workspace)))
    free(root)
    ends_well(workspace)
    return said


def captioning_on_a_full_disk(root: Path) -> str:
    workspace, written = space(root), {}
    before = captions(workspace)

    def progress(done: int, total: int, path: Path, text: str) -> None:
        written[path.name] = text
        if done == 1:
            fill(root)

    said = refused(lambda: caption(workspace, trigger="zsk", progress=progress))
    folder = workspace.datasets / "silhouette"
    kept = {item.path.name: item.caption for item in open_dataset(folder).items}
    assert written and all(kept[name] in (text, before[name]) for name, text in (before | written).items())
    assert all(kept[name] == text for name, text in written.items()), "a caption that was reported is lost"
    free(root)
    assert caption(workspace, trigger="zsk").written == 24
    assert all(text.startswith("zsk") for text in captions(workspace).values())
    return said


def importing_on_a_full_disk(root: Path) -> str:
    workspace = space(root)
    fill(root, leave=60_000)
    said = refused(lambda: import_images(workspace, "mine", [SAMPLE]))
    assert not broken_files(workspace.datasets)
    free(root)
    dataset, _ = import_images(workspace, "again", [SAMPLE])
    assert len(dataset.items) == 24 and all(item.caption for item in dataset.items)
    return said


def saving_an_image_on_a_full_disk(root: Path) -> str:
    workspace = space(root)
    first = draw(workspace)
    fill(root)
    said = refused(lambda: draw(workspace, 2))
    assert [path.name for path in workspace.outputs.iterdir()] == [first.name]
    free(root)
    assert read_recipe(draw(workspace, 2)).values["seed"] == 2
    return said


# A disk that may not be written -------------------------------------------------------------------------------------


def training_in_a_read_only_workspace(root: Path) -> str:
    workspace = space(root)
    until(run(workspace, **{"training.steps": 2}), Finished, 2, lambda: None)
    read_only(root)
    assert list_runs(workspace) == ["run"] and read_run(workspace, "run").state == "finished"
    said = {refused(lambda: new_run(config_from(QUICK | {"name": "other"}), workspace))}
    said |= {refused(lambda: extend_run(workspace.runs / "run", 6)), refused(lambda: list(run(workspace)))}
    read_only(root, False)
    return " / ".join(sorted(said))


def captioning_in_a_read_only_workspace(root: Path) -> str:
    workspace = space(root)
    before = captions(workspace)
    read_only(root)
    said = refused(lambda: caption(workspace))
    assert captions(workspace) == before
    return said


def importing_into_a_read_only_workspace(root: Path) -> str:
    workspace = space(root)
    read_only(root)
    return refused(lambda: import_images(workspace, "mine", [SAMPLE]))


def saving_an_image_in_a_read_only_workspace(root: Path) -> str:
    workspace = space(root)
    read_only(root)
    return refused(lambda: draw(workspace))


# No memory, no files ------------------------------------------------------------------------------------------------


def tried(margins: tuple[int, ...], limit: Callable[[int], Any], work: Callable[[int], Any]) -> str:
    """`work` under each limit: it may end well or in a sentence. Returns the sentences, and how often it ended well."""
    said: list[str] = []
    for more in margins:
        try:
            with limit(more):
                work(more)
            said.append("it worked")
        except Exception as error:
            said.append(sentence(error))
    return " / ".join(dict.fromkeys(said))


def megabytes(more: int):
    return little_memory(more * 2**20)


def training_without_memory(root: Path) -> str:
    workspace = space(root)
    said = tried(MARGINS, megabytes, lambda more: list(run(workspace)))
    ends_well(workspace)
    return said


def captioning_without_memory(root: Path) -> str:
    workspace = space(root)
    load = caption(workspace)  # so that the model is there, and memory is short while it works
    said = tried(MARGINS, megabytes, lambda more: caption(workspace, trigger=f"t{more}"))
    assert load.written == 24 and caption(workspace, trigger="zsk").written == 24
    return said


def importing_without_memory(root: Path) -> str:
    workspace = space(root)
    large = root / "large.png"
    Image.effect_noise((2500, 2500), 60).save(large)
    said = tried(MARGINS, megabytes, lambda more: import_images(workspace, f"mine{more}", [large]))
    assert len(import_images(workspace, "mine", [large])[0].items) == 1
    return said


def drawing_without_memory(root: Path) -> str:
    workspace = space(root)
    draw(workspace), draw(workspace, width=512, height=512)  # what oneDNN could not make once it never tries again
    said = tried(MARGINS, megabytes, lambda more: draw(workspace, more, width=512, height=512))
    assert draw(workspace, 1000).is_file() and not broken_files(workspace.outputs)
    return said


def training_without_file_handles(root: Path) -> str:
    workspace = space(root)
    said = tried(HANDLES, few_files, lambda more: list(run(workspace)))
    ends_well(workspace)
    return said


def captioning_without_file_handles(root: Path) -> str:
    workspace = space(root)
    said = tried(HANDLES, few_files, lambda more: caption(workspace, trigger=f"t{more}"))
    assert caption(workspace, trigger="zsk").written == 24
    return said


def importing_without_file_handles(root: Path) -> str:
    workspace = space(root)
    said = tried(HANDLES, few_files, lambda more: import_images(workspace, f"mine{more}", [SAMPLE]))
    assert len(import_images(workspace, "mine", [SAMPLE])[0].items) == 24 and not broken_files(workspace.datasets)
    return said


def drawing_without_file_handles(root: Path) -> str:
    workspace = space(root)
    said = tried(HANDLES, few_files, lambda more: draw(workspace, more))
    assert draw(workspace, 1000).is_file() and not broken_files(workspace.outputs)
    return said


ROWS = {
    function.__name__.replace("_", " "): function
    for function in (
        training_on_a_full_disk, training_with_room_for_events_alone, encoding_on_a_full_disk,
        captioning_on_a_full_disk, importing_on_a_full_disk, saving_an_image_on_a_full_disk,
        training_in_a_read_only_workspace, captioning_in_a_read_only_workspace, importing_into_a_read_only_workspace,
        saving_an_image_in_a_read_only_workspace, training_without_memory, captioning_without_memory,
        importing_without_memory, drawing_without_memory, training_without_file_handles,
        captioning_without_file_handles, importing_without_file_handles, drawing_without_file_handles,
    )
}  # fmt: skip
