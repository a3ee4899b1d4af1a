"""The first part of a run: its pictures are listed, and what the cache lacks of them is encoded."""

import threading
from collections.abc import Generator

from studio.basemodels import Family
from studio.errors import RunError
from studio.training.cache import Cache
from studio.training.config import RunConfig
from studio.training.events import Event, Preparing
from studio.training.examples import Example, Unreadable, balanced, encode_missing, list_examples
from studio.training.processes import Processes
from studio.training.selection import Selection


def prepare(
    config: RunConfig, chosen: Selection, base: Family, cache: Cache, processes: Processes, stop: threading.Event,
    step: int,
) -> Generator[Event, None, tuple[list[Example], list[Example], list[str]]]:  # fmt: skip
    """Yield Preparing while pictures and captions are encoded; returns (examples, held-out ones, warnings).

    All three are empty after `stop`. step: where the run goes on, for the events. Raises RunError when no picture is
    left to learn from.
    """
    seed, warnings = config.training.seed, list(chosen.warnings)
    groups: list[list[Example]] = []
    for items, ordinary in ((chosen.items, False), (chosen.ordinary, True), (chosen.held_out, False)):
        examples, problems = list_examples(items, base, cache, config.data, seed, ordinary, stop)
        groups.append(examples)
        warnings += problems
    cache.keep_facts()
    broken = set()
    everything = [e for group in groups for e in group]
    texts = not config.adapter.text_encoder
    for said in encode_missing(everything, base, cache, processes, stop, config.data, texts):
        if isinstance(said, Unreadable):
            broken.add(said.path)
            warnings.append(said.message)
        else:
            yield Preparing(step, *said)
    broken = set().union(*processes.gather_objects(broken))
    if processes.agree(stop.is_set()):
        return [], [], []
    learn, prior, held_out = ([e for e in group if e.item.path not in broken] for group in groups)
    if not learn:
        raise RunError("No picture can be learnt from: " + (warnings[-1] if warnings else "the folder is empty."))
    if not held_out and config.validation.every:
        warnings.append("No pictures are held out: add some, and the run can say whether it learns or memorises.")
    return balanced(learn, prior), held_out, warnings
