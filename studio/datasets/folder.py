"""Reading a dataset from its folder: images, and beside each its caption as `.txt`."""

from dataclasses import replace
from pathlib import Path

from studio.datasets.captions import Sidecar, Tables, read_sidecar
from studio.datasets.dataset import Dataset, Item
from studio.datasets.history import finish
from studio.datasets.image_index import ImageInfo, changed_at, read_index, write_index
from studio.datasets.images import read_header
from studio.datasets.listing import list_folder
from studio.errors import DatasetError

_WORTH_KEEPING = 500  # headers; fewer are read in a blink, and the folder of a person is left as it is


def open_dataset(folder: Path) -> Dataset:
    """Read a folder and the folders in it. Raises DatasetError when there is no image.

    A change of captions that was cut short is completed first. From each image the header is read, or what is known
    of it from before if its size and time are the same. Links out of the folder are not followed.
    """
    folder = _existing(folder)
    items, problems, warnings = [], finish(folder), []
    listing, tables, known, fresh = list_folder(folder), Tables(folder), read_index(folder), 0
    seen: dict[str, ImageInfo] = {}
    first_of: dict[tuple[Path, str], str] = {}  # (folder, stem): the first image of that stem
    for file, entry, has_sidecar in listing.images:
        path = Path(entry.path)
        try:
            problem = "" if entry.is_file() else "not a file that can be read."
            if not problem and entry.is_symlink() and not path.resolve().is_relative_to(folder):
                problem = "a link to another folder, copy the image here instead."
            if problem:
                problems.append(f"{path.name}: {problem}")
                continue
            stat = entry.stat()
            facts = known.get(file)
            if facts is None or not facts.still(stat) or facts.several < 0:
                width, height, several = read_header(path)
                before = facts if facts and facts.still(stat) else ImageInfo(stat.st_size, changed_at(stat), 0, 0)
                facts = replace(before, width=width, height=height, several=int(several))
                fresh += 1
            seen[file] = facts
        except OSError:
            problems.append(f"{path.name}: not a file that can be read.")  # gone, or a link that leads nowhere
            continue
        except DatasetError as error:
            problems.append(str(error))
            continue
        first = first_of.setdefault((path.parent, path.stem), path.name)
        shares_stem = first != path.name
        sidecar = read_sidecar(path) if has_sidecar and not shares_stem else Sidecar()
        if has_sidecar and not shares_stem and sidecar == Sidecar():
            sidecar = Sidecar(problem=f"{path.name}: its caption file is none that can be read.")
        warnings += [sidecar.problem] if sidecar.problem else []
        if facts.several > 0:
            warnings.append(f"{path.name}: several images (an animation, or pages), of which the first is used.")
        if shares_stem:
            warnings.append(f"{path.name}: its caption file would be that of {first}, rename one of the two.")
        caption = tables.caption(path) if sidecar.text is None else sidecar.text
        size = (facts.width, facts.height)
        variants = () if shares_stem else tuple(listing.variants.get(file.removesuffix(path.suffix), ()))
        items.append(Item(path, caption, size, file, shares_stem, sidecar.lines, variants))
    problems += listing.skipped + tables.problems
    warnings += [f"{file}: a caption file of no image." for file in listing.orphans]
    warnings += tables.without_image({item.path for item in items})
    if fresh >= _WORTH_KEEPING:
        write_index(folder, seen)
    if not items:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        what = f"{problems[0].rstrip('.')}{more}" if problems else "put some in, as JPEG, PNG or WebP"
        raise DatasetError(f"No images in {folder.name}: {what}.")
    return Dataset(folder, items, problems, warnings, listing.unrelated)


def _existing(folder: Path) -> Path:
    try:
        found = Path(folder).expanduser().resolve()
        if found.is_dir():
            return found
    except (OSError, ValueError, RuntimeError):  # a name that no folder can have, or a home that is unknown
        pass
    raise DatasetError(f"There is no folder {Path(folder).name[:60]!r}: choose a folder of images.")
