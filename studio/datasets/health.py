"""What is wrong with a dataset, and what can be done about it with one click."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from studio.datasets.analysis import Analysis, Progress, analyse, image_hash, near_duplicates
from studio.datasets.buckets import MAX_ASPECT, frame_of
from studio.datasets.bulk import tag_counts
from studio.datasets.captions import has_trigger
from studio.datasets.dataset import Dataset
from studio.datasets.image_index import ImageInfo
from studio.datasets.listing import list_folder
from studio.datasets.phrases import PERSON, all_authors

CountTokens = Callable[[str], tuple[int, str]]  # caption: (its tokens, the text that the encoder does not read)

BLURRED = 30.0  # variance of the Laplacian; sharp photos and drawings have 50 to 5,000, a blur of 1.5 pixels below 30
_STEP = 8  # what the sides of a bucket divide by at least
_ENLARGED = 1.02  # an image that is so much too small is not worth a word
_FEW = 5  # images: in a smaller set a tag on all of them says nothing

# Remedies by name. What each does is in `remedies`.
REMOVE = "remove the images"
KEEP_LARGEST = "keep the largest of each"
TRIGGER = "put the trigger in front"
CLEAR = "clear the captions"
CUT = "cut the captions at the limit"
REMOVE_TAG = "remove the tag everywhere"
TO_TRASH = "move the files to the trash"
OLD_NAMES = {"set the files aside": TO_TRASH}  # of before 0.2


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    kind      "unreadable", "too small", "near-duplicates", "blurred", "extreme aspect", "missing captions", "duplicate
              captions", "too long", "trigger absent", "tag everywhere", "orphan captions", "hint"
    message   one sentence
    files     names in the dataset
    remedies  names for `remedy`, the best first
    details   {file: a few words on it}; for "too long" the text that is cut off
    groups    of near-duplicates, the one to keep first in each; of images with the same caption
    subject   the trigger or the tag that it is about
    """

    kind: str
    message: str
    files: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()
    subject: str = ""


def examine(
    dataset: Dataset,
    resolution: int,
    trigger: str = "",
    count_tokens: CountTokens | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[Finding]:
    """Findings about the dataset, the worst first; [] when all is well.

    resolution    what will be trained at: the side of a square, in pixels
    count_tokens  of the base model's own tokenizer; None: the length of captions is not checked
    progress      called with (done, total, name) for each image
    stop          ends the analysis early; the findings are then about the images that were read
    """
    seen = analyse(dataset, progress, stop)
    found = [*_images(dataset, seen, resolution), *_captions(dataset, trigger.strip()), *_tokens(dataset, count_tokens)]
    if orphans := list_folder(dataset.folder).orphans:
        found.append(
            _finding(
                "orphan captions",
                orphans,
                "{} caption file has no image|{} caption files have no image",
                [TO_TRASH],
            )
        )
    if image_hash() is None:
        found.append(Finding("hint", "Near-duplicates are found once ImageHash is installed (pip install ImageHash)."))
    return [one for one in found if one.files or one.kind == "hint"]


def _best_first(
    dataset: Dataset, seen: Analysis, writers: Mapping[str, list[tuple[str, str]]], group: tuple[str, ...]
) -> tuple[str, ...]:
    """The largest image first; of equals the one that a person captioned, then any captioned, the older, and the one of
    the shorter name, since copies get longer ones.
    """
    items = dataset.by_file()

    def rank(file: str) -> tuple:
        facts = seen.facts[file]
        said = [author for _, author in writers.get(file, ())]
        stat = items[file].path.stat() if file in items and items[file].path.exists() else None
        age = stat.st_mtime_ns if stat else 0
        return -facts.width * facts.height, PERSON not in said, not said, age, len(file), file

    return tuple(sorted(group, key=rank))


def _images(dataset: Dataset, seen: Analysis, resolution: int) -> list[Finding]:
    small, blurred, extreme = {}, {}, {}
    for file, facts in sorted(seen.facts.items()):
        width, height = facts.width, facts.height
        size = f"{width} × {height}"
        enlarged = _enlarged(facts, resolution)
        if enlarged > _ENLARGED:
            small[file] = f"{size}, to be enlarged {enlarged:.1f} times"
        if facts.sharpness < BLURRED:
            blurred[file] = f"sharpness {facts.sharpness:.0f}, from {BLURRED:.0f} on is good"
        if max(width, height) > MAX_ASPECT * min(width, height):
            extreme[file] = f"{size}, {max(width, height) / min(width, height):.1f} : 1"
    writers = all_authors(dataset)
    groups = tuple(_best_first(dataset, seen, writers, group) for group in near_duplicates(seen.facts))
    near = [file for group in groups for file in group]
    return [
        _finding("unreadable", seen.problems, "{} file can't be opened|{} files can't be opened", [REMOVE]),
        _finding(
            "near-duplicates", near, "|{} images are the same as another, or nearly so", [KEEP_LARGEST], groups=groups
        ),
        _finding(
            "too small",
            small,
            f"{{}} image is too small for {resolution} pixels|{{}} images are too small for {resolution} pixels",
            [REMOVE],
        ),
        _finding(
            "blurred",
            blurred,
            "{} image is blurred or nearly empty|{} images are blurred or nearly empty",
            [REMOVE],
        ),
        _finding(
            "extreme aspect",
            extreme,
            "{} image is longer than 3 : 1 and loses its ends|{} images are longer than 3 : 1 and lose their ends",
            [REMOVE],
        ),
    ]


def _enlarged(facts: ImageInfo, resolution: int) -> float:
    """By what factor the image has to grow to fill its bucket; 1 or less when it is large enough."""
    frame = frame_of(facts.width, facts.height, resolution, _STEP, upscale=True)
    return max(frame.size[0] / facts.width, frame.size[1] / facts.height)


def _captions(dataset: Dataset, trigger: str) -> list[Finding]:
    captions = {file: item.caption for file, item in dataset.by_file().items()}
    missing = [file for file, caption in captions.items() if not caption]
    same: dict[str, list[str]] = defaultdict(list)
    for file, caption in captions.items():
        if caption:
            same[caption.casefold()].append(file)
    groups = tuple(tuple(files) for files in same.values() if len(files) > 1)
    doubles = [file for group in groups for file in group]
    found = [
        _finding(
            "missing captions",
            missing,
            "{} image has no caption|{} images have no caption",
            [TRIGGER] if trigger else [],
            trigger,
        ),
        _finding("duplicate captions", doubles, "|{} images share a caption with another", [CLEAR], groups=groups),
    ]
    if trigger:
        absent = [file for file, caption in captions.items() if caption and not has_trigger(caption, trigger)]
        text = "{} caption lacks the trigger {subject}|{} captions lack the trigger {subject}"
        found.append(_finding("trigger absent", absent, text, [TRIGGER], trigger))
    captioned = len(captions) - len(missing)
    for tag, count in tag_counts(dataset).items():
        if count < captioned or captioned < _FEW:
            break
        if tag.casefold() != trigger.casefold():
            files = tuple(file for file, caption in captions.items() if caption)
            message = f"Every caption has {tag!r}, so it can't be told from what is being taught."
            found.append(Finding("tag everywhere", message, files, (REMOVE_TAG,), subject=tag))
    return found


def _tokens(dataset: Dataset, count_tokens: CountTokens | None) -> list[Finding]:
    if count_tokens is None:
        return []
    cuts = {}
    for file, item in dataset.by_file().items():
        if item.caption and (cut := _cut_of(item.caption, count_tokens)):
            cuts[file] = cut
    return [
        _finding(
            "too long",
            cuts,
            "{} caption is longer than the text encoder reads|{} captions are longer than the text encoder reads",
            [CUT],
        )
    ]


def _cut_of(caption: str, count_tokens: CountTokens) -> str:
    """The end of the caption that is not read, letter for letter; "" when all is read.

    A tokenizer may give the cut text in lower case or with other spaces: then whole words are left out from the end
    until the rest is read.
    """
    cut = count_tokens(caption)[1].strip()
    if not cut or caption.casefold().endswith(cut.casefold()):
        return caption[len(caption) - len(cut) :] if cut else ""
    words = caption.split(" ")
    fits, too_many = 0, len(words)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if count_tokens(" ".join(words[:middle]))[1].strip():
            too_many = middle
        else:
            fits = middle
    return " ".join(words[fits:])


def _finding(
    kind: str,
    files: list[str] | dict[str, str],
    text: str,
    remedies: list[str],
    subject: str = "",
    groups: tuple[tuple[str, ...], ...] = (),
) -> Finding:
    """text: what to say of one file and, after "|", of many; {} is their number."""
    one, _, many = text.partition("|")
    message = (one if len(files) == 1 and one else many).replace("{}", f"{len(files):,}") + "."
    message = message.replace("{subject}", repr(subject))
    details = files if isinstance(files, dict) else {}
    return Finding(kind, message, tuple(files), tuple(remedies), details, groups, subject)
