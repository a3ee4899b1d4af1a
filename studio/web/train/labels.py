"""The settings of a run that the form has, by group, and what their fields are called."""

GROUPS = {  # heading of a folded part -> its settings, with their labels
    "Images and captions": {
        "data.trigger": "Trigger word",
        "data.resolution": "Resolution",
        "data.repeats": "Repeats",
        "data.caption_dropout": "Caption dropout",
        "data.keep_tags": "Keep first N tags",
        "data.outside": "Loss outside masks",
        "data.regularisation": "Regularization images",
        "data.regularisation_weight": "Prior-preservation weight",
        "data.buckets": "Aspect ratio buckets",
        "data.upscale": "Upscale small images",
        "data.flip": "Horizontal flip",
        "data.shuffle_tags": "Shuffle tags",
        "data.masks": "Use masks",
    },
    "Adapter": {
        "adapter.kind": "Adapter type",
        "adapter.targets": "Target modules",
        "adapter.alpha": "Alpha",
        "adapter.dropout": "Dropout",
        "adapter.text_encoder": "Train the text encoder",
    },
    "Steps and learning rate": {
        "training.batch_size": "Batch size",
        "training.accumulation": "Gradient accumulation",
        "training.optimizer": "Optimizer",
        "training.schedule": "Learning rate schedule",
        "training.warmup": "Warm-up",
        "training.restarts": "Restarts",
        "training.text_encoder_rate": "Text encoder learning rate",
        "training.lora_plus": "LoRA+",
        "training.weight_decay": "Weight decay",
        "training.clip": "Gradient clipping",
        "training.ema": "EMA decay",
        "training.seed": "Seed",
    },
    "Loss and noise": {
        "training.loss": "Loss",
        "training.huber_c": "Huber c",
        "training.timesteps": "Timestep sampling",
        "training.shift": "Shift (flow models)",
        "training.min_snr_gamma": "Min-SNR gamma",
        "training.noise_offset": "Noise offset",
        "training.input_perturbation": "Input perturbation",
        "training.least_noise": "Min timestep",
        "training.most_noise": "Max timestep",
    },
    "Previews": {
        "preview.every": "Preview every",
        "preview.steps": "Preview steps",
        "preview.guidance": "Guidance",
        "preview.seed": "Preview seed",
    },
    "Validation": {
        "data.held_out": "Validation images",
        "validation.every": "Validate every",
        "validation.fraction": "Validation fraction",
        "validation.stop": "Stop when overfitting",
    },
    "Saving and speed": {
        "training.checkpoint_every": "Checkpoint every",
        "training.keep_checkpoints": "Checkpoints kept",
        "training.precision": "Precision",
        "training.gradient_checkpointing": "Gradient checkpointing",
        "training.compile": "Compile",
        "training.tensorboard": "TensorBoard",
    },
}
FIRST = {
    "training.steps": "Training steps",
    "adapter.rank": "Rank",
    "training.learning_rate": "Learning rate",
    "preview.prompts": "Preview prompts",
}
LABELS = {"base": "Base model"} | FIRST | {key: label for group in GROUPS.values() for key, label in group.items()}
NAMES = LABELS | {"data.folder": "Dataset"}  # of all that two runs may differ in
