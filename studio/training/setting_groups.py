"""What the settings of a run are called, in groups that people look for them in. The page's form and lists go by it.

Descriptions, defaults and ranges are RunConfig's, and `search_text` has them too.
"""

from dataclasses import dataclass

from studio.schema import setting
from studio.training.aliases import names_elsewhere
from studio.training.config import RunConfig


@dataclass(frozen=True)
class Group:
    """name: short, for the page; title: its heading; settings: dotted key and label of each."""

    name: str
    title: str
    settings: dict[str, str]


FIRST = {  # what nearly everyone changes: in no group, always in sight
    "training.steps": "Training steps",
    "adapter.rank": "Rank",
    "training.learning_rate": "Learning rate",
}
GROUPS = (
    Group(
        "subject",
        "What to learn",
        {
            "data.trigger": "Trigger word",
            "data.outside": "Loss outside masks",
            "data.regularisation": "Regularization images",
            "data.regularisation_weight": "Prior-preservation weight",
            "data.class_prompt": "Class prompt",
            "data.class_images": "Class images",
            "data.prior_prediction": "Prior prediction",
            "data.class_word": "Class word",
            "data.masks": "Use masks",
            "adapter.text_encoder": "Train the text encoder",
        },
    ),
    Group(
        "length",
        "Length and rate",
        {
            "training.epochs": "Epochs",
            "training.batch_size": "Batch size",
            "training.accumulation": "Gradient accumulation",
            "training.optimizer": "Optimizer",
            "training.schedule": "Learning rate schedule",
            "training.warmup": "Warm-up",
            "training.restarts": "Restarts",
            "training.text_encoder_rate": "Text encoder learning rate",
            "training.text_encoder_stop": "Text encoder stops at step",
            "training.seed": "Seed",
        },
    ),
    Group(
        "adapter",
        "Adapter",
        {
            "adapter.kind": "Adapter type",
            "adapter.targets": "Target modules",
            "adapter.alpha": "Alpha",
            "adapter.patterns": "Layers by pattern",
            "adapter.init_from": "Continue from",
            "adapter.init": "Initialization",
            "adapter.dropout": "Dropout",
            "adapter.rank_stabilized": "Rank-stabilized (rsLoRA)",
            "adapter.init_resize": "Resize what is continued",
        },
    ),
    Group(
        "data",
        "Data and captions",
        {
            "data.resolution": "Resolution",
            "data.repeats": "Repeats",
            "data.folders": "More dataset folders",
            "data.more_resolutions": "More resolutions",
            "data.caption_dropout": "Caption dropout",
            "data.max_token_length": "Max caption tokens",
            "data.clip_skip": "Clip skip",
            "data.caption_prefix": "Caption prefix",
            "data.caption_suffix": "Caption suffix",
            "data.keep_tags": "Keep first N tags",
            "data.keep_tags_separator": "Separator of tags that stay",
            "data.tag_dropout": "Tag dropout",
            "data.protected_tags": "Tags never dropped",
            "data.caption_draws": "Caption variants encoded",
            "data.shuffle_tags": "Shuffle tags",
            "data.wildcards": "Wildcards and lines",
            "data.caption_variants": "More caption files",
            "data.buckets": "Aspect ratio buckets",
            "data.upscale": "Upscale small images",
        },
    ),
    Group(
        "augmentation",
        "Augmentation",
        {
            "data.random_crop": "Random crop",
            "data.color_jitter": "Color jitter",
            "data.rotation": "Rotation",
            "data.augmentations": "Image variants encoded",
            "data.flip": "Horizontal flip",
        },
    ),
    Group(
        "previews",
        "Previews",
        {
            "preview.prompts": "Preview prompts",
            "preview.every": "Preview every",
            "preview.steps": "Preview steps",
            "preview.guidance": "Guidance",
            "preview.guidance_rescale": "CFG rescale",
            "preview.seed": "Preview seed",
        },
    ),
    Group(
        "validation",
        "Validation",
        {
            "data.held_out": "Validation images",
            "validation.every": "Validate every",
            "validation.fraction": "Validation fraction",
            "validation.scorecard": "Scorecard budget",
            "validation.stop": "Stop when overfitting",
            "validation.until_verdict": "Until it is right",
        },
    ),
    Group(
        "saving",
        "Memory, speed and saving",
        {
            "training.precision": "Precision",
            "training.weights": "Adapter weights",
            "training.checkpoint_every": "Checkpoint every",
            "training.keep_checkpoints": "Checkpoints kept",
            "training.gradient_checkpointing": "Gradient checkpointing",
            "training.compile": "Compile",
            "training.tensorboard": "TensorBoard",
        },
    ),
    Group(
        "loss",
        "Expert: loss and noise",
        {
            "training.loss": "Loss",
            "training.huber_c": "Huber c",
            "training.huber_schedule": "Huber schedule",
            "training.timesteps": "Timestep sampling",
            "training.logit_mean": "Logit mean",
            "training.logit_std": "Logit std (sigmoid scale)",
            "training.mode_scale": "Mode scale",
            "training.shift": "Shift (flow models)",
            "training.min_snr_gamma": "Min-SNR gamma",
            "training.noise_offset": "Noise offset",
            "training.pyramid_noise": "Multi-resolution noise",
            "training.pyramid_discount": "Multi-resolution discount",
            "training.input_perturbation": "Input perturbation",
            "training.least_noise": "Min timestep",
            "training.most_noise": "Max timestep",
            "training.shift_by_resolution": "Shift by resolution (flow models)",
            "training.debiased_estimation": "Debiased estimation",
        },
    ),
    Group(
        "optimizer",
        "Expert: optimizer and base",
        {
            "training.lora_plus": "LoRA+",
            "training.weight_decay": "Weight decay",
            "training.clip": "Gradient clipping",
            "training.ema": "EMA decay",
            "training.training_adapter": "Training adapter",
        },
    ),
    Group(
        "slider",
        "Slider (without images)",
        {
            "slider.positive": "More of it at strength 1",
            "slider.negative": "More of it at strength -1",
            "slider.target": "What it changes",
            "slider.guidance": "Slider guidance",
            "slider.images": "Images drawn for it",
            "slider.preserve": "What stays as it is",
        },
    ),
)
LABELS = {"base": "Base model"} | FIRST | {key: label for one in GROUPS for key, label in one.settings.items()}
NAMES = LABELS | {"data.folder": "Dataset"}  # of all that two runs may differ in


def search_text(key: str) -> str:
    """What a setting is found by, in small letters: label, key, description and choices, and its names elsewhere."""
    about, others = setting(RunConfig, key), names_elsewhere().get(key, [])
    words = [LABELS[key], key, key.replace("_", " "), about.description, *about.choices, *others]
    return " ".join(words).lower()
