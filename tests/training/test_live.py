"""A picture in the middle of a run: with the run's own weights or with others, and the run never knows."""

from PIL import ImageChops

from studio.basemodels import load_base
from studio.generation import AdapterUse, Recipe, draw, generate
from studio.generation.rack import rack_of
from studio.training import config_from, read_run, train
from studio.training.events import Checkpoint, Step

WORDS = {"prompt": "red apple, on a blue background", "steps": 3}
BUSY = {"training.ema": 0.9, "adapter.dropout": 0.1, "validation.every": 3, "preview.every": 3, "preview.steps": 1}


def losses(workspace, name: str) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss, _ in read_run(workspace, name).losses]


def test_losses_are_the_same_to_the_bit_with_and_without_pictures_in_between(workspace, quick):
    for text in (False, True):
        more = {"adapter.text_encoder": text, "preview.prompts": ["rocket"]}
        list(train(config_from(quick | BUSY | more | {"name": "alone"}), workspace))
        other = workspace.runs / "alone" / "adapter.safetensors"
        for event in train(config_from(quick | BUSY | more | {"name": "watched"}), workspace):
            if not isinstance(event, Step | Checkpoint):
                continue
            live = AdapterUse(file=workspace.runs / "watched" / "adapter.safetensors", live=True, strength=0.8)
            generate(Recipe(**WORDS, adapters=(live, (other, 0.5))))
            generate(Recipe(**WORDS))
        assert losses(workspace, "watched") == losses(workspace, "alone")
        for name in ("alone", "watched"):
            (workspace.runs / name).rename(workspace.runs / f"{name}-{text}")


def test_a_picture_shows_the_weights_as_they_are_now(workspace, quick):
    """At each checkpoint the live picture is the one that the checkpoint's file draws later."""
    live, file = {}, workspace.runs / "now" / "adapter.safetensors"
    fast = {"training.learning_rate": 0.05, "training.checkpoint_every": 3, "name": "now"}
    for event in train(config_from(quick | fast), workspace):
        if isinstance(event, Checkpoint):
            live[event.step] = generate(Recipe(**WORDS, adapters=(AdapterUse(file=file, live=True),)))
    assert len(live) == 2
    for step, picture in live.items():
        saved = file.parent / "checkpoints" / f"{step:06d}" / "adapter.safetensors"
        later = generate(Recipe(**WORDS, adapters=((saved, 1.0),)))
        away = ImageChops.difference(picture, later).convert("L").getextrema()[1]
        assert away <= 2, step  # the file is rounded
    assert ImageChops.difference(*live.values()).getbbox()


def test_a_run_and_a_picture_share_one_base_and_the_run_leaves_it_clean(workspace, quick):
    before, base = generate(Recipe(**WORDS)), load_base()
    seen = set()
    for _ in train(config_from(quick | {"name": "guest"}), workspace):
        seen.add(id(load_base()))
    assert seen == {id(base)}
    assert ImageChops.difference(draw(load_base(), Recipe(**WORDS)), before).getbbox() is None
    assert not rack_of(base).runs


def test_a_run_that_is_left_in_the_middle_takes_its_adapter_along(workspace, quick):
    before = generate(Recipe(**WORDS))
    events = train(config_from(quick | {"name": "left", "training.learning_rate": 0.05}), workspace)
    for event in events:
        if isinstance(event, Step) and event.step == 3:
            break
    events.close()
    assert ImageChops.difference(draw(load_base(), Recipe(**WORDS)), before).getbbox() is None
