"""The adapter library: what stands in it, quick with many, nothing trusted, nothing lost."""

import base64
import filecmp
import io
import json
import os
import time
import tracemalloc
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from studio.adapters import Update, write_adapter
from studio.errors import StudioError
from studio.generation import AppliedAdapter, Recipe, save_image
from studio.services import adapter_files, adapter_library
from studio.web.generate.adapter_library import library_html
from studio.workspace import Workspace

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def space(tmp_path):
    return Workspace.open(tmp_path)


def adapter(path, rank=4, width=768, **said):
    update = Update(
        "lora", {"A": torch.ones(rank, width), "B": torch.ones(640 if width == 2048 else 320, rank)}, float(rank)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    block = 1 if width == 2048 else 0  # SDXL's first block has no attention
    layer = f"down_blocks.{block}.attentions.0.transformer_blocks.0.attn2.to_k"
    write_adapter(path, {("unet", layer): update}, metadata=said)
    return path


def dropped(space, name, **values):
    return adapter(space.adapters / f"{name}.safetensors", **values)


def finished_run(space, name):
    adapter(space.runs / name / "adapter.safetensors")
    (space.runs / name / "run.toml").write_text('name = "x"\n')
    return space.runs / name


def cover(colour="red"):
    stream = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(stream, "PNG")
    return {"modelspec.thumbnail": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()}


def colour(path):
    return Image.open(path).convert("RGB").resize((1, 1)).getpixel((0, 0))


def test_a_file_and_a_run_stand_there_with_what_their_headers_say(space):
    dropped(space, "one", rank=8, width=2048, **{"modelspec.trigger_phrase": "inkling"})
    finished_run(space, "moody")
    found = {card.name: card for card in adapter_library.cards(space)}
    one = found["one"]
    assert (one.kind, one.rank, one.family, one.words) == ("LoRA", 8, "SDXL", ("inkling",))
    assert one.size == (space.adapters / "one.safetensors").stat().st_size and not one.is_run
    assert found["moody"].is_run and found["moody"].family == "Stable Diffusion 1"


def test_a_card_shows_the_newest_preview_else_the_files_image_else_the_newest_drawn_with_it(space):
    run = finished_run(space, "moody")
    (run / "previews").mkdir()
    for step, name in ((2, "red"), (10, "blue")):
        Image.new("RGB", (64, 64), name).save(run / "previews" / f"{step:06d}-0.png")
    dropped(space, "own", **cover("lime"))
    plain = dropped(space, "plain")
    dropped(space, "never")
    for seed, name in ((1, "red"), (2, "yellow")):
        recipe = Recipe(prompt="a", seed=seed, adapters=(AppliedAdapter(file=plain),))
        path = save_image(Image.new("RGB", (64, 64), name), recipe, space.outputs)
        os.utime(path, (seed, seed))
    found = {card.name: card for card in adapter_library.cards(space)}
    near = {"moody": (0, 0, 255), "own": (0, 255, 0), "plain": (255, 255, 0)}
    for name, wanted in near.items():
        assert all(abs(a - b) < 12 for a, b in zip(colour(found[name].image), wanted)), name
    assert found["never"].image is None and 'class="tile"' in library_html([found["never"]], False)


def test_the_search_asks_for_every_word(space):
    dropped(space, "one", **{"studio.trigger": "inkling"})
    dropped(space, "two", width=2048)
    assert [card.name for card in adapter_library.cards(space, "INK lora")] == ["one"]
    assert [card.name for card in adapter_library.cards(space, "sdxl rank 4")] == ["two"]
    assert adapter_library.cards(space, "one sdxl") == []


def test_what_is_taken_off_is_kept_aside_and_can_be_put_back(space):
    data = dropped(space, "one").read_bytes()
    aside = adapter_library.remove(space, "file:one.safetensors")
    assert adapter_library.cards(space) == [] and adapter_files.adapter_choices(space) == []
    dropped(space, "one", rank=2)  # another one of that name came meanwhile
    key = adapter_library.put_back(space, aside)
    assert adapter_files.adapter_path(space, key).read_bytes() == data
    assert {card.name for card in adapter_library.cards(space)} == {"one", "one-2"}


@pytest.mark.parametrize(
    "key", ["run:moody", "file:../one.safetensors", "file:none.safetensors", "file:", "x", "file:.a"]
)
def test_nothing_else_is_taken_off(space, key):
    run = finished_run(space, "moody")
    with pytest.raises(StudioError):
        adapter_library.remove(space, key)
    with pytest.raises(StudioError):
        adapter_library.put_back(space, key.partition(":")[2])
    assert (run / "adapter.safetensors").is_file()


def test_a_broken_file_says_so_and_can_only_be_taken_off(space):
    (space.adapters / "noise.safetensors").write_bytes(b"\0" * 50)
    (card,) = adapter_library.cards(space)
    html = library_html([card], False)
    assert "noise.safetensors" in card.problem and 'data-act="add"' not in html and 'data-act="remove"' in html


def test_a_changed_file_is_looked_at_again(space):
    dropped(space, "one")
    assert adapter_library.cards(space)[0].rank == 4
    dropped(space, "one", rank=6)
    assert adapter_library.cards(space)[0].rank == 6


def test_many_files_are_read_a_part_at_a_time_and_none_twice(space, monkeypatch):
    """By a clock that a file takes 0.1 s of."""
    facts_of, now = adapter_library._facts, [0.0]

    def facts(*arguments):
        now[0] += 0.1
        return facts_of(*arguments)

    monkeypatch.setattr(adapter_library, "_facts", facts)
    monkeypatch.setattr(adapter_library, "time", SimpleNamespace(monotonic=lambda: now[0]))
    first = dropped(space, "one", **{"ss_tag_frequency": json.dumps({"a": {"inkling": 3}})}).read_bytes()
    for number in range(19):
        (space.adapters / f"copy {number}.safetensors").write_bytes(first)
    for unread in (14, 8, 2, 0):
        found = adapter_library.cards(space, seconds=0.55)
        assert sum(not card.known for card in found) == unread
    monkeypatch.setattr(adapter_library, "_facts", lambda _, path: pytest.fail(f"{path} was read again"))
    assert len(adapter_library.cards(space, "ink")) == 20


@pytest.mark.parametrize("text", ["[", "[]", '{"file:one.safetensors": 3}', "\0", '{"a": {"rank": "x", "words": 3}}'])
def test_a_spoilt_memory_is_passed_over(space, text):
    dropped(space, "one")
    adapter_library.cards(space)
    memory = space.cache / "adapter_library.json"
    stamp = next(iter(json.loads(memory.read_text())))
    memory.write_text(text)
    assert adapter_library.cards(space)[0].rank == 4
    memory.write_text(json.dumps({stamp: {"rank": "x", "words": 3, "cover": "../../one", "kind": [1]}}))
    (card,) = adapter_library.cards(space)
    assert card.rank == 0 and card.words == () and card.image is None


def test_nothing_that_a_stranger_wrote_is_html(space):
    dropped(space, "one", **{"studio.trigger": EVIL})
    html = library_html(adapter_library.cards(space), False)
    assert "<img src=x" not in html and "&lt;img src=x" in html


def test_a_dropped_file_of_any_size_is_never_whole_in_memory_and_counts_as_new(space, tmp_path, monkeypatch):
    import studio.adapters

    monkeypatch.setattr(studio.adapters, "read_adapter", lambda path: SimpleNamespace(refuse_if_damaged=lambda: None))
    file, size = tmp_path / "large.safetensors", 32_000_000
    file.write_bytes(os.urandom(size))
    os.utime(file, (1e9, 1e9))
    tracemalloc.start()
    keys = [adapter_files.add_adapter_file(space, file) for _ in range(2)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert keys == ["file:large.safetensors"] * 2 and peak < size / 4
    kept = space.adapters / "large.safetensors"
    assert filecmp.cmp(file, kept, shallow=False) and time.time() - kept.stat().st_mtime < 60
    with open(file, "r+b") as stream:
        stream.write(b"other")
    assert adapter_files.add_adapter_file(space, file) == "file:large-2.safetensors"
