"""Every file of a dataset's folder, each in one place: an image, something beside an image, or counted as left out."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from studio.datasets.captions import CAPTION_SUFFIXES, TABLES
from studio.datasets.dataset import MASKS
from studio.datasets.images import OTHER_SUFFIXES, SUFFIXES
from studio.datasets.meta_dir import META_DIR
from studio.errors import lacking
from studio.workspace import is_valid_unicode

VARIANT = re.compile(r"(.+)\.([0-9]{1,4})", re.DOTALL)  # stem of a further caption file of an image


@dataclass
class Listing:
    """Names are those in the dataset, "10_cat/a.png".

    images     (name, entry, whether a caption file lies beside it), in their order
    captions   how many caption files lie beside an image
    variants   {image without its suffix: more caption files of it, NAME.1.txt and so on}
    orphans    caption files without an image
    masks      how many masks lie beside an image
    skipped    a line for each image, mask, folder or name that can't be used, with the reason
    unrelated  files that have nothing to do with images, hidden ones included
    """

    images: list[tuple[str, os.DirEntry[str], bool]] = field(default_factory=list)
    captions: int = 0
    variants: dict[str, list[str]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    masks: int = 0
    skipped: list[str] = field(default_factory=list)
    unrelated: list[str] = field(default_factory=list)


def list_folder(folder: Path) -> Listing:
    """All files of a folder and the folders in it, but for those of `.studio`."""
    found, keyed = Listing(), []
    for inside, entries in visible_in(folder, found.skipped, found.unrelated):
        names = {entry.name for entry in entries}
        stems = {os.path.splitext(name)[0] for name in names if _is_image(name)}
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            if _is_image(entry.name):
                stem = os.path.splitext(entry.name)[0]
                has_sidecar = any(stem + suffix in names for suffix in CAPTION_SUFFIXES)
                keyed.append(((*inside, entry.name), entry, has_sidecar))
            else:
                _sort_in(found, "/".join((*inside, entry.name)), entry.name, stems, names)
    found.images = [("/".join(parts), entry, has) for parts, entry, has in sorted(keyed, key=lambda one: one[0])]
    found.orphans.sort()
    for variants in found.variants.values():
        variants.sort(key=lambda name: (int(name.split(".")[-2]), name))
    return found


def _sort_in(found: Listing, file: str, name: str, stems: set[str], names: set[str]) -> None:
    """Count a file that is no image. stems: of the images beside it; names: of all files beside it."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in SUFFIXES:  # a mask, by its stem
        image = stem.removesuffix(MASKS[0]).removesuffix(MASKS[1])
        if stem.endswith(MASKS[1]):
            found.skipped.append(f"{name}: a control image, those are not used.")
        elif suffix != ".png":
            found.skipped.append(f"{name}: a mask is read as {stem}.png only, save it as PNG.")
        elif image in stems:
            found.masks += 1
        else:
            found.skipped.append(f"{name}: a mask of no image here.")
    elif suffix.lower() in CAPTION_SUFFIXES:
        if stem not in stems and (more := VARIANT.fullmatch(stem)) and more[1] in stems:
            found.variants.setdefault(file[: len(file) - len(name)] + more[1], []).append(name)
        elif stem not in stems:
            found.orphans.append(file)
        elif suffix not in CAPTION_SUFFIXES:
            found.skipped.append(f"{name}: a caption is read as {stem}{suffix.lower()} only, rename it.")
        elif suffix == CAPTION_SUFFIXES[1] and stem + CAPTION_SUFFIXES[0] in names:
            found.skipped.append(f"{name}: not read, since there is {stem}{CAPTION_SUFFIXES[0]}.")
        else:
            found.captions += 1
    elif suffix.lower() in OTHER_SUFFIXES:
        found.skipped.append(f"{name}: {suffix.lower()} files are not read, save it as PNG or JPEG.")
    elif name not in TABLES:
        found.unrelated.append(file)


def _is_image(name: str) -> bool:
    stem, suffix = os.path.splitext(name)
    return suffix.lower() in SUFFIXES and not stem.endswith(MASKS)


def visible_in(
    root: Path, skipped: list[str] | None = None, hidden: list[str] | None = None
) -> Iterator[tuple[tuple[str, ...], list[os.DirEntry[str]]]]:
    """(folders down from the root, its visible entries) of the root and all in it; links to folders are not entered.

    skipped  gets a line for each folder that can't be read or is a link, and for each name whose bytes are no text, as
             older systems wrote them: no page can show it
    hidden   gets the names of what begins with a dot, `.studio` aside
    """
    skipped, hidden = [] if skipped is None else skipped, [] if hidden is None else hidden
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        inside = waiting.pop()
        here = []
        try:
            with os.scandir(root.joinpath(*inside)) as entries:
                for entry in entries:
                    if not is_valid_unicode(entry.name):
                        name = entry.name.encode("utf-8", "replace").decode()
                        skipped.append(f"{name}: its name is not written in UTF-8, rename it.")
                    elif not entry.name.startswith("."):
                        here.append(entry)
                    elif entry.name != META_DIR:
                        hidden.append("/".join((*inside, entry.name)))
        except OSError as error:
            if lacking(error):
                raise
            skipped.append(f"{inside[-1] if inside else root.name}: a folder that can't be read.")
            continue
        for entry in here:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((*inside, entry.name))
            elif _leads_to_folder(entry):
                skipped.append(f"{entry.name}: a link to another folder, copy its images here instead.")
        yield inside, [entry for entry in here if not _leads_to_folder(entry)]


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself
        return False
