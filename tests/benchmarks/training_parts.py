"""The parts of `tests.benchmarks.training`, each for a process of its own; the last line printed is the answer.

python -m tests.benchmarks.training_parts steps MODEL BATCH ROUNDS TARGETS     seconds of a training step
python -m tests.benchmarks.training_parts memory MODEL VARIANT BATCH TARGETS   three steps, for the peak memory
python -m tests.benchmarks.training_parts learn FOLDER SEED                    a LoRA with diffusers and peft
python -m tests.benchmarks.training_parts judge FILE ...                       held-out losses, with diffusers only
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.utils import convert_state_dict_to_diffusers
from PIL import Image
from torch import Tensor

from studio.adapters import AdapterSpec, attach
from tests.benchmarks.adapter_speed import SD15
from tests.benchmarks.training import BATCH, DATA, RANK, RATE, STEPS, VARIANTS, WARMUP

STARTER = DATA.parent / "starter"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
DRAWS = 8  # timesteps that a held-out image is judged at


def steps(model: str, batch: str, rounds: str, targets: str) -> dict[str, dict[str, float]]:
    """Median seconds of each variant's step, and median ratios of rates within a round: all take turns."""
    base = _unet(model)
    contestants = {name: _stepper(name, copy.deepcopy(base), int(batch), targets) for name in VARIANTS}
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(int(rounds) + 2):
        for name, act in contestants.items():
            began = time.perf_counter()
            act()
            if number >= 2:
                spent[name].append(time.perf_counter() - began)
    return {
        name: {"seconds": statistics.median(times)}
        | {f"rate to {other}": statistics.median(a / b for a, b in zip(spent[other], times)) for other in VARIANTS[:2]}
        for name, times in spent.items()
    }


def memory(model: str, variant: str, batch: str, targets: str) -> None:
    unet = _unet(model)
    if variant != "loaded":
        act = _stepper(variant, unet, int(batch), targets)
        for _ in range(3):
            act()


def _unet(model: str) -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SD15) if model == "sd15" else UNet2DConditionModel.from_pretrained(STARTER / "unet")
    return unet.eval().requires_grad_(False)


def _stepper(variant: str, unet: UNet2DConditionModel, batch: int, targets: str) -> Callable[[], None]:
    """One whole step of training; for the floor, the model's own share of it."""
    draw = torch.Generator().manual_seed(0)
    side = 32 if unet.config.sample_size == 64 else unet.config.sample_size
    noisy, target = (torch.randn(batch, unet.config.in_channels, side, side, generator=draw) for _ in range(2))
    states = torch.randn(batch, 77, unet.config.cross_attention_dim, generator=draw)
    t = torch.full((batch,), 500)
    optimizer = None
    if variant == "floor":
        noisy.requires_grad_()
    elif variant == "peft":  # as diffusers' examples/text_to_image/train_text_to_image_lora.py
        unet.add_adapter(_peft_config(unet, targets))
        optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], 1e-3, weight_decay=1e-2)
    else:  # as studio/training
        adapter = attach(unet, AdapterSpec(rank=RANK, targets=targets))
        optimizer = torch.optim.AdamW(adapter.parameters(), 1e-3, weight_decay=1e-2, fused=True)

    def step() -> None:
        F.mse_loss(unet(noisy, t, states).sample, target).backward()
        noisy.grad = None
        if optimizer:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def _peft_config(unet: UNet2DConditionModel, targets: str) -> peft.LoraConfig:
    layers = [name for name, m in unet.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    modules = {"attention": ATTENTION, "attention+feed-forward": ATTENTION + FEED_FORWARD, "all": layers}[targets]
    return peft.LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=modules)


def learn(folder: str, seed: str) -> None:
    """What diffusers' example for text-to-image LoRA does, on the CPU, with latents and text states kept in memory."""
    torch.manual_seed(int(seed))
    pipeline, schedule = _starter()
    unet = pipeline.unet
    latents, states = _encoded(pipeline, DATA / "silhouette")
    unet.add_adapter(_peft_config(unet, "attention+feed-forward"))
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=1e-2)
    rates = get_scheduler("cosine", optimizer, num_warmup_steps=WARMUP, num_training_steps=STEPS)
    images = torch.utils.data.TensorDataset(latents, states)
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True)
    unet.train()
    done = 0
    while done < STEPS:
        for clean, text in loader:
            noise = torch.randn_like(clean)
            t = torch.randint(len(schedule), (len(clean),))
            said = unet(schedule.add_noise(clean, noise, t), t, text).sample
            F.mse_loss(said, _target(schedule, clean, noise, t)).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            done += 1
            if done == STEPS:
                break
    state = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(unet))
    pipeline.save_lora_weights(folder, unet_lora_layers=state, safe_serialization=True)


@torch.no_grad()
def judge(*files: str) -> dict[str, float]:
    """{file, or "base": mean squared error on the held-out images}, at the same noise and timesteps for all."""
    pipeline, schedule = _starter()
    latents, states = _encoded(pipeline, DATA / "held-out" / "silhouette")

    def loss() -> float:
        draw, errors = torch.Generator().manual_seed(7), []
        for number in range(DRAWS):
            noise = torch.randn(latents.shape, generator=draw)
            t = torch.full((len(latents),), int((number + 0.5) * len(schedule) / DRAWS))
            said = pipeline.unet(schedule.add_noise(latents, noise, t), t, states).sample
            errors.append(F.mse_loss(said, _target(schedule, latents, noise, t)).item())
        return statistics.mean(errors)

    losses = {"base": loss()}
    for file in files:
        pipeline.load_lora_weights(Path(file).parent, weight_name=Path(file).name)
        losses[file] = loss()
        pipeline.unload_lora_weights()
    assert abs(loss() - losses["base"]) < 1e-6, "an adapter was left behind"
    return losses


def _starter() -> tuple[StableDiffusionPipeline, DDPMScheduler]:
    pipeline = StableDiffusionPipeline.from_pretrained(STARTER, safety_checker=None, requires_safety_checker=False)
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        model.requires_grad_(False)
    return pipeline, DDPMScheduler.from_config(pipeline.scheduler.config)


@torch.no_grad()
def _encoded(pipeline: StableDiffusionPipeline, folder: Path) -> tuple[Tensor, Tensor]:
    """Latents (N, 4, h, w) and text states (N, 77, width) of the images and captions in a folder."""
    files = sorted(folder.glob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) for file in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    latents = pipeline.vae.encode(x).latents * pipeline.vae.config.scaling_factor
    captions = [file.with_suffix(".txt").read_text("utf-8").strip() for file in files]
    ids = pipeline.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return latents, pipeline.text_encoder(ids)[0]


def _target(schedule: DDPMScheduler, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    return schedule.get_velocity(clean, noise, t) if schedule.config.prediction_type == "v_prediction" else noise


if __name__ == "__main__":
    act = {"steps": steps, "memory": memory, "learn": learn, "judge": judge}[sys.argv[1]]
    print(json.dumps(act(*sys.argv[2:])))
