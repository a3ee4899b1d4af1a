"""The built-in captioner on real images, and what it must never do to captions that are there."""

import re
import subprocess
import sys
import threading

import pytest
from PIL import Image

from studio.captioning import add_trigger, caption_dataset
from studio.datasets import copy_sample, has_trigger, open_dataset, set_caption
from studio.errors import BaseModelError, ConfigError
from studio.workspace import Workspace


@pytest.fixture
def dataset(tmp_path):
    return copy_sample(Workspace.open(tmp_path), "pixel")


def test_captions_that_are_there_are_kept(dataset):
    set_caption(dataset.items[0].path, "written by hand")
    set_caption(dataset.items[1].path, "")
    report = caption_dataset(open_dataset(dataset.folder))
    captions = [item.caption for item in open_dataset(dataset.folder).items]
    assert captions[0] == "written by hand" and captions[1]
    assert (report.written, report.kept) == (1, len(dataset.items) - 1)


def test_a_name_is_written_where_it_is_sure_and_the_background_in_any_case(dataset):
    truth = {item.path.name: item.caption for item in dataset.items}
    for number, item in enumerate(dataset.items):  # no hints
        item.path.rename(item.path.with_name(f"{number:02}.png"))
        item.path.with_suffix(".txt").unlink()
    names = dict(zip((f"{n:02}.png" for n in range(len(truth))), truth.values()))
    again = open_dataset(dataset.folder)
    report = caption_dataset(again)
    found = {item.path.name: item.caption for item in open_dataset(dataset.folder).items}
    named = {file for file, caption in found.items() if not caption.startswith("on ")}
    right = {file for file in named if found[file].split(",")[0] == names[file].split(",")[0]}
    assert len(right) >= 0.8 * len(named), found
    assert all(found[file].endswith(names[file].split(", ")[-1]) for file in found), found
    assert set(report.unsure) == set(found) - named
    assert all(re.fullmatch(r"[\w -]+ \d+ %", said) for said in report.unsure.values())


def test_the_name_of_a_file_is_a_hint(dataset):
    report = caption_dataset(dataset, overwrite=True)
    found = {item.path.stem: item.caption.split(",")[0] for item in open_dataset(dataset.folder).items}
    said = [stem for stem, name in found.items() if name == stem.replace("-", " ").replace("jack o", "jack-o")]
    assert len(said) >= 0.75 * len(found), found
    assert set(report.unsure) <= {f"{stem}.png" for stem in found if stem not in said}


def test_what_is_foreign_is_not_named():
    from studio.captioning.starter import StarterCaptioner

    captioner = StarterCaptioner()
    noise = [Image.effect_noise((128, 128), 90).convert("RGB") for _ in range(4)]
    gradients = [Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")]
    for caption in captioner.caption([*noise, *gradients]):
        assert caption == "" or caption.startswith("on "), caption
        assert caption.unsure.endswith(" %")
    assert captioner.caption([Image.new("RGB", (128, 128), "white")]) == ["on a white background"]


def test_a_broken_image_is_named_and_the_rest_is_done(dataset):
    dataset.items[3].path.write_bytes(dataset.items[3].path.read_bytes()[:300])
    report = caption_dataset(dataset, overwrite=True)
    assert report.written == len(dataset.items) - 1
    assert len(report.unreadable) == 1 and dataset.items[3].path.name in report.unreadable[0]


def test_stop_ends_between_batches_and_keeps_what_is_written(dataset):
    stop = threading.Event()
    report = caption_dataset(dataset, overwrite=True, stop=stop, progress=lambda *_: stop.set())
    assert report.stopped and 0 < report.written < len(dataset.items)


def test_unknown_captioner_is_said(dataset):
    with pytest.raises(ConfigError, match="starter"):
        caption_dataset(dataset, captioner="oracle")


def test_a_caption_typed_while_the_job_runs_is_kept(dataset):
    for item in dataset.items:
        set_caption(item.path, "")
    dataset = open_dataset(dataset.folder)
    last = dataset.items[-1].path
    report = caption_dataset(dataset, progress=lambda *_: set_caption(last, "typed meanwhile"))
    assert open_dataset(dataset.folder).items[-1].caption == "typed meanwhile"
    assert (report.written, report.kept) == (len(dataset.items) - 1, 1)


def test_the_trigger_is_put_in_front_of_kept_captions_that_lack_it_and_only_once(dataset):
    set_caption(dataset.items[0].path, "Inkling, a bat")
    set_caption(dataset.items[1].path, "inklings at sea")
    set_caption(dataset.items[2].path, "")
    report = caption_dataset(open_dataset(dataset.folder), trigger=" inkling ")
    assert (report.written, report.kept, report.triggered) == (1, len(dataset.items) - 1, len(dataset.items) - 2)
    captions = [item.caption for item in open_dataset(dataset.folder).items]
    assert captions[:2] == ["Inkling, a bat", "inkling, inklings at sea"] and captions[2].startswith("inkling, ")
    again = caption_dataset(open_dataset(dataset.folder), trigger="inkling")
    assert (again.written, again.triggered) == (0, 0)
    assert [item.caption for item in open_dataset(dataset.folder).items] == captions


def test_without_a_trigger_kept_captions_stay_as_they_are_and_images_without_one_stay_without(dataset):
    before = [item.caption for item in dataset.items]
    set_caption(dataset.items[2].path, "")
    assert caption_dataset(open_dataset(dataset.folder)).triggered == 0
    assert add_trigger(open_dataset(dataset.folder), " ") == 0
    now = [item.caption for item in open_dataset(dataset.folder).items]
    assert now[2] and now[:2] + now[3:] == before[:2] + before[3:]
    set_caption(dataset.items[2].path, "")
    add_trigger(open_dataset(dataset.folder), "inkling")
    now = [item.caption for item in open_dataset(dataset.folder).items]
    assert now == [f"inkling, {caption}" for caption in before[:2]] + [""] + [f"inkling, {one}" for one in before[3:]]


def test_a_captioner_that_is_not_there_is_said(tmp_path):
    from studio.captioning.starter import StarterCaptioner

    with pytest.raises(BaseModelError, match="assets/starter"):
        StarterCaptioner(tmp_path)


def test_datasets_and_the_list_of_captioners_load_no_torch():
    code = "import sys, studio.datasets, studio.captioning; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_trigger_is_a_word_of_its_own():
    assert has_trigger("Ink, a bird", "ink") and has_trigger("a bird, ink", " ink")
    assert not has_trigger("a pink bird", "ink") and not has_trigger("inklings", "ink")
