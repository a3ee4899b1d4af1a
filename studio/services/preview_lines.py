"""Lines of `preview.prompts`: written from a form's fields, and suggested from a dataset."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from studio.errors import ConfigError
from studio.schema import explain
from studio.services import base_models, vocabulary
from studio.services.datasets import open_named
from studio.services.operations import operation
from studio.services.parameters import BaseName, DatasetName, Trigger
from studio.workspace import Workspace


def preview_line(prompt: str, negative: str, numbers: Mapping[str, Any]) -> str:
    """A line with kohya's flags. numbers: width, height, seed, guidance, steps, strength, "" where as the run has it.

    Raises ConfigError.
    """
    from studio.training.preview_prompts import LineNumbers, PreviewLine, write_preview

    given = {key: value for key, value in numbers.items() if str(value if value is not None else "").strip()}
    if not prompt.strip():
        raise ConfigError("The prompt is empty: write what the preview should show.")
    try:
        found = LineNumbers.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    return write_preview(PreviewLine(prompt, negative=negative, **found))


@operation()
def suggest_prompts(
    workspace: Workspace, dataset: DatasetName, trigger: Trigger = "", base: BaseName = "starter"
) -> list[str]:
    """Preview prompts for a run on a dataset: two of its captions and two other things, each with the trigger word."""
    from studio.basemodels.defaults import variant_of
    from studio.training.defaults import prompts_from, prompts_of

    captions = [item.caption for item in open_named(workspace, dataset).items]
    others = prompts_of(variant_of(base_models.line_of(workspace, base)))
    unseen = vocabulary.unseen_things(workspace, captions, base)
    return prompts_from(captions, trigger, [*unseen, *others])


def suggested_for(workspace: Workspace, dataset: str, trigger: str, base: str, current: str) -> str | None:
    """`suggest_prompts`, a line each, where the form still holds a base's own prompts; else None."""
    from studio.training.defaults import default_prompts

    lines = [line.strip() for line in current.splitlines() if line.strip()]
    if not dataset or (lines and lines not in default_prompts()):
        return None
    return "\n".join(suggest_prompts(workspace, dataset, trigger, base))
