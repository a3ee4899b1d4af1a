"""What a run says of itself in words: its setup at the start, its result at the end."""

from typing import Any

from studio.basemodels import Family
from studio.text import pluralize
from studio.training.batch_sampler import BatchSampler
from studio.training.config import RunConfig
from studio.training.defaults import usual_line
from studio.training.distributed import Distributed
from studio.training.examples import Example, about_variety
from studio.training.folder_table import about_folders, folder_rows
from studio.training.scorecard.verdict import Verdict
from studio.training.selection import Selection
from studio.training.validation import Validator


def setup_line(
    config: RunConfig,
    base: Family,
    plan: BatchSampler,
    chosen: Selection,
    examples: list[Example],
    distributed: Distributed,
    besides: str,
) -> str:
    """Device, precision, images and buckets. besides: what else the run does, such as scoring, in sentences."""
    own, other = (len({e.item.path for e in examples if e.regularization is kind}) for kind in (False, True))
    buckets = ", ".join(f"{w} × {h}: {plan.in_bucket[w, h]}" for w, h in plan.places)
    beside = f" and as often {other} regularization images" if other else ""
    apart = f", {pluralize(len(chosen.held_out), 'image')} held out for validation" if chosen.held_out else ""
    many = f" on {distributed.count} processes" if distributed.count > 1 else ""
    settings = config.training
    epochs, _ = plan.times_seen(settings.steps * settings.batch_size * settings.accumulation)
    folders = about_folders(folder_rows(chosen, config.data), epochs)
    account = " ".join([*folders, *about_variety(examples), *chosen.accounts])
    length = f"{settings.steps:,} steps, {epochs:.3g} epochs."
    usual = usual_line(config)
    images = f"{own} images{beside} ({buckets}){apart}{many}."
    return f"{images} {length} {account} {base.placed()} {besides} {usual}".strip()


def result_line(
    kept: int, step: int, best: dict[str, Any] | None, held: Validator | None, verdict: Verdict | None
) -> str:
    """What adapter.safetensors holds, and the verdict."""
    which = f"its best, step {kept}" if kept != step else f"the last step, {kept}"
    holds = f"adapter.safetensors holds {which}."
    if verdict is None:
        return holds
    where = held.describe() if best and held else ""
    return " ".join(filter(None, [holds, f"Verdict: {verdict.outcome}.", where]))
