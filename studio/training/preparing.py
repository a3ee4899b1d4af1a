"""The first part of a run: its images are listed, and what the cache lacks of them is encoded."""

import threading
from collections.abc import Generator

from studio.basemodels import Family
from studio.errors import RunError
from studio.training.cache import Cache
from studio.training.config import RunConfig
from studio.training.distributed import Distributed
from studio.training.effects import about_distilled, foreign_defaults, refuse, without_effect
from studio.training.events import Event, Preparing
from studio.training.examples import (
    Example,
    Unreadable,
    about_frames,
    about_masks,
    about_tokens,
    encode_missing,
    list_examples,
)
from studio.training.preview_prompts import foreign_options
from studio.training.selection import Selection


def prepare(
    config: RunConfig,
    chosen: Selection,
    base: Family,
    cache: Cache,
    distributed: Distributed,
    stop: threading.Event,
    step: int,
) -> Generator[Event, None, tuple[list[Example], list[Example], list[str]]]:
    """Yield Preparing while images and captions are encoded; returns (examples, held-out ones, warnings).

    All three are empty after `stop`. step: where the run goes on, for the events. Raises RunError when no image is
    left to learn from.
    """
    refuse(config, base)
    seed, warnings = config.training.seed, list(chosen.warnings)
    groups: list[list[Example]] = []
    for items in (chosen.items, chosen.regularization, chosen.held_out):
        kinds = {"regularization": items is chosen.regularization, "held_out": items is chosen.held_out}
        examples, problems = list_examples(items, base, cache, config.data, seed, stop=stop, chosen=chosen, **kinds)
        groups.append(examples)
        warnings += problems
    cache.keep_facts()
    broken = set()
    everything = [e for group in groups for e in group]
    texts = not config.adapter.text_encoder
    for one in encode_missing(everything, base, cache, distributed, stop, config.data, texts):
        if isinstance(one, Unreadable):
            broken.add(one.path)
            warnings.append(one.message)
        else:
            yield Preparing(step, *one)
    broken = set().union(*distributed.gather_objects(broken))
    if distributed.broadcast(stop.is_set()):
        return [], [], []
    warnings += without_effect(config, base) + foreign_defaults(config, base) + about_distilled(config)
    warnings += foreign_options(config.preview.prompts)
    learn, prior, held_out = ([e for e in group if e.item.path not in broken] for group in groups)
    warnings += about_frames(learn + prior + held_out) + about_tokens(learn + prior, base, config.data.max_token_length)
    if not learn:
        raise RunError("No image can be learned from: " + (warnings[-1] if warnings else "the folder is empty."))
    warnings += about_masks(learn + prior, config.data)
    if not held_out and config.validation.every:
        warnings.append("No images are held out: add some, and the run can say whether it learns or memorizes.")
        idle = [key for key in ("stop", "until_verdict") if getattr(config.validation, key)]
        warnings += [f"validation.{key} has no effect: it needs images held out." for key in idle]
    return learn + prior, held_out, warnings
