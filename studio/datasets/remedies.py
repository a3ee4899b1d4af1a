"""One click against a finding of `health`, through the history and so undoable."""

from studio.datasets import health
from studio.datasets.bulk import remove_tag
from studio.datasets.captions import with_trigger
from studio.datasets.dataset import Dataset
from studio.datasets.health import Finding
from studio.datasets.history import Change, write_captions
from studio.datasets.removal import remove_images
from studio.errors import DatasetError


def remedy(dataset: Dataset, finding: Finding, name: str) -> Change:
    """Do what `name`, one of the finding's remedies, says to the finding's files, as one undoable change.

    To spare some of them, give the finding with fewer `files` (dataclasses.replace). Captions that were edited since
    the dataset was opened are left alone and named. Raises DatasetError when the remedy is not one of the finding's or
    the folder can't be written.
    """
    name = health.OLD_NAMES.get(name, name)
    if name not in finding.remedies:
        known = " or ".join(finding.remedies) or "there is none"
        raise DatasetError(f"{name[:40]!r} does not help against {finding.kind}: {known}.")
    files = set(finding.files)
    if name == health.REMOVE:
        return remove_images(dataset, finding.files, f"Remove {_count(files)}: {finding.kind}")
    if name == health.TO_TRASH:
        return remove_images(dataset, finding.files, f"Move {len(files)} caption files to the trash")
    if name == health.KEEP_LARGEST:
        smaller = [file for group in finding.groups for file in group[1:] if file in files and group[0] in files]
        return remove_images(dataset, smaller, f"Remove {_count(smaller)}: near-duplicates")
    if name == health.TRIGGER:
        trigger = finding.subject
        label = f"Put {trigger!r} in front"
        return _write(dataset, finding, label, "rule:trigger", lambda file, caption: with_trigger(caption, trigger))
    if name == health.CLEAR:
        return _write(dataset, finding, "Clear captions that are the same", "rule:health", lambda file, caption: "")
    if name == health.REMOVE_TAG:
        without = remove_tag(finding.subject)
        label = f"Remove {finding.subject!r} everywhere"
        return _write(dataset, finding, label, "rule:health", lambda file, caption: without(caption))
    return _write(
        dataset,
        finding,
        "Cut captions at the limit",
        "rule:health",
        lambda file, caption: caption.removesuffix(finding.details.get(file, "")).rstrip(" ,"),
    )


def _write(dataset: Dataset, finding: Finding, label: str, author: str, change) -> Change:
    items = dataset.by_file()
    before = {file: items[file].caption for file in finding.files if file in items}
    after = {file: change(file, caption) for file, caption in before.items()}
    return write_captions(dataset, after, f"{label} ({_count(before)})", author, expected=before)


def _count(files) -> str:
    return "1 image" if len(files) == 1 else f"{len(files)} images"
