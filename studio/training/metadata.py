"""What a trained adapter says of itself, in the keys that other programs show (kohya's ss_) and in ours."""

import json
from collections import Counter
from pathlib import Path

from studio.datasets import Item
from studio.datasets.dataset import KOHYA
from studio.training.config import RunConfig
from studio.training.scorecard.verdict import Verdict
from studio.training.selection import caption_of


def adapter_metadata(
    config: RunConfig,
    items: list[Item],
    resolution: int,
    step: int,
    held_out: tuple[float, float] | None,
    weights: str,
    verdict: Verdict | None = None,
) -> dict[str, str]:
    """held_out: the loss on the held-out images with this adapter and with the base alone. weights: the base's hash.

    verdict: on the run, in the file that it keeps.
    """
    data, training = config.data, config.training
    parts: dict[str, list[Item]] = {}  # by kohya's folders, where there are some
    for item in items:
        parent = item.path.parent.name
        parts.setdefault(parent if KOHYA.match(parent) else Path(data.folder).name, []).append(item)
    written = {
        "studio.run": config.name,
        "studio.base": config.base,
        "studio.base_hash": weights,
        "studio.step": str(step),
        "studio.trigger": data.trigger,
        "studio.init_from": Path(config.adapter.init_from).name,
        "modelspec.trigger_phrase": data.trigger,
        "modelspec.resolution": f"{resolution}x{resolution}",
        "ss_output_name": config.name,
        "ss_sd_model_name": config.base,
        "ss_resolution": f"({resolution}, {resolution})",
        "ss_num_train_images": str(len(items)),
        "ss_dataset_dirs": json.dumps(
            {name: {"n_repeats": of[0].repeats * data.repeats, "img_count": len(of)} for name, of in parts.items()}
        ),
        "ss_tag_frequency": json.dumps({name: _tags(of, data.trigger) for name, of in parts.items()}),
        "ss_learning_rate": str(training.learning_rate),
        "ss_lr_scheduler": training.schedule,
        "ss_max_train_steps": str(training.steps),
        "ss_steps": str(step),
        "ss_batch_size_per_device": str(training.batch_size),
        "ss_seed": str(training.seed),
        "ss_clip_skip": str(data.clip_skip) if data.clip_skip > 1 else "",
        "ss_max_token_length": str(data.max_token_length or ""),
    }
    if held_out:
        written |= {"studio.held_out_loss": f"{held_out[0]:.6f}", "studio.base_loss": f"{held_out[1]:.6f}"}
    if verdict:
        written |= {"studio.outcome": verdict.outcome, "studio.verdict": verdict.sentence}
        written |= {"studio.strength": f"{verdict.strength:g}"} if verdict.usable else {}
    return {key: value for key, value in written.items() if value}


def _tags(items: list[Item], trigger: str) -> dict[str, int]:
    """How often each tag stands in the captions, the commonest first."""
    captions = [caption_of(item, trigger) for item in items]
    tags = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    return dict(tags.most_common(1000))
