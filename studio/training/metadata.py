"""What a trained adapter says of itself, in the keys that other programs show (kohya's ss_) and in ours."""

import json
from collections import Counter
from pathlib import Path

from studio.datasets import Item
from studio.datasets.dataset import KOHYA
from studio.training.caption_variants import caption_of
from studio.training.config import RunConfig
from studio.training.config_sections import DataConfig
from studio.training.scorecard.verdict import Verdict
from studio.training.selection import Selection

ENDS = ("negative", "target", "positive")


def adapter_metadata(
    config: RunConfig,
    chosen: Selection,
    resolution: int,
    step: int,
    held_out: tuple[float, float] | None,
    weights: str,
    verdict: Verdict | None = None,
    ended: str = "",
) -> dict[str, str]:
    """held_out: the loss on the held-out images with this adapter and with the base alone. weights: the base's hash.

    verdict: on the run, in the file that it keeps. ended: why the run ended before its last step by itself.
    """
    data, training = config.data, config.training
    parts: dict[str, list[tuple[Item, DataConfig]]] = {}  # by kohya's folders, where there are some
    for item in chosen.items:
        parent, source = item.path.parent.name, chosen.source_of(item)
        label = source.label if source else Path(data.folder).name
        parts.setdefault(parent if KOHYA.match(parent) else label, []).append((item, chosen.data_of(item, data)))
    triggers = ", ".join(dict.fromkeys(filter(None, (source.data.trigger for source in chosen.sources))))
    sides = (resolution, *data.more_resolutions)
    written = {
        "studio.run": config.name,
        "studio.base": config.base,
        "studio.base_hash": weights,
        "studio.step": str(step),
        "studio.trigger": triggers,
        "studio.init_from": Path(config.adapter.init_from).name,
        "modelspec.trigger_phrase": triggers,
        "modelspec.resolution": ",".join(f"{side}x{side}" for side in sides),
        "ss_output_name": config.name,
        "ss_sd_model_name": config.base,
        "ss_resolution": f"({resolution}, {resolution})",
        "ss_num_train_images": str(len(chosen.items)),
        "ss_dataset_dirs": json.dumps(
            {
                name: {"n_repeats": of[0][0].repeats * of[0][1].repeats, "img_count": len(of)}
                for name, of in parts.items()
            }
        ),
        "ss_tag_frequency": json.dumps({name: _tags(of) for name, of in parts.items()}),
        "ss_learning_rate": str(training.learning_rate),
        "ss_lr_scheduler": training.schedule,
        "ss_max_train_steps": str(training.steps),
        "ss_steps": str(step),
        "ss_batch_size_per_device": str(training.batch_size),
        "ss_seed": str(training.seed),
        "ss_clip_skip": str(data.clip_skip) if data.clip_skip > 1 else "",
        "studio.ended": ended,
        "ss_max_token_length": str(data.max_token_length or ""),
    }
    if config.slider.positive:
        written["studio.slider"] = json.dumps({key: getattr(config.slider, key) for key in ENDS})
    if held_out:
        written |= {"studio.held_out_loss": f"{held_out[0]:.6f}", "studio.base_loss": f"{held_out[1]:.6f}"}
    if verdict:
        written |= {"studio.outcome": verdict.outcome, "studio.verdict": verdict.sentence}
        written |= {"studio.strength": f"{verdict.strength:g}"} if verdict.usable else {}
    return {key: value for key, value in written.items() if value}


def _tags(items: list[tuple[Item, DataConfig]]) -> dict[str, int]:
    """How often each tag stands in the captions, the commonest first."""
    captions = [caption_of(item, data) for item, data in items]
    tags = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    return dict(tags.most_common(1000))
