"""Every change of captions, masks and images, undoable, also after a restart.

A change is first written to the journal and then made, under a lock. If something cuts it short, the next opening of
the dataset makes it whole. Undo takes back the newest change that stands; a file that was changed outside the studio
since is left alone and named. Undo and redo are entries themselves, so nothing that was ever typed is lost.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from studio.datasets import mask_files, phrases
from studio.datasets.captions import Tables, one_line, put_caption, read_caption, read_sidecar
from studio.datasets.dataset import Dataset
from studio.datasets.file_moves import Moves, move, moved_back
from studio.datasets.journal import CHANGE, REDO, UNDO, Entry, all_done, append, mark_done, read_journal
from studio.datasets.meta_dir import locked, unwritable, within
from studio.errors import DatasetError

_FLUSH_EACH = 20  # captions; more are left to the system to flush, as the journal holds them all on the disk


@dataclass(frozen=True)
class Change:
    """What a change did. id: 0 when there was nothing to do; left: one line for each file that was left alone."""

    id: int
    label: str
    files: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A line of the history. time: UTC, ISO 8601; kind: "change", "undo" or "redo"; undone: it does not stand now."""

    id: int
    time: str
    label: str
    author: str
    kind: str
    files: list[str]
    undone: bool


def write_captions(
    dataset: Dataset,
    captions: Mapping[str, str],
    label: str,
    author: str = phrases.PERSON,
    batch: str = "",
    expected: Mapping[str, str] | None = None,
) -> Change:
    """Write {file: caption} into the images' `.txt` as one change; an empty caption removes the sidecar.

    author    "person", "model:NAME" or "rule:NAME"
    batch     changes of one batch that follow each other are undone together, for work that is written as it goes
    expected  {file: caption} as the writer knew it: a caption that is another by now is left alone and named

    Raises DatasetError when a file is not in the dataset or the folder can't be written.
    """
    items = dataset.by_file()
    for file in captions:
        if file not in items:
            raise DatasetError(f"There is no image called {file[:60]!r} in {dataset.name}: open the dataset again.")
    with _writing(dataset.folder):
        tables, changes, left = Tables(dataset.folder), {}, []
        for file, caption in captions.items():
            path, text = items[file].path, one_line(caption)
            if not path.is_file():
                left.append(f"{file}: the image is gone.")
                continue
            if items[file].shares_stem:
                left.append(f"{file}: its caption file would be another image's of the same name, rename it.")
                continue
            sidecar, table = read_sidecar(path), tables.caption(path)
            if sidecar.text is None and sidecar.problem:
                left.append(f"{sidecar.problem.rstrip('.')}; it is left as it is.")
                continue
            before = sidecar.text
            now = table if before is None else before
            if expected is not None and file in expected and one_line(expected[file]) not in (now, text):
                left.append(f"{file}: its caption was changed meanwhile, it is left as it is.")
            elif text != now:
                changes[file] = (before, text if text or table else None)
        if not changes:
            return Change(0, label, [], left)
        known = phrases.read_authors(dataset.folder)
        gains, losses = {}, {}
        for file, (old, new) in changes.items():
            gains[file] = phrases.gained(old or "", new or "", known.get(file, {}), author)
            losses[file] = phrases.lost(old or "", new or "", known.get(file, {}))
        entry = append(
            dataset.folder,
            lambda number, time: Entry(
                number, time, label, author, captions=changes, batch=batch, gains=_some(gains), losses=_some(losses)
            ),
        )
        _perform(dataset.folder, entry)
    return Change(entry.id, label, list(changes), left)


def move_images(dataset: Dataset, plan: Moves, label: str, author: str, left: Iterable[str] = ()) -> Change:
    """Move files as one change; plan(id) says which. Use `remove_images` and `restore_images`."""
    with _writing(dataset.folder):
        entry = append(dataset.folder, lambda number, time: Entry(number, time, label, author, moved=plan(number)))
        left = [*left, *_perform(dataset.folder, entry)]
    return Change(entry.id, label, list(entry.moved), left)


def change_masks(
    dataset: Dataset,
    plan: Callable[[], tuple[dict[str, tuple[str, str]], list[str]]],
    label: str,
    author: str,
    batch: str = "",
) -> Change:
    """Change masks as one change; plan() says ({file: (mask before, after)}, lines on what is left). Use `masks`."""
    with _writing(dataset.folder):
        changes, left = plan()
        if not changes:
            return Change(0, label, [], left)
        entry = append(
            dataset.folder,
            lambda number, time: Entry(number, time, label, author, batch=batch, masks=changes),
        )
        left = [*left, *_perform(dataset.folder, entry)]
    return Change(entry.id, label, list(changes), left)


def undo(dataset: Dataset) -> Change:
    """Take back the newest change that stands. Raises DatasetError when there is none."""
    return _turn(dataset, UNDO)


def redo(dataset: Dataset) -> Change:
    """Make again what was undone last. Raises DatasetError when there is nothing, or something was changed since."""
    return _turn(dataset, REDO)


def history(dataset: Dataset) -> list[Step]:
    """All that was done, newest first; the parts of a batch that follow each other are one step."""
    entries, _ = read_journal(dataset.folder)
    standing = {entry.id for group in _stacks(entries)[0] for entry in group}
    steps: list[Step] = []
    last = None
    for entry in entries:
        undone = entry.kind == CHANGE and entry.id not in standing
        if last and _joined(last, entry) and steps[-1].undone == undone:
            files = list(dict.fromkeys(steps.pop().files + entry.files))
        else:
            files = entry.files
        steps.append(Step(entry.id, entry.time, entry.label, entry.author, entry.kind, files, undone))
        last = entry
    return steps[::-1]


def can_undo(dataset: Dataset) -> tuple[str, str]:
    """(label of what undo would take back, label of what redo would make again); "" where there is nothing."""
    done, undone = _stacks(read_journal(dataset.folder)[0])
    return done[-1][-1].label if done else "", undone[-1][-1].label if undone else ""


def finish(folder: Path) -> list[str]:
    """Complete a change that was cut short. Returns a line for each file of it that can't be completed."""
    if all_done(folder):
        return []
    try:
        with locked(folder, wait=False) as ours:
            return _finish(folder) if ours else []  # somebody else is writing it just now
    except DatasetError as error:
        return [f"A change was cut short and can't be completed: {error}"]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """The lock, and whatever was cut short before completed. Raises DatasetError when the folder can't be written."""
    with locked(folder):
        if not all_done(folder):
            _finish(folder)
        yield


def _finish(folder: Path) -> list[str]:
    entries, done = read_journal(folder)
    if not entries or entries[-1].id in done:
        return []
    return [f"{line} ({entries[-1].label} was cut short.)" for line in _perform(folder, entries[-1], again=True)]


def _perform(folder: Path, entry: Entry, again: bool = False) -> list[str]:
    """Make the change of an entry. again: it may be made in part already. Returns a line for each file left alone."""
    left = []
    for file, (before, after) in entry.captions.items():
        try:
            path = within(folder, file)
        except DatasetError as error:
            left.append(str(error))
            continue
        try:
            if again and not path.is_file():
                left.append(f"{file}: the image is gone.")
            elif not again or read_caption(path) == before:
                put_caption(path, after, lasting=len(entry.captions) <= _FLUSH_EACH)
            elif read_caption(path) != after:
                left.append(f"{file}: its caption was changed by something else, it is left as it is.")
        except OSError as error:
            raise unwritable(folder, error) from error
    for file, pairs in entry.moved.items():
        left += move(folder, file, pairs, again)
    for file, (mask, to) in entry.masks.items():
        left += mask_files.bring(folder, file, mask, to, again)
    if entry.captions:
        texts = {file: (before or "", after or "") for file, (before, after) in entry.captions.items()}
        phrases.keep_authors(folder, texts, entry.gains)
    mark_done(folder, entry)
    return left


def _turn(dataset: Dataset, kind: str) -> Change:
    folder = dataset.folder
    with _writing(folder):
        stack = _stacks(read_journal(folder)[0])[kind == REDO]
        if not stack:
            raise DatasetError(f"There is nothing to {kind} in {dataset.name}.")
        group = stack[-1]
        wanted: dict[str, tuple[str | None, str | None]] = {}
        moved: dict[str, tuple[tuple[str, str], ...]] = {}
        authors: dict[str, dict[str, str]] = {}
        for entry in group:
            for file, (before, after) in entry.captions.items():
                wanted[file] = (wanted.get(file, (before,))[0], after)
            moved |= entry.moved
        for entry in reversed(group) if kind == UNDO else group:
            for file, names in (entry.losses if kind == UNDO else entry.gains).items():
                authors[file] = authors.get(file, {}) | names
        changes, left = {}, []
        for file, (before, after) in wanted.items():
            is_now, to = (after, before) if kind == UNDO else (before, after)
            with suppress(DatasetError):
                path = within(folder, file)
                now = read_caption(path)
                if not path.is_file():
                    left.append(f"{file}: the image is gone.")
                elif now == is_now:
                    changes[file] = (now, to)
                elif now != to:
                    left.append(f"{file}: its caption was edited outside the studio, it is left as it is.")
        if kind == UNDO:
            moved = {file: moved_back(pairs) for file, pairs in moved.items()}
        known = phrases.read_authors(folder)
        losses = {f: phrases.lost(now or "", to or "", known.get(f, {})) for f, (now, to) in changes.items()}
        label = f"{kind.capitalize()}: {group[-1].label}"
        masks, more = _masks_turned(folder, group, kind)
        left += more
        entry = append(
            folder,
            lambda number, time: Entry(
                number, time, label, phrases.PERSON, kind, changes, moved, _some(authors), _some(losses), masks=masks
            ),
        )
        left += _perform(folder, entry)
    return Change(entry.id, label, entry.files, left)


def _masks_turned(folder: Path, group: list[Entry], kind: str) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """({file: (mask now, mask then)}, a line for each mask that was changed outside) of a group undone or redone."""
    wanted: dict[str, tuple[str, str]] = {}
    for entry in group:
        for file, (before, after) in entry.masks.items():
            wanted[file] = (wanted.get(file, (before,))[0], after)
    changes, left = {}, []
    for file, (before, after) in wanted.items():
        is_now, to = (after, before) if kind == UNDO else (before, after)
        try:
            now, _ = mask_files.present(folder, file)
        except DatasetError as error:
            left.append(str(error))
            continue
        if now == is_now:
            changes[file] = (now, to)
        elif now != to:
            left.append(f"{file}: its mask was edited outside the studio, it is left as it is.")
    return changes, left


def _stacks(entries: Iterable[Entry]) -> tuple[list[list[Entry]], list[list[Entry]]]:
    """(what stands, what was undone and can be redone), each oldest first, in groups that go together."""
    done: list[list[Entry]] = []
    undone: list[list[Entry]] = []
    last = None
    for entry in entries:
        if entry.kind == UNDO and done:
            undone.append(done.pop())
        elif entry.kind == REDO and undone:
            done.append(undone.pop())
        elif entry.kind == CHANGE:
            if last and done and _joined(last, entry):
                done[-1].append(entry)
            else:
                done.append([entry])
            undone.clear()
        last = entry
    return done, undone


def _joined(first: Entry, second: Entry) -> bool:
    return bool(first.batch) and first.batch == second.batch and first.kind == second.kind == CHANGE


def _some(by_file: Mapping[str, Collection]) -> dict:
    return {file: names for file, names in by_file.items() if names}
