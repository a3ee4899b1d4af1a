"""The sections of a run's settings: what each is called, its default, its range and its sentence. No torch here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from studio.training.patterns import MAX_ALPHA
from studio.training.patterns import MOST as MOST_PATTERNS

MOST_FOLDERS = 50
MOST_SIZES = 5  # resolutions of a run
Optimizer = Literal[
    "adamw",
    "adamw-8bit",
    "adafactor",
    "lion",
    "prodigy",
    "schedule-free-adamw",
    "lion-8bit",
    "came",
    "muon",
    "prodigy-schedule-free",
]
FIND_THEIR_RATE = ("prodigy", "prodigy-schedule-free")  # optimizers that do
SCHEDULE_FREE = ("schedule-free-adamw", "prodigy-schedule-free")  # and those that need no schedule
Targets = Literal["attention", "attention+feed-forward", "all", "patterns", "no-text", "sdxl-style", "sdxl-content"]
Schedule = Literal["constant", "cosine", "cosine-restarts", "linear", "polynomial", "one-cycle"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    folder: str = Field(description="Folder of images and captions.")
    trigger: str = Field("", max_length=80, description="Trigger word, put in front of every caption that lacks it.")
    held_out: str = Field(
        "", description="Validation folder: images never trained on. Empty: a share of the data is held out."
    )
    resolution: int = Field(
        0, ge=0, le=4096, description="Training resolution: side in pixels. 0: the base model's own."
    )
    buckets: bool = Field(
        True, description="Aspect-ratio buckets: keep each image near its shape. Off: center-crop all to squares."
    )
    upscale: bool = Field(False, description="Enlarge images that are smaller than their bucket.")
    repeats: int = Field(
        1, ge=1, le=1000, description="Repeats of each image per epoch; folders called 10_name set 10."
    )
    flip: bool = Field(False, description="Horizontal flip augmentation. Not for text or asymmetric subjects.")
    caption_dropout: float = Field(
        0.05, ge=0, le=1, description="Caption dropout: share of images trained without their caption."
    )
    max_token_length: int = Field(
        0,
        ge=0,
        le=4800,
        description="Most tokens of a caption that CLIP reads, in chunks of 75. 0: the whole caption.",
    )
    clip_skip: int = Field(
        1, ge=1, le=12, description="Clip skip: 1 takes CLIP's last layer, 2 the one before. Previews follow it."
    )
    shuffle_tags: bool = Field(False, description="Shuffle the tags between commas.")
    keep_tags: int = Field(1, ge=0, le=100, description="Keep first N tags in place when the others are shuffled.")
    regularisation: str = Field(
        "", description="Folder of regularization images (prior preservation), as many of which are shown as own ones."
    )
    regularisation_weight: float = Field(
        1.0, ge=0, le=100, description="Prior-preservation weight: how much regularization images count in the loss."
    )
    class_prompt: str = Field(
        "",
        max_length=1000,
        description="Class prompt (DreamBooth): what the base draws as regularization images before the run.",
    )
    class_images: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Class images: how many regularization images the base draws of data.class_prompt; 100 to 300 are "
        "usual.",
    )
    prior_prediction: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Prior prediction (DOP): weight of staying with the base where the class word stands for the "
        "trigger; 1 is usual, 0 is off. A step takes 2.5 times as long.",
    )
    class_word: str = Field(
        "",
        max_length=80,
        description="What the trigger word is one of, such as dog, for prior prediction. Empty: it is left out.",
    )
    masks: bool = Field(
        False, description="Masked training: learn where NAME-masklabel.png, or the image's alpha channel, is bright."
    )
    outside: float = Field(0.1, ge=0, le=1, description="Unmasked weight: how much the loss counts outside a mask.")
    folders: list[str] = Field(
        [],
        max_length=MOST_FOLDERS,
        description="More dataset folders, a line each, like: FOLDER weight=2 repeats=3 trigger=zsk flip=true "
        "prefix=photo of. A line for data.folder itself says its weight.",
    )
    more_resolutions: list[Annotated[int, Field(ge=16, le=4096)]] = Field(
        [],
        max_length=MOST_SIZES - 1,
        description="More resolutions that each image is trained at, as often as at data.resolution.",
    )
    caption_prefix: str = Field("", max_length=500, description="Put in front of every caption, with a space.")
    caption_suffix: str = Field("", max_length=500, description="Put behind every caption, with a space.")
    wildcards: bool = Field(
        False, description="Draw one word of each {a|b} in captions, and one line of caption files of several."
    )
    caption_variants: bool = Field(
        False, description="Also draw among NAME.1.txt, NAME.2.txt and so on, beside the image's own caption."
    )
    keep_tags_separator: str = Field(
        "",
        max_length=10,
        description="Separator, such as |||: tags before a first and behind a second one stay, instead of the first N.",
    )
    tag_dropout: float = Field(
        0.0, ge=0, le=1, description="Tag dropout: how probably each tag that does not stay in place is left out."
    )
    protected_tags: str = Field(
        "", max_length=2000, description="Tags that tag dropout never leaves out, with commas between them."
    )
    caption_draws: int = Field(
        8, ge=1, le=256, description="Variants of a caption that are encoded, to draw from, where something varies."
    )
    random_crop: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Random crop: up to this share of each side is cut off, at a random place. 0: center crop.",
    )
    color_jitter: float = Field(
        0.0, ge=0, le=0.5, description="Color jitter: brightness, contrast and saturation change by up to this share."
    )
    rotation: float = Field(0.0, ge=0, le=45, description="Random rotation by up to this many degrees either way.")
    augmentations: int = Field(
        4, ge=1, le=32, description="Variants of an image that are encoded, to draw from, where something augments."
    )


class AdapterConfig(Section):
    kind: Literal["lora", "dora", "tucker", "loha", "lokr", "oft", "oftv2"] = Field(
        "lora",
        description="Adapter type: LoRA; DoRA (magnitude apart from direction); Tucker, LoHa, LoKr (other products); "
        "OFT (turns the weights, in blocks no larger than the rank; oftv2 as PEFT has it).",
    )
    rank: int = Field(16, ge=1, le=256, description="Capacity: higher ranks pick up more detail but overfit sooner.")
    alpha: float | None = Field(
        None,
        gt=0,
        le=MAX_ALPHA,
        description="The update is scaled by alpha / rank. Empty: the base's share of the rank, the starter's is 1.",
    )
    rank_stabilized: bool = Field(
        False, description="rsLoRA: scale by alpha / sqrt(rank), so that a high rank learns as fast as a low one."
    )
    init: Literal["standard", "pissa"] = Field(
        "standard",
        description="How it begins. PiSSA: in the weights' strongest directions, to learn faster; LoRA and DoRA.",
    )
    targets: Targets = Field(
        "all",
        description="Target modules. All: convolutions too, which small bases need for style; no-text: without those "
        "that read the prompt; sdxl-style, sdxl-content: SDXL's two blocks of these.",
    )
    patterns: list[str] = Field(
        [],
        max_length=MOST_PATTERNS,
        description="Layers by regular expression, a line each, like: attn2 rank=8 alpha=4 lr=5e-5. Rank 0: left out.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's inputs during training.")
    init_from: str = Field(
        "",
        description="Continue from an adapter file, with its kind, layers, rank and alpha, so that of adapter.patterns "
        "only lr= counts. Empty: a new adapter.",
    )
    init_resize: bool = Field(False, description="Resize what is continued to this rank and alpha, as a plain LoRA.")
    text_encoder: bool = Field(False, description="Also train the text encoder's attention and feed-forward layers.")


class TrainingConfig(Section):
    steps: int = Field(
        200, ge=1, le=1_000_000, description="How often the weights are updated, each time by one batch."
    )
    epochs: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="How often each image is shown, instead of training.steps. Empty: training.steps counts.",
    )
    batch_size: int = Field(4, ge=1, le=1024, description="Images per step, on all devices together.")
    accumulation: int = Field(
        1, ge=1, le=1024, description="Gradient accumulation: batches per step, like a larger batch in less memory."
    )
    learning_rate: float = Field(1e-3, gt=0, le=10, description="How large each step is: too high gives noise.")
    text_encoder_rate: float | None = Field(
        None, gt=0, le=10, description="The text encoder's learning rate. Empty: a tenth of the learning rate."
    )
    text_encoder_stop: int = Field(
        0, ge=0, le=1_000_000, description="Step after which the text encoder trains no more. 0: it trains to the end."
    )
    lora_plus: float = Field(
        1.0, ge=1, le=64, description="LoRA+ ratio: B gets this many times the learning rate; 16 is usual."
    )
    optimizer: Optimizer = Field(
        "adamw",
        description="AdamW is safe; Prodigy finds its own learning rate (set it to 1). docs/optimizers.md says more.",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay.")
    schedule: Schedule = Field("cosine", description="Learning-rate schedule after the warm-up.")
    warmup: int = Field(10, ge=0, le=100_000, description="Warm-up steps until the full learning rate.")
    restarts: int = Field(3, ge=1, le=100, description="Restarts of cosine-restarts.")
    clip: float = Field(1.0, ge=0, le=1000, description="Gradient clipping: maximum norm. 0: off.")
    seed: int = Field(0, ge=0, lt=2**31, description="The same seed gives the same run.")
    loss: Literal["l2", "huber"] = Field("l2", description="Loss function: Huber is less sensitive to outliers.")
    huber_c: float = Field(0.1, gt=0, le=10, description="Huber c: the error from which Huber grows linearly.")
    huber_schedule: Literal["constant", "snr", "exponential"] = Field(
        "constant",
        description="Scheduled Huber: snr and exponential go from 1 at no noise to huber_c at noise alone.",
    )
    min_snr_gamma: float = Field(0.0, ge=0, le=100, description="Min-SNR weighting; 5 is usual, 0 is off.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise offset, for very dark or bright images; 0.05 is usual."
    )
    debiased_estimation: bool = Field(
        False, description="Debiased estimation weighting, 1 / sqrt(SNR), instead of min-SNR. Not for flow models."
    )
    pyramid_noise: int = Field(
        0, ge=0, le=16, description="Multi-resolution (pyramid) noise: levels; 6 to 10 are usual, 0 is off."
    )
    pyramid_discount: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="How much each coarser level of multi-resolution noise weighs; 0.1 to 0.3 are usual.",
    )
    input_perturbation: float = Field(
        0.0, ge=0, le=1, description="Input perturbation: extra noise on the input only; 0.1 is usual."
    )
    timesteps: Literal["auto", "uniform", "logit-normal", "mode", "cosmap"] = Field(
        "auto",
        description="Timestep sampling. Auto: as the base was trained; logit-normal (sigmoid), mode, cosmap: SD 3's, "
        "mostly mid noise.",
    )
    logit_mean: float = Field(
        0.0, ge=-5, le=5, description="Mean of logit-normal timesteps: above 0 more noise, below 0 less."
    )
    logit_std: float = Field(
        1.0,
        gt=0,
        le=5,
        description="Width of logit-normal timesteps (kohya's sigmoid_scale): above 1 more of both ends.",
    )
    mode_scale: float = Field(
        1.29, ge=-1, le=1.75, description="Scale of mode timesteps: above 0 more mid noise, below 0 more of both ends."
    )
    shift: float | None = Field(
        None,
        ge=0.1,
        le=20,
        description="Timestep shift of flow models: above 1, more high-noise timesteps. Empty: the base's.",
    )
    shift_by_resolution: bool = Field(
        False, description="Shift each batch of a flow model by its resolution, as in drawing, instead of shift."
    )
    least_noise: float = Field(0.0, ge=0, lt=1, description="Min timestep, as a share of the noise schedule.")
    most_noise: float = Field(1.0, gt=0, le=1, description="Max timestep, as a share of the noise schedule.")
    ema: float = Field(0.0, ge=0, lt=1, description="EMA decay of the adapter's weights; 0.99 is usual, 0 is off.")
    training_adapter: str = Field(
        "",
        description="Training adapter of a distilled base: merged while training and validating, not in previews nor "
        "in the result. Empty: none.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Mixed precision. Auto: what the device does well."
    )
    weights: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="The adapter's own weights. bf16: less memory, rounded stochastically so that small updates are "
        "not lost.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Gradient checkpointing: less memory, about a third slower."
    )
    compile: bool = Field(False, description="Compile the model's blocks: a slow start, then faster steps. For GPUs.")
    checkpoint_every: int = Field(100, ge=1, le=1_000_000, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(20, ge=1, le=10_000, description="Checkpoints to keep; the best one is kept apart.")
    tensorboard: bool = Field(False, description="Also write TensorBoard logs.")


class PreviewConfig(Section):
    every: int = Field(50, ge=0, le=1_000_000, description="Steps between previews. 0: none.")
    prompts: list[str] = Field(
        ["red apple, on a yellow background", "fish, on a pink background"],
        max_length=12,
        description="Preview prompts, one image each. Ending in @0.5: at that strength. kohya's flags: --n negative, "
        "--w --h size, --d seed, --l guidance, --s steps, --am strength.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the previews: the same each time, to compare.")
    steps: int = Field(15, ge=1, le=200, description="Sampling steps of a preview.")
    guidance: float = Field(4.0, ge=0, le=30, description="CFG scale of a preview.")
    guidance_rescale: float = Field(0.0, ge=0, le=1, description="CFG rescale of a preview, see generate. 0: none.")

    @field_validator("prompts")
    @classmethod
    def _not_too_long(cls, prompts: list[str]) -> list[str]:
        if any(len(prompt) > 4000 for prompt in prompts):
            raise ValueError("a preview prompt must have at most 4000 characters")
        return prompts


class ValidationConfig(Section):
    every: int = Field(50, ge=0, le=1_000_000, description="Steps between validations on held-out images. 0: none.")
    fraction: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the data held out when there is no validation folder; at most 64 images.",
    )
    stop: bool = Field(
        False, description="Early stopping: stop when the held-out loss keeps rising; the best is kept anyway."
    )
    until_verdict: bool = Field(
        False,
        description="Until it is right: stop when a scorecard says learned and the next one is no better; "
        "training.steps is the most.",
    )
    scorecard: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Scorecard: share of the run's computing spent on drawing and scoring its checkpoints. 0: off.",
    )


class SliderConfig(Section):
    positive: str = Field(
        "",
        max_length=1000,
        description="Slider: what strength 1 shows more of, as in: old person. Set it, and the run needs no images. "
        "Empty: an ordinary run.",
    )
    negative: str = Field("", max_length=1000, description="What strength -1 shows more of, as in: young person.")
    target: str = Field("", max_length=1000, description="What the slider changes, as in: person.")
    guidance: float = Field(4.0, gt=0, le=30, description="How far both ends are pushed (eta of concept sliders).")
    preserve: list[str] = Field(
        [],
        max_length=12,
        description="What is not to change with it, a line each, as in: male. Put in front of all three prompts.",
    )
    images: int = Field(
        16,
        ge=0,
        le=256,
        description="Images of the target that the base draws once, to be trained on with noise. 0: the dataset's.",
    )

    @field_validator("preserve")
    @classmethod
    def _short(cls, lines: list[str]) -> list[str]:
        if any(len(line) > 200 for line in lines):
            raise ValueError("what is preserved must have at most 200 characters")
        return lines
