"""What a trained adapter says of itself, in the keys that other programs show (kohya's ss_) and in ours."""

import json
from collections import Counter
from pathlib import Path

from studio.datasets import Item
from studio.training.config import RunConfig
from studio.training.selection import caption_of


def adapter_metadata(
    config: RunConfig, items: list[Item], resolution: int, step: int, held_out: tuple[float, float] | None
) -> dict[str, str]:
    """held_out: the loss on the held-out pictures with this adapter and with the base alone."""
    folder = Path(config.data.folder).name
    captions = [caption_of(item, config.data.trigger) for item in items]
    tags = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    training = config.training
    said = {
        "studio.run": config.name,
        "studio.base": config.base,
        "studio.step": str(step),
        "studio.trigger": config.data.trigger,
        "modelspec.trigger_phrase": config.data.trigger,
        "modelspec.resolution": f"{resolution}x{resolution}",
        "ss_output_name": config.name,
        "ss_sd_model_name": config.base,
        "ss_resolution": f"({resolution}, {resolution})",
        "ss_num_train_images": str(len(items)),
        "ss_dataset_dirs": json.dumps({folder: {"n_repeats": config.data.repeats, "img_count": len(items)}}),
        "ss_tag_frequency": json.dumps({folder: dict(tags.most_common(1000))}),
        "ss_learning_rate": str(training.learning_rate),
        "ss_lr_scheduler": training.schedule,
        "ss_max_train_steps": str(training.steps),
        "ss_steps": str(step),
        "ss_batch_size_per_device": str(training.batch_size),
        "ss_seed": str(training.seed),
    }
    if held_out:
        said |= {"studio.held_out_loss": f"{held_out[0]:.6f}", "studio.base_loss": f"{held_out[1]:.6f}"}
    return {key: value for key, value in said.items() if value}
