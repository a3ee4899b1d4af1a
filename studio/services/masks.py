"""Masks of a dataset for masked training: painted, set from files, made by a model, cleared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from studio.errors import DatasetError
from studio.services.datasets import change_answer, find_item, new_batch, open_named, view
from studio.services.jobs import Job, jobs, remember, stop_job
from studio.services.operations import operation
from studio.services.parameters import MOST_FILES, DatasetName, Download, Files, Upload
from studio.services.thumbnails import LARGE, masked, thumbnail
from studio.text import pluralize
from studio.workspace import Workspace

if TYPE_CHECKING:
    from PIL import Image

    from studio.datasets import Change, Dataset, Item

KIND = "masks"  # of the job
SIDE = 768  # pixels of what is painted, as painter.js has it
# Those that every release of rembg since 2.0.57 has; its default of today is not for commercial use.
MaskModel = Annotated[
    Literal[
        "isnet-general-use",
        "isnet-anime",
        "u2net",
        "u2netp",
        "u2net_human_seg",
        "silueta",
        "birefnet-general",
        "birefnet-general-lite",
        "birefnet-portrait",
    ],
    Field(description="Mask model, of rembg."),
]


@operation()
def make_masks(
    workspace: Workspace,
    dataset: DatasetName,
    files: Files = [],  # noqa: B006
    model: MaskModel = "isnet-general-use",
    overwrite: Annotated[bool, Field(description="Also where there is a mask already.")] = False,
    invert: Annotated[bool, Field(description="Learn from what is around the main thing instead.")] = False,
    download: Download = False,
) -> Job:
    """Make masks of the main thing of each image by a model (rembg), undoably, in the background; files: empty for all.

    job_status says how it goes, its message at the end which images have no new mask and why.
    """
    from studio.datasets.mask_models import MISSING, is_installed

    workspace.allows.check_model(model)
    if not is_installed():
        raise DatasetError(MISSING)
    opened = open_named(workspace, dataset)
    for file in files:
        find_item(opened, file)
    workspace.refuse_if_full()

    def work(job: Job) -> None:
        from studio.datasets.mask_models import MaskMaker
        from studio.datasets.mask_models import make_masks as made_by

        items = opened.by_file()
        wanted = [file for file in files or items if overwrite or items[file].mask_file is None]
        job.total, job.message = len(wanted), "Loading the mask model"
        problems, done = [], 0
        maker = MaskMaker(model, download) if wanted else None
        for one in made_by(opened, wanted, maker, invert, new_batch(), job.stop_event) if maker else ():
            job.done, job.message = job.done + 1, one.file
            problems += [one.problem] if one.problem else []
            done += not one.problem
        kept = len(files or items) - len(wanted)
        lines = [f"{opened.name}: {pluralize(done, 'mask')} made{', then stopped' * job.stop_event.is_set()}."]
        lines += [f"{pluralize(kept, 'image')} had one already."] if kept else []
        job.message = "\n".join([" ".join(lines), *problems])

    job = jobs.start(KIND, f"Making masks of {opened.name}", work, limit=workspace.allows.longest)
    remember(job, opened.name)
    return job


@operation()
def stop_masks(workspace: Workspace) -> bool:
    """Stop making masks after the current image; masks that were made stay. Answers whether anything ran."""
    return stop_job(KIND)


@operation(upload="masks", answer=lambda workspace, change: change_answer(change))
def set_masks(
    workspace: Workspace,
    masks: Annotated[
        list[Upload], Field(max_length=MOST_FILES, description="Masks, called as their images or NAME-masklabel.png.")
    ],
    dataset: DatasetName,
) -> "Change":
    """Give images of a dataset masks from files, undoably: white is learned from. `left` says what fitted no image."""
    from studio.datasets.images import size_of
    from studio.datasets.masks import image_of, open_mask, write_masks

    opened, found, left = view(workspace, dataset), dict[str, Any](), list[str]()
    by_stem = {item.path.stem: file for file, item in reversed(opened.by_file().items())}
    for mask in masks:
        file = by_stem.get(image_of(mask.name))
        if file is None:
            left.append(f"{mask.name}: no image of {opened.name} is called so.")
            continue
        try:
            found[file] = open_mask(mask, mask.name, size_of(find_item(opened, file).path))
        except DatasetError as error:
            left.append(str(error))
    if not found:
        raise DatasetError(f"No mask was set: {left[0] if left else 'no file was given.'}")
    change = write_masks(opened, found, f"Set {pluralize(len(found), 'mask')}")
    change.left.extend(left)
    return change


@operation(answer=lambda workspace, change: change_answer(change))
def clear_masks(workspace: Workspace, dataset: DatasetName, files: Files = []) -> "Change":  # noqa: B006
    """Remove the masks of these images, undoably; files: empty for all."""
    from studio.datasets.masks import write_masks

    opened = view(workspace, dataset)
    for file in files:
        find_item(opened, file)
    wanted = [file for file, item in opened.by_file().items() if item.mask_file and (not files or file in files)]
    if not wanted:
        raise DatasetError(f"There is no mask to clear in {opened.name}.")
    label = f"Clear mask of {wanted[0]}" if len(wanted) == 1 else f"Clear {len(wanted)} masks"
    return write_masks(opened, dict.fromkeys(wanted), label)


# On the page --------------------------------------------------------------------------------------------------------


def paint_mask(workspace: Workspace, dataset: str, file: str, painted: "Image.Image") -> "Change":
    """Keep what a person painted over an image: PIL RGBA, the mask being its alpha; nothing painted is no mask."""
    from studio.datasets.masks import painted_over, write_masks

    opened = view(workspace, dataset)
    item, mask = find_item(opened, file), painted.getchannel("A")
    if mask.getbbox() is None:
        return write_masks(opened, {file: None}, f"Clear mask of {file}")
    return write_masks(opened, {file: painted_over(item, mask)}, f"Paint mask of {file}")


def canvas_of(workspace: Workspace, item: "Item") -> tuple[Path, Path | None, tuple[int, int]]:
    """(the image to paint on, its mask at the size of the canvas or None, that size)."""
    from PIL import Image

    from studio.datasets.masks import mask_now
    from studio.services.thumbnails import keep_mask

    source = thumbnail(workspace, item.path, LARGE)
    with Image.open(source) as image:
        scale = min(1.0, SIDE / max(image.size))
        size = round(image.width * scale), round(image.height * scale)
    mask = mask_now(item)
    if mask is None:
        return source, None, size
    return source, keep_mask(workspace, mask.resize(size, Image.Resampling.BILINEAR)), size


def trained_view(workspace: Workspace, item: "Item", outside: float = 0.0, side: int = LARGE) -> Path:
    """A small copy of the image with what masked training does not look at darkened."""
    return masked(workspace, item, outside, side)


def mask_stamp(item: "Item") -> str:
    """Another text whenever the mask of the image is another one."""
    from studio.datasets.masks import mask_stamp as stamp

    return stamp(item)


def counted(dataset: "Dataset") -> str:
    """How many images have a mask: "3 of 20 images have a mask"."""
    many = sum(item.mask_file is not None for item in dataset.items)
    return f"{many:,} of {pluralize(len(dataset.items), 'image')} {'has' if many == 1 else 'have'} a mask"
