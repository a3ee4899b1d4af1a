"""Captions of a dataset: edit one, edit many with a preview of the differences."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from studio.errors import DatasetError
from studio.schema import explain
from studio.services import datasets
from studio.services.operations import operation
from studio.services.parameters import Caption, DatasetName, FileName, Table
from studio.text import pluralize
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.datasets import Change, Dataset
    from studio.datasets.bulk import Filter, Operation, Proposal


@operation()
def save_caption(
    workspace: Workspace, dataset: DatasetName, file: FileName, caption: Caption = "", *, batch: str = ""
) -> str:
    """Set the caption of one image. Answers the caption as it was written, in one line.

    batch: edits with the same one are one step to undo. What stood there before is in the history.
    """
    from studio.datasets import write_captions

    opened = datasets.view(workspace, dataset)
    item = datasets.find_item(opened, file)
    text = " ".join((caption or "").split())
    change = write_captions(opened, {file: text}, f"Edit {file}", batch=batch)
    if change.left:
        raise DatasetError(change.left[0])
    if change.id:  # typing in a large dataset must not read all of it again
        datasets.replace_viewed(opened, item, dataclasses.replace(item, caption=text))
    return text


# Many at once -------------------------------------------------------------------------------------------------------


OPERATIONS: dict[str, tuple[str, str, str]] = {  # name: (what it does, label of the first field, of the second)
    "add tag": ("Add a tag at the end", "Tag", ""),
    "add tag in front": ("Add a tag in front", "Tag", ""),
    "remove tag": ("Remove a tag", "Tag", ""),
    "rename tag": ("Rename a tag", "Tag", "New name"),
    "prepend": ("Put text in front", "Text", ""),
    "append": ("Put text behind", "Text", ""),
    "replace": ("Find and replace", "Find", "Replace by"),
    "deduplicate": ("Each tag only once", "", ""),
    "sort": ("Sort tags by frequency", "", ""),
    "tidy": ("Tidy spaces and commas", "", ""),
    "spaces": ("Underscores to spaces", "", ""),
    "clear": ("Clear the caption", "", ""),
}

EditName = Annotated[str, Field(max_length=40, description=f"What to do: {', '.join(OPERATIONS)}.")]


@operation(answer=lambda workspace, found: found if isinstance(found, list) else datasets.change_answer(found))
def edit_captions(
    workspace: Workspace,
    dataset: DatasetName,
    operation: EditName,
    first: Annotated[str, Field(max_length=20_000, description="The tag or text.")] = "",
    second: Annotated[str, Field(max_length=20_000, description="The new name or text.")] = "",
    filter: Annotated[Table, Field(description='Which images, such as {"has": "cat", "captioned": true}.')] = {},  # noqa: B006
    write: Annotated[bool, Field(description="Change them; off only answers what would change.")] = False,
    regex: Annotated[bool, Field(description="`first` is a regular expression, for replace.")] = False,
    ignore_case: Annotated[bool, Field(description="Upper and lower case are the same, for replace.")] = False,
) -> "list[dict[str, Any]] | Change":
    """Edit many captions. Answers what would change, or with `write` what was changed, undoably."""
    from studio.datasets.bulk import Filter

    try:
        wanted = TypeAdapter(Filter).validate_python(filter)
    except ValidationError as error:
        raise DatasetError(f"filter.{explain(error)}") from None
    found = propose(workspace, dataset, wanted, operation, first, second, regex, ignore_case)
    if write:
        return accept(workspace, dataset, found, operation)
    return [one._asdict() for one in found]


def operation_of(
    dataset: "Dataset", name: str, first: str = "", second: str = "", pattern: bool = False, any_case: bool = False
) -> "Operation":
    """One of OPERATIONS with what was typed for it."""
    from studio.datasets import bulk

    made: dict[str, Callable[[], Callable[[str], str]]] = {
        "add tag": lambda: bulk.add_tag(first),
        "add tag in front": lambda: bulk.add_tag(first, front=True),
        "remove tag": lambda: bulk.remove_tag(first),
        "rename tag": lambda: bulk.rename_tag(first, second),
        "prepend": lambda: bulk.prepend(first),
        "append": lambda: bulk.append(first),
        "replace": lambda: bulk.replace(first, second, pattern, any_case),
        "deduplicate": bulk.deduplicate,
        "sort": lambda: bulk.sort_by_frequency(bulk.tag_counts(dataset)),
        "tidy": bulk.tidy,
        "spaces": bulk.underscores_to_spaces,
        "clear": lambda: lambda caption: "",
    }
    if name not in made:
        raise DatasetError(f"There is no edit {str(name)[:40]!r}: choose {', '.join(made)}.")
    return made[name]()


def propose(
    workspace: Workspace,
    dataset: str,
    wanted: "Filter",
    name: str,
    first: str = "",
    second: str = "",
    pattern: bool = False,
    any_case: bool = False,
) -> "list[Proposal]":
    """What the edit would change in the images that the filter lets through."""
    from studio.datasets import bulk

    opened = datasets.view(workspace, dataset)
    return bulk.propose(opened, wanted, operation_of(opened, name, first or "", second or "", pattern, any_case))


def accept(workspace: Workspace, dataset: str, proposals: "list[Proposal]", name: str) -> "Change":
    """Write the proposals as one step to undo."""
    from studio.datasets import bulk

    if not proposals:
        raise DatasetError("Nothing is ticked, so nothing was changed.")
    label = f"{OPERATIONS[name][0]} ({pluralize(len(proposals), 'image')})" if name in OPERATIONS else "Edit"
    return bulk.apply(datasets.view(workspace, dataset), proposals, label)
