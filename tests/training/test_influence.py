"""Two branches of a run, with an image and without: what is the same in both, and what is said of it."""

import shutil
import threading

import pytest

from studio.basemodels import load_base
from studio.errors import RunError
from studio.training import config_from, influence, new_run, train
from studio.training.branches import measure_influence
from studio.training.influence import Influence
from studio.training.paired import Difference
from studio.workspace import ASSETS
from tests import tiers
from tests.training.test_caption_words import NOTHING, result_of

RUN = {
    "name": "run",
    "training.learning_rate": 0.01,
    "training.batch_size": 4,
    "adapter.dropout": 0.3,
    "validation.every": 6,
    "validation.scorecard": 0.0,
    "data.held_out": str(ASSETS / "datasets" / "held-out" / "silhouette"),
}
PLANS = tiers.default(
    [
        {},
        {"training.accumulation": 2},
        {"training.optimizer": "schedule-free-adamw", "training.schedule": "constant"},
        {"adapter.text_encoder": True},
        {"training.ema": 0.9, "training.weights": "bf16"},
    ]
)


@pytest.mark.parametrize("more", PLANS)
def test_one_branch_is_the_run_and_the_other_learns_nothing_of_the_image(workspace, quick, tmp_path, more):
    data = tmp_path / "mine"
    shutil.copytree(ASSETS / "datasets" / "silhouette", data)
    for _ in train(config_from(quick | RUN | more | {"data.folder": str(data)}), workspace):
        pass
    folder = workspace.runs / "run"
    before = sorted((file, file.stat().st_mtime_ns) for file in folder.rglob("*"))
    found = result_of(measure_influence(folder, workspace, "cat.png", 6, NOTHING))
    assert before == sorted((file, file.stat().st_mtime_ns) for file in folder.rglob("*"))  # the run is not touched
    assert found.repeats and (found.first, found.last) == (1, 6) and found.places and found.effect.count == 8
    assert found.with_it != found.without_it and "bit for bit" in found.differs

    (data / "cat.txt").write_text("a submarine made of cheese")  # whatever the image is, one branch ignores it
    again = result_of(measure_influence(folder, workspace, "cat.png", 6, NOTHING))
    assert again.without_it == found.without_it and again.with_it != found.with_it
    assert again.repeats is False and "not those" in again.notes[0] and "does not repeat" in again.differs


def test_branches_begin_at_the_newest_checkpoint_with_room_and_can_be_stopped(workspace, quick):
    for _ in train(config_from(quick | RUN), workspace):  # with checkpoints at 2, 4 and 6, of which two have a state
        pass
    found = result_of(measure_influence(workspace.runs / "run", workspace, "bus.png", 2, NOTHING))
    assert (found.first, found.last) == (5, 6) and found.repeats and "checkpoint of step 4" in found.differs

    stop, base = threading.Event(), load_base(quick["base"], precision="fp32")
    for _, _, what in measure_influence(workspace.runs / "run", workspace, "bus.png", 2, stop):
        if what == "Training without it":
            stop.set()
    assert stop.is_set() and not any("lora" in name for name, _ in base.model.named_modules())


@pytest.mark.parametrize(
    ("image", "more", "message"),
    [
        ("nothing.png", {}, "does not train on 'nothing.png'"),
        ("bus.png", {"validation.every": 0}, "holds out no images"),
    ],
)
def test_what_can_not_be_compared_is_refused_in_a_sentence(workspace, quick, image, more, message):
    folder = new_run(config_from(quick | RUN | more), workspace)
    with pytest.raises(RunError, match=message):
        result_of(measure_influence(folder, workspace, image, 0, NOTHING))


@pytest.mark.parametrize(
    ("effect", "kind", "words"),
    [
        (Difference(0.02, 0.001, 8), "hurts", "is 2.00 ± 0.10 % lower after 10 steps"),
        (Difference(-0.02, 0.001, 8), "helps", "is 2.00 ± 0.10 % higher"),
        (Difference(0.02, 0.02, 8), "can't be told", "within the spread"),
        (Difference(0.02, 0.001, 2), "can't be told", "2 held-out images are too few"),
    ],
)
def test_the_sentence_says_what_the_spread_allows(tmp_path, effect, kind, words):
    one = Influence("bus.png", 11, 20, 3, 40, 0.51, 0.5, effect)
    assert one.kind == kind and words in one.sentence
    influence.keep(tmp_path, one)
    influence.keep(tmp_path, Influence("cat.png", 1, 2, 3, 4, 0.5, 0.5, effect))
    assert [read.image for read in influence.read(tmp_path)] == ["cat.png", "bus.png"]
    assert influence.read(tmp_path)[1] == one
    (tmp_path / influence.FILE).write_text('[{"image": 3}]')
    assert influence.read(tmp_path) == []
