"""The adapters that a run begins with: new ones, or those of a file that it continues from."""

from pathlib import Path

from studio.adapters import attach, attach_file, read_adapter
from studio.adapters.attach import Adapter
from studio.adapters.continuing import attach_continued, continue_from
from studio.basemodels import Family
from studio.errors import ConfigError, RunError
from studio.training.config import RunConfig
from studio.training.parameter_count import catching, specs_of


def start_adapters(config: RunConfig, base: Family, file: Path | None = None) -> tuple[dict[str, Adapter], list[str]]:
    """({component: adapter}, a sentence for each thing to know). file: a copy of `adapter.init_from`, if there is one.

    Components that the file has no layer for get new ones, where they are to be trained. Raises AdapterError,
    ConfigError, RunError.
    """
    wanted, modules, specs = config.adapter, base.modules(), specs_of(config.adapter, base)
    place = file or (Path(wanted.init_from).expanduser() if wanted.init_from else None)
    if place is None:
        new = {component: attach(modules[component], spec, config.name) for component, spec in specs.items()}
        nothing = [pattern for pattern, places in catching(wanted, base, modules).items() if not places]
        return new, [f"adapter.patterns: {pattern} fits no layer that is left for it." for pattern in nothing]
    if not place.is_file():
        raise RunError(f"There is no adapter {place}, which this run continues from: put it back.")
    found = continue_from(read_adapter(place), modules, *((wanted.rank, wanted.alpha) if wanted.init_resize else ()))
    others = sorted({component for component, _ in found.layers} - specs.keys())
    if others:
        can = all(component in base.trained_encoders for component in others)
        remedy = "set adapter.text_encoder to true" if can else "continue from an adapter without them"
        raise ConfigError(f"adapter.init_from also has layers of {' and '.join(others)}: {remedy}.")
    adapters = {}
    for component, spec in specs.items():
        own = {path: update for (part, path), update in found.layers.items() if part == component}
        module = modules[component]
        if own:
            adapters[component] = attach_continued(own, module, config.name, wanted.dropout)
        else:
            adapters[component] = attach(module, spec, config.name)
    notes = list(found.notes)
    if wanted.patterns:
        kept = "their rank=, alpha= and what they leave out do not"
        notes.append(f"The layers are those of adapter.init_from: of adapter.patterns lr= counts, {kept}.")
    return adapters, notes


def attach_training_adapter(
    config: RunConfig, base: Family, file: Path | None = None
) -> tuple[Adapter | None, list[str]]:
    """(what is merged into a distilled base while it trains, a sentence where it does not fit whole).

    It never trains, so its layers stay merged through a training step (see `layer_adapters`). file: a copy of
    `training.training_adapter`, if there is one. Raises AdapterError, RunError.
    """
    wanted = config.training.training_adapter
    place = file or (Path(wanted).expanduser() if wanted else None)
    if place is None:
        return None, []
    if not place.is_file():
        raise RunError(f"There is no training adapter {place}, which this run trains with: put it back.")
    adapter = attach_file(read_adapter(place), base.modules())
    adapter.requires_grad_(False)
    report = adapter.report
    return adapter, [f"The training adapter: {report}."] if report and report.unused else []
