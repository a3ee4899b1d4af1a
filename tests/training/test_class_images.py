"""Class images: drawn by the base, counted, kept for every run of the same base and prompt, and used as any others."""

import threading

import numpy as np
import pytest
from PIL import Image

from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.errors import ConfigError
from studio.generation import draw
from studio.training import class_images, config_from, read_run, train
from studio.training.events import Preparing, Started, Stopped
from studio.training.length import with_steps
from studio.training.preflight import preflight

CLASS = {"data.class_prompt": "a toy", "data.class_images": 3, "preview.steps": 1, "training.steps": 2}


@pytest.fixture
def drawn(monkeypatch):
    """Seeds of what was drawn for class images."""
    seeds = []

    def counted(base, recipe, stop=None):
        seeds.append(recipe.seed)
        return draw(base, recipe, stop)

    monkeypatch.setattr(class_images, "draw", counted)
    return seeds


def losses(workspace, name):
    return [row[1] for row in read_run(workspace, name).losses]


def test_class_images_are_drawn_once_and_trained_like_a_folder_of_them(workspace, quick, drawn):
    events = list(train(config_from(quick | CLASS | {"name": "one"}), workspace))
    (folder,) = (workspace.cache / "class_images").iterdir()
    assert folder.name.startswith("a-toy-") and drawn == [0, 1, 2]
    assert [item.caption for item in open_dataset(folder).items] == ["a toy"] * 3
    made = [(one.done, one.total) for one in events if isinstance(one, Preparing) and one.what]
    assert made == [(0, 3), (1, 3), (2, 3), (3, 3)]
    setup = next(one.setup for one in events if isinstance(one, Started))
    assert "and as often 3 regularization images" in setup and "3 class images of 'a toy' by the base." in setup
    base, config = load_base(quick["base"]), config_from(quick | CLASS)
    with Image.open(folder / "00001.png") as kept:
        assert np.array_equal(kept, draw(base, class_images.recipe_of(config, base, 1)))

    again = config_from(quick | CLASS | {"name": "two", "data.class_images": 2})
    setup = next(one.setup for one in train(again, workspace) if isinstance(one, Started))
    assert drawn == [0, 1, 2] and "2 class images of 'a toy' by the base, 2 of them drawn before." in setup
    plain = {key: value for key, value in CLASS.items() if "class" not in key} | {"data.regularisation": str(folder)}
    list(train(config_from(quick | plain | {"name": "three"}), workspace))
    assert losses(workspace, "three") == losses(workspace, "one")


def test_a_run_stopped_meanwhile_draws_only_the_others(workspace, quick, drawn):
    config, stop = config_from(quick | CLASS | {"name": "halves"}), threading.Event()
    for event in train(config, workspace, stop=stop):
        if isinstance(event, Preparing) and event.done == 1:
            stop.set()
    assert isinstance(event, Stopped) and "those that are there are kept" in event.message and drawn == [0]
    list(train(config, workspace, folder=workspace.runs / "halves"))
    assert drawn == [0, 1, 2] and read_run(workspace, "halves").state == "finished"


def test_another_prompt_base_or_way_of_drawing_is_another_folder(quick, workspace):
    base = load_base(quick["base"])
    folders = {
        class_images.folder_of(config_from(quick | CLASS | more), base, workspace)
        for more in ({}, {"data.class_prompt": "a pet"}, {"preview.guidance": 7}, {"data.resolution": 128})
    }
    assert len(folders) == 4
    same = config_from(quick | CLASS | {"training.seed": 3, "data.class_images": 9, "preview.seed": 5})
    assert class_images.folder_of(same, base, workspace) in folders


def test_the_check_counts_what_will_be_drawn_and_epochs_count_it(workspace, quick):
    report = preflight(config_from(quick | CLASS | {"data.trigger": "zsk"}), workspace)
    lines = [one.message for one in report.findings]
    assert "3 class images will be drawn before the run." in lines
    assert any("; 3 regularization images, each seen" in line for line in lines)
    assert not (workspace.cache / "class_images").exists()
    epochs = quick | {"training.epochs": 4}
    alone, both = (with_steps(config_from(epochs | more)).training.steps for more in ({}, CLASS))
    assert both > 1.5 * alone


def test_class_images_need_a_prompt_and_no_second_source(quick):
    with pytest.raises(ConfigError, match="needs data.class_prompt"):
        config_from(quick | {"data.class_images": 3})
    with pytest.raises(ConfigError, match="two sources of regularization images: leave one out"):
        config_from(quick | CLASS | {"data.regularisation": "kind"})
