"""A captioner over a folder: modes, memory that runs out, images that go wrong, stopping and going on."""

import threading

import pytest
import torch
from pydantic import BaseModel, ConfigDict

from studio.captioning import caption_dataset, compare, score
from studio.captioning.batching import Batches
from studio.captioning.generators import Generator
from studio.captioning.kinds import CAPTIONERS, Kind
from studio.datasets import authors, copy_sample, history, open_dataset, read_caption, set_caption, undo
from studio.errors import BaseModelError, ConfigError, DatasetError
from studio.workspace import Workspace
from tests import tiers
from tests.captioning import tiny


class NoSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    batch_size: int = 4


class Fake:
    """Says "thing 0, made" of its first image and so on; with more than `held` at once, `trouble` is raised."""

    side = 0
    made: list["Fake"] = []

    def __init__(self, folder, settings):
        self.batch_size, self.sizes, self.closed, self.count = settings.batch_size, [], False, 0
        Fake.made.append(self)

    def caption(self, images):
        self.sizes.append(len(images))
        if len(images) > Fake.held:
            raise Fake.trouble
        self.count += len(images)
        return [f"thing {self.count - len(images) + i}, made" for i in range(len(images))]

    def close(self):
        self.closed = True


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(CAPTIONERS, "fake", Kind("a test's", NoSettings, (), Fake))
    monkeypatch.setattr(Fake, "made", [])
    monkeypatch.setattr(Fake, "held", 1000, raising=False)
    monkeypatch.setattr(Fake, "trouble", MemoryError(), raising=False)
    return Fake


@pytest.fixture
def dataset(tmp_path):
    """The sample's 24 images; the first alone has a caption, of a person."""
    dataset = copy_sample(Workspace.open(tmp_path), "pixel")
    for item in dataset.items:
        set_caption(item.path, "")
    set_caption(dataset.items[0].path, "mine, thing 0")
    return open_dataset(dataset.folder)


def captions(dataset) -> list[str]:
    return [item.caption for item in open_dataset(dataset.folder).items]


def test_skip_writes_where_there_is_nothing_as_the_model_s_words_and_as_one_step(dataset, fake):
    count = len(dataset.items)
    report = caption_dataset(dataset, "fake", trigger="zsk")
    assert (report.written, report.kept, report.triggered) == (count - 1, 1, 1)
    assert captions(dataset)[:3] == ["zsk, mine, thing 0", "zsk, thing 0, made", "zsk, thing 1, made"]
    file = dataset.file_of(dataset.items[1])
    assert authors(dataset, file) == [(phrase, "model:fake") for phrase in ("zsk", "thing 0", "made")]
    assert authors(dataset, dataset.file_of(dataset.items[0]))[0] == ("zsk", "rule:trigger")
    undo(dataset)
    assert captions(dataset) == ["mine, thing 0"] + [""] * (count - 1)
    assert fake.made[0].closed


def test_overwrite_append_and_refresh(dataset, fake):
    caption_dataset(dataset, "fake")
    dataset = open_dataset(dataset.folder)
    set_caption(dataset.items[1].path, "thing 0, made, by hand")
    dataset = open_dataset(dataset.folder)
    assert caption_dataset(dataset, "fake", mode="append", trigger="zsk").written == len(dataset.items)
    assert captions(dataset)[0] == "zsk, mine, thing 0, made"  # what is there is not said twice
    assert captions(dataset)[1] == "zsk, thing 0, made, by hand, thing 1"
    dataset = open_dataset(dataset.folder)
    caption_dataset(dataset, "fake", mode="refresh")
    assert captions(dataset)[:2] == ["made, mine, thing 0", "thing 1, made, by hand"]
    dataset = open_dataset(dataset.folder)
    caption_dataset(dataset, "fake", overwrite=True)
    assert captions(dataset)[:2] == ["thing 0, made", "thing 1, made"]


@pytest.mark.parametrize("mode", ["skip", "overwrite", "append", "refresh"])
def test_what_is_typed_meanwhile_stays_in_every_mode(dataset, fake, mode):
    last = dataset.items[-1].path
    report = caption_dataset(dataset, "fake", mode=mode, progress=lambda *_: set_caption(last, "typed"))
    assert read_caption(last) == "typed"
    assert report.kept == (2 if mode == "skip" else 1)


def test_only_the_named_images_are_touched(dataset, fake):
    names = [dataset.file_of(item) for item in dataset.items]
    report = caption_dataset(dataset, "fake", mode="overwrite", only=names[4:6], trigger="zsk")
    assert report.written == 2 and report.kept == 0
    found = captions(dataset)
    assert found[4:6] == ["zsk, thing 0, made", "zsk, thing 1, made"] and found[0] == "mine, thing 0"
    assert not any(found[1:4] + found[6:])
    with pytest.raises(DatasetError, match="no image called 'x.png'"):
        caption_dataset(dataset, "fake", only=["x.png"])


def test_unknown_modes_and_settings_are_said(dataset, fake):
    with pytest.raises(ConfigError, match="choose skip, overwrite, append, refresh"):
        caption_dataset(dataset, "fake", mode="rewrite")
    with pytest.raises(ConfigError, match="fake.size: is not a setting"):
        caption_dataset(dataset, "fake", settings={"size": 3})
    with pytest.raises(BaseModelError, match="hf download art/none"):
        caption_dataset(dataset, "blip", settings={"model": "art/none"})
    assert not any(captions(dataset)[1:])


@pytest.mark.parametrize(
    "trouble",
    [
        tiers.in_full(MemoryError()),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        tiers.in_full(
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to")
        ),
        tiers.in_full(
            RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer")
        ),
    ],
)
def test_batches_get_smaller_when_memory_runs_out_and_nothing_is_lost(dataset, fake, monkeypatch, trouble):
    monkeypatch.setattr(fake, "held", 2)
    monkeypatch.setattr(fake, "trouble", trouble)
    report = caption_dataset(dataset, "fake", settings={"batch_size": 7})
    assert report.written == len(dataset.items) - 1 and not report.unreadable
    assert fake.made[0].sizes[:4] == [7, 4, 2, 2] and max(fake.made[0].sizes[4:]) == 2  # and stay small
    assert all(captions(dataset))


@pytest.mark.full
def test_an_image_that_alone_needs_too_much_is_named_and_the_rest_goes_on(dataset, fake, monkeypatch):
    monkeypatch.setattr(fake, "held", 0)
    report = caption_dataset(dataset, "fake", only=[dataset.file_of(item) for item in dataset.items[:3]])
    assert report.written == 0 and len(report.unreadable) == 2
    assert "memory" in report.unreadable[0] and dataset.items[1].path.name in report.unreadable[0]


def test_an_image_that_the_captioner_fails_on_is_named_and_its_batch_goes_on():
    def work(things):
        if "bad" in things:
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return [thing.upper() for thing in things]

    found = Batches(3).run(work, ["a", "bad", "c", "d", "e", "f", "g"])
    assert isinstance(found.pop(1), ValueError) and found == ["A", "C", "D", "E", "F", "G"]


def test_the_line_of_a_failed_image_says_why(dataset, fake, monkeypatch):
    monkeypatch.setattr(fake, "held", 0)
    monkeypatch.setattr(fake, "trouble", ValueError("too thin\nat all"))
    report = caption_dataset(dataset, "fake", settings={"batch_size": 2})
    name = dataset.items[1].path.name
    assert report.unreadable[0] == f"{name}: not captioned, ValueError: too thin."
    assert fake.made[0].closed


def test_a_captioner_with_nothing_to_say_writes_nothing(dataset, fake, monkeypatch):
    monkeypatch.setattr(fake, "caption", lambda self, images: [" "] * len(images))
    report = caption_dataset(dataset, "fake", trigger="zsk")
    assert report.written == 0 and "nothing to say" in report.unreadable[0]
    assert not any(captions(dataset)[1:])


def test_a_stopped_batch_goes_on_where_it_was(dataset, fake):
    stop = threading.Event()
    report = caption_dataset(dataset, "fake", stop=stop, progress=lambda *_: stop.set())
    assert report.stopped and report.written == 4 and fake.made[0].closed
    again = caption_dataset(open_dataset(dataset.folder), "fake")
    assert (again.written, again.kept, again.stopped) == (len(dataset.items) - 5, 5, False)
    assert captions(dataset)[1:6] == [f"thing {i}, made" for i in (0, 1, 2, 3, 0)]
    assert len(history(dataset)) >= 2


def test_a_stop_in_the_middle_of_a_sentence_writes_no_half_caption(dataset, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    stop, generate, calls = threading.Event(), Generator.generate, []

    def third_is_stopped(self, inputs, **options):
        calls.append(inputs)
        if len(calls) == 3:
            stop.set()
        return generate(self, inputs, **options)

    monkeypatch.setattr(Generator, "generate", third_is_stopped)
    settings = {"model": str(tiny.llava(folder)), "max_tokens": 8, "batch_size": 1, "temperature": 0, "prompt": "?"}
    report = caption_dataset(dataset, "joycaption", settings=settings, stop=stop)
    assert report.stopped and report.written + len(report.unreadable) == 2
    assert report.written == sum(map(bool, captions(dataset)[1:]))


def test_a_real_model_over_a_folder_with_a_broken_image(dataset, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    dataset.items[3].path.write_bytes(dataset.items[3].path.read_bytes()[:300])
    told = []
    report = caption_dataset(
        dataset,
        "wd",
        settings={"model": str(tiny.wd(folder)), "general_threshold": 0.0, "batch_size": 5},
        progress=lambda done, total, path, caption: told.append((done, total)),
    )
    count = len(dataset.items)
    assert report.written == count - 2 and len(report.unreadable) == 1
    assert dataset.items[3].path.name in report.unreadable[0] and told[-1] == (count - 1, count - 1)
    assert "red dress" in captions(dataset)[1]


def test_two_captioners_side_by_side_one_in_memory_at_a_time(fake, monkeypatch, tmp_path):
    alive = []
    monkeypatch.setattr(
        fake,
        "close",
        lambda self: alive.append(sum(not one.closed for one in fake.made)) or setattr(self, "closed", True),
    )
    told = []
    found = compare(
        [("fake", {"batch_size": 2}), ("fake", None), ("blip", {"model": "art/none"}), "starter"],
        tiny.images(3),
        progress=lambda done, total, name: told.append((done, total, name)),
    )
    assert [one.captions for one in found[:2]] == [["thing 0, made", "thing 1, made", "thing 2, made"]] * 2
    assert alive == [1, 1] and all(one.closed for one in fake.made)
    assert "hf download art/none" in found[2].problem and found[2].captions == ["", "", ""]
    assert found[3].problem == "" and all(text.endswith(" %)") for text in found[3].captions)
    assert all("(unsure: " in text for text in found[3].captions)  # they show nothing that it knows
    assert told[-1] == (4, 4, "starter")


@pytest.mark.full
def test_a_comparison_says_what_could_not_be_captioned_and_stops(fake, monkeypatch):
    monkeypatch.setattr(fake, "held", 0)
    stop = threading.Event()
    found = compare(["fake", "fake"], tiny.images(2), stop=stop, progress=lambda *_: stop.set())
    assert len(found) == 1 and found[0].problem == "2 of 2 could not be captioned (memory ran out)."


def test_scores_find_the_caption_that_belongs_to_another_image(tmp_path):
    dataset = copy_sample(Workspace.open(tmp_path), "pixel")
    truth = [item.caption for item in dataset.items]
    right = score(dataset)
    assert sorted(row.caption for row in right.rows) == sorted(truth) and not right.without
    values = [row.similarity for row in right.rows]
    assert values == sorted(values) and values[0] >= -1 and values[-1] <= 1
    for item, caption in zip(dataset.items, truth[7:] + truth[:7]):
        set_caption(item.path, caption)
    wrong = score(open_dataset(dataset.folder))
    assert sum(row.similarity for row in wrong.rows) < sum(values) - 0.1 * len(values)


@pytest.mark.full
def test_scores_leave_out_the_trigger_and_name_what_has_no_caption_or_is_broken(tmp_path):
    dataset = copy_sample(Workspace.open(tmp_path), "pixel")
    plain = {row.file: row.similarity for row in score(dataset).rows}
    for item in dataset.items:
        set_caption(item.path, f"zsk, {item.caption}")
    set_caption(dataset.items[0].path, "")
    dataset.items[1].path.write_bytes(b"no image")
    told = []
    found = score(open_dataset_kept(dataset), trigger="zsk", progress=lambda done, total: told.append((done, total)))
    assert found.without == [dataset.file_of(dataset.items[0])] and len(found.unreadable) == 1
    assert all(abs(row.similarity - plain[row.file]) < 1e-5 for row in found.rows)
    assert told[-1] == (len(dataset.items) - 1,) * 2


def open_dataset_kept(dataset):
    """The dataset as it was opened, without the captions that came along, so that a broken image stays in it."""
    from studio.datasets import Dataset, Item

    return Dataset(dataset.folder, [Item(item.path, "", item.size) for item in dataset.items])


def test_scores_by_any_clip_and_stopping(tmp_path):
    dataset = copy_sample(Workspace.open(tmp_path), "pixel")
    folder = tmp_path / "clip"
    folder.mkdir()
    tiny.clip(folder)
    found = score(dataset, clip=str(folder))
    assert len(found.rows) == len(dataset.items) and not found.unreadable
    assert all(-1 <= row.similarity <= 1 for row in found.rows)
    stop = threading.Event()
    part = score(dataset, clip=str(folder), stop=stop, progress=lambda *_: stop.set())
    assert part.stopped and 0 < len(part.rows) < len(dataset.items)
    with pytest.raises(BaseModelError, match="hf download openai/clip-none"):
        score(dataset, clip="openai/clip-none")
    with pytest.raises(BaseModelError, match="not a CLIP"):
        (folder / "config.json").write_text('{"model_type": "bert"}')
        score(dataset, clip=str(folder))
