"""Slider LoRA: one axis between two opposed prompts, trained without images (concept sliders, arXiv:2311.12092; LECO).

The adapter at strength s = ±1 learns to predict, for the target concept c_t,

    e(x_t, c_t) + s η (e(x_t, c₊) − e(x_t, c₋))                               (eq. 8 of the paper, for both ends)

where e is the base alone. That is linear in the prediction with coefficients that sum to one, so it is the same for
epsilon, v and velocity. x_t is made of images of the target that the base draws once for all (paper and LECO denoise
partway from noise in every step, which is the same distribution at many times the cost).
"""

import shutil
import threading
from collections.abc import Generator
from pathlib import Path

import torch
from torch import Tensor

from studio.basemodels import Family, load_base
from studio.basemodels.weights import weights_hash
from studio.errors import RunError
from studio.generation import Recipe, draw
from studio.training.cache import key_of
from studio.training.config import RunConfig
from studio.training.distributed import Distributed
from studio.training.events import Event, Preparing, Warned
from studio.training.examples import Batch
from studio.training.micro_batches import NoisedBatch
from studio.training.previews import side_of
from studio.training.run_resources import precision_of
from studio.training.train_step import TrainStep
from studio.workspace import Workspace, atomic_write, temporary_in

TRIED = 2  # images that a check draws


def slider_goal(target: Tensor, positive: Tensor, negative: Tensor, sign: Tensor, guidance: float) -> Tensor:
    """(B, C, h, w) what the adapter at strength `sign` (B,) is to predict, of the base's three predictions."""
    return target + sign.view(-1, 1, 1, 1) * guidance * (positive - negative)


class SliderStep(TrainStep):
    """A step whose goal is made of the base's own predictions; of the images only the noisy latents are used."""

    def __init__(
        self,
        config: RunConfig,
        base: Family,
        distributed: Distributed,
        init: Path | None = None,
        training_adapter: Path | None = None,
    ):
        super().__init__(config, base, distributed, init, training_adapter)
        wanted, data = config.slider, config.data
        attributes = [f"{one.strip()} " for one in wanted.preserve if one.strip()] or [""]
        ends = (wanted.target, wanted.positive, wanted.negative)
        base.onload()
        with torch.no_grad():
            texts = [f"{attribute}{end}" for attribute in attributes for end in ends]
            self.words = base.encode_prompt(texts, data.clip_skip, data.max_token_length)
        base.offload_encoders(text=True)
        self.attributes = len(attributes)

    def _loss(
        self,
        batch: Batch,
        latents: Tensor,
        noise: Tensor,
        t: Tensor,
        perturbation: Tensor | None,
        drawn: NoisedBatch,
        rows: slice,
    ) -> Tensor:
        places = torch.arange(rows.start, rows.stop) + drawn.number
        sign = (1.0 - 2.0 * (places % 2)).to(latents.device)
        attribute = (places // 2) % self.attributes
        sizes = self.base.size_conditioning([row.framing for row in batch.rows])
        seen = self.base.add_noise(latents, noise, t)

        def predicted(end: int) -> Tensor:
            chosen = (3 * attribute + end).to(latents.device)
            words = {key: value[chosen] for key, value in self.words.items()}
            return self.base.predict(seen, t, words | sizes)

        self.strength = 0.0
        with torch.no_grad():
            target, positive, negative = (predicted(end).float() for end in range(3))
            goal = slider_goal(target, positive, negative, sign, self.config.slider.guidance)
        self.strength = 1.0
        for adapter in self.adapters.values():
            adapter.per_sample_scale = sign
        try:
            error = predicted(0).float() - goal
        finally:
            for adapter in self.adapters.values():
                adapter.per_sample_scale = None
        return error.square().mean((1, 2, 3))


def train_step_for(
    config: RunConfig,
    base: Family,
    distributed: Distributed,
    init: Path | None = None,
    training_adapter: Path | None = None,
) -> TrainStep:
    """The step of an ordinary run, or of a slider."""
    made = SliderStep if config.slider.positive else TrainStep
    return made(config, base, distributed, init, training_adapter)


def with_images(
    config: RunConfig,
    workspace: Workspace,
    distributed: Distributed,
    stop: threading.Event,
    count: int = 0,
) -> Generator[Event, None, RunConfig]:
    """The run as it is, or a slider's on the base's own images of its target, which are drawn where they are missing.

    Nothing is held out of a slider. count: fewer images, for a check. Raises RunError when it is stopped meanwhile.
    """
    if not config.slider.positive:
        return config
    config = config.model_copy(
        update={"validation": config.validation.model_copy(update={"every": 0, "scorecard": 0.0})}
    )
    if not config.slider.images:  # on images of one's own
        return config
    if config.data.folder:
        yield Warned(
            0, "The dataset is not used: the base draws what a slider is trained on (unless slider.images is 0)."
        )
    base = load_base(config.base, precision=precision_of(config.training))
    wanted, drawn, side = config.slider, config.preview, config.data.resolution or side_of(base)
    side = max(base.multiple, side // base.multiple * base.multiple)
    made_of = (wanted.target, wanted.preserve, side, drawn.steps, drawn.guidance, drawn.guidance_rescale)
    count, skip = count or wanted.images, config.data.clip_skip
    key = key_of("slider", weights_hash(base.folder), str(base.choice), *made_of, skip, count)
    folder = workspace.cache / "slider" / key[:32]
    if not folder.is_dir() and distributed.is_main:
        base.onload()
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = temporary_in(folder.parent)
        try:
            for number in range(count):
                yield Preparing(0, number, count)
                if stop.is_set():
                    raise RunError("Stopped while the slider's images were drawn: start it again.")
                attribute = wanted.preserve[number % len(wanted.preserve)] if wanted.preserve else ""
                prompt = f"{attribute} {wanted.target}".strip()
                recipe = Recipe(
                    prompt=prompt,
                    seed=number,
                    steps=drawn.steps,
                    guidance=drawn.guidance,
                    guidance_rescale=drawn.guidance_rescale,
                    width=side,
                    height=side,
                    clip_skip=skip,
                    base=config.base,
                )
                draw(base, recipe).save(made / f"{number:03d}.png")
                atomic_write(made / f"{number:03d}.txt", prompt, lasting=False)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    distributed.wait()
    data = config.data.model_copy(update={"folder": str(folder), "folders": [], "more_resolutions": []})
    return config.model_copy(update={"data": data, "slider": wanted.model_copy(update={"images": 0})})


def finished(steps: Generator[Event, None, RunConfig]) -> RunConfig:
    """What `with_images` returns, its events left aside."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: RunConfig = end.value
            return found
