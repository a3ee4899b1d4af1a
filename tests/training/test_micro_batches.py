"""Memory runs out during a step: it is taken in smaller pieces, or the run stops in good order."""

import pytest
import torch
from PIL import Image

from studio.errors import RunError, out_of_memory
from studio.training import config_from, extend_run, train
from studio.training.checkpoints import newest
from studio.training.config_sections import TrainingConfig
from studio.training.events import Checkpoint, Failed, Finished, Step, Warned
from studio.training.micro_batches import DoesNotFit, MicroBatcher
from studio.workspace import Workspace
from tests.basemodels import tiny
from tests.basemodels.test_training import settings


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return tiny.save("sd1", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, colour in enumerate(["red", "green", "blue", "white", "black"]):
        Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(colour)
    return folder


@pytest.fixture
def room(monkeypatch):
    """room(images, calls): from that call on, a backward pass through more images runs out of memory halfway."""
    from studio.training import train_step

    whole = train_step.loss_of

    def limit(images, after=0, error=torch.OutOfMemoryError):
        calls = []

        class Halfway(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                raise error("CUDA out of memory.")

        def loss_of(base, latents, *more, **rest):
            calls.append(len(latents))
            if len(calls) > after and len(latents) > images:  # what is behind it has its gradient by then
                latents = Halfway.apply(latents.requires_grad_())
            return whole(base, latents, *more, **rest)

        monkeypatch.setattr(train_step, "loss_of", loss_of)
        return calls

    return limit


def run(base_folder, images, tmp_path, **more):
    config = config_from(
        settings(
            base_folder, images, **{"training.steps": 4, "training.batch_size": 5, "training.accumulation": 2, **more}
        )
    )
    return list(train(config, Workspace.open(tmp_path)))


def losses(events):
    return torch.tensor([[e.loss, e.gradient_norm] for e in events if isinstance(e, Step)], dtype=torch.float64)


def test_a_divided_step_is_the_whole_step_and_the_run_says_so(base_folder, images, tmp_path, room):
    whole = losses(run(base_folder, images, tmp_path / "whole"))
    calls = room(2, after=2)  # from the second step on
    events = run(base_folder, images, tmp_path / "divided")
    assert torch.allclose(losses(events), whole, atol=1e-6, rtol=0)
    assert calls[:2] == [5, 5] and calls[2:5] == [5, 3, 2] and calls[-6:] == [2, 2, 1, 2, 2, 1]
    said = [event for event in events if isinstance(event, Warned) and "Memory ran" in event.message]
    assert [event.step for event in said] == [2] and "from here on 2 at a time" in said[0].message
    assert isinstance(events[-1], Finished)


@pytest.mark.full
def test_a_run_that_goes_on_keeps_to_the_smaller_pieces(base_folder, images, tmp_path, room):
    room(2)
    config = config_from(
        settings(base_folder, images, **{"training.steps": 2, "training.batch_size": 4, "training.warmup": 1})
    )
    list(train(config, Workspace.open(tmp_path)))
    folder = tmp_path / "runs" / "run"
    assert newest(folder)["train_step"]["pieces"] == 2
    calls = room(2)
    list(train(extend_run(folder, 3), Workspace.open(tmp_path), folder=folder))
    assert calls == [2, 2]


def test_one_image_too_many_stops_the_run_with_a_checkpoint_and_advice(base_folder, images, tmp_path, room):
    room(0, after=4)
    events = []
    with pytest.raises(RunError, match="single image") as error:
        config = config_from(settings(base_folder, images, **{"training.accumulation": 2}))
        for event in train(config, Workspace.open(tmp_path)):
            events.append(event)
    assert "\n" not in str(error.value) and "gradient_checkpointing" in str(error.value)
    assert "until step 2" in str(error.value)
    assert [type(event) for event in events][-2:] == [Checkpoint, Failed]
    kept = tmp_path / "runs" / "run" / events[-2].folder
    assert events[-2].step == 2 and (kept / "adapter.safetensors").is_file()


def test_other_errors_are_not_taken_for_it(base_folder, images, tmp_path, room):
    room(2, error=lambda _: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        run(base_folder, images, tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "MPS backend out of memory (MPS allocated: 17 GB)",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4.",
    ],
)
def test_every_device_says_it_in_its_own_words(said):
    assert out_of_memory(RuntimeError(said)) and not out_of_memory(RuntimeError("shapes"))


def test_pieces_halve_down_to_one():
    pieces, found = MicroBatcher(), []
    for _ in range(4):
        found.append([rows.stop - rows.start for rows in pieces.of(slice(4, 11))])
        try:
            pieces.smaller(TrainingConfig(), torch.device("cpu"))
        except DoesNotFit:
            break
    assert found == [[7], [4, 3], [2, 2, 2, 1], [1] * 7]
