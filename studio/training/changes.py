"""What later versions do otherwise in a run, in one place, so that a run goes on as it began.

Which version a run began under stands in its made_of.json, which older versions read as well. Whoever changes what a
setting means adds a `Change`, with the version that brings it. A new default is none: run.toml holds every setting.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from studio.errors import BaseModelError
from studio.training.config import RunConfig


@dataclass(frozen=True)
class Change:
    """Something that a run begun before `version` meant otherwise.

    before  settings of such a run to settings that mean the same today; None where nothing does
    says    one sentence for the run's warnings: what changed, and whether the run goes on as it began
    """

    version: str
    says: str
    before: Callable[[RunConfig], RunConfig] | None = None
    concerns: Callable[[RunConfig], bool] = lambda config: True


def _with_75_tokens(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"max_token_length": 75})})


def _reads_in_chunks(config: RunConfig) -> bool:
    """Whether its base reads long captions in chunks; a base that is gone is said elsewhere."""
    from studio.basemodels.tokens import token_counter  # brings torch

    try:
        return token_counter(config.base).reads_on
    except BaseModelError:
        return False


CHANGES: tuple[Change, ...] = (  # oldest first
    Change(
        "0.2",
        "Regularization images are now shown as often as the others, all together, however many there are: the rest of "
        "this run is balanced that way.",
        concerns=lambda config: bool(config.data.regularisation),
    ),
    Change(
        "0.2",
        "CLIP now reads captions of more than 75 tokens to their end; this run goes on with their first 75, as it "
        "began.",
        _with_75_tokens,
        _reads_in_chunks,
    ),
)


def as_begun(config: RunConfig, version: str) -> tuple[RunConfig, list[str]]:
    """(the settings that mean today what `config` meant under `version`, a sentence for each change).

    A version that names no number counts as older than all changes.
    """
    lines = []
    for change in CHANGES:
        if _numbers(version) < _numbers(change.version) and change.concerns(config):
            config = change.before(config) if change.before else config
            lines.append(change.says)
    return config, lines


def _numbers(version: str) -> tuple[int, ...]:
    """(0, 2, 0) of "0.2.0.dev0"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
