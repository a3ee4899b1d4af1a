"""Where a model is looked for, what is said when it isn't there, and what comes when it may be fetched."""

import json
import threading

import pytest
from huggingface_hub import constants

from studio.captioning import DownloadStopped, find_model, load_captioner
from studio.errors import BaseModelError
from tests import hubs

WEIGHTS = bytes(range(256)) * 8000  # 2 MB: huggingface_hub tells of every MB or so


@pytest.fixture
def cache(tmp_path, monkeypatch):
    with hubs.no_network(tmp_path / "cache", monkeypatch) as folder:
        yield folder


@pytest.fixture
def hub(cache, monkeypatch):
    good = {"config.json": b'{"model_type": "blip"}', "model.safetensors": WEIGHTS, "vocab.txt": b"a\nb\n"}
    models = {
        "art/good": {
            **good,
            "pytorch_model.bin": b"x" * 999,
            "README.md": b"#",
            "onnx/config.json": b"{}",
            "onnx/model.safetensors": b"x",
        },
        "art/pickle": {"config.json": b"{}", "pytorch_model.bin": b"x" * 999},
        "art/gated": good,
    }
    with hubs.serve(models, monkeypatch) as server:
        yield server


def said(*args, **options) -> str:
    with pytest.raises(BaseModelError) as error:
        find_model(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_leave_to_download_nothing_is_asked_and_the_ways_are_named(hub):
    line = said("art/good")
    assert "hf download art/good" in line and "folder" in line
    assert not hub.got


def test_a_download_brings_what_is_needed_and_no_pickle_and_counts_bytes(hub, cache):
    told = []
    folder = find_model("art/good", download=True, progress=lambda done, total: told.append((done, total)))
    assert sorted(hub.got) == ["config.json", "model.safetensors", "vocab.txt"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS and folder.is_relative_to(cache)
    total = sum(len((folder / file).read_bytes()) for file in hub.got)
    assert told[-1] == (total, total) and told == sorted(told) and len(told) >= 3
    hub.got.clear()
    assert find_model("art/good") == find_model("art/good", download=True) == folder  # now it is here
    assert not hub.got


def test_a_stopped_download_goes_on_later(hub):
    stop = threading.Event()
    with pytest.raises(DownloadStopped):
        find_model("art/good", download=True, progress=lambda *_: stop.set(), stop=stop)
    assert "hf download" in said("art/good")
    assert find_model("art/good", download=True).is_dir()


def test_a_model_with_nothing_but_a_pickle_is_refused_before_it_comes(hub):
    assert "pickle" in said("art/pickle", download=True)
    assert not hub.got


def test_a_model_that_is_not_there_or_asks_for_consent_is_said(hub):
    assert "no model art/nothing" in said("art/nothing", download=True)
    assert "accept its terms" in said("art/gated", download=True)


def test_without_a_network_the_line_says_how_to_bring_the_model(cache):
    line = said("art/good", download=True)
    assert "art/good can't be fetched" in line and "copy the model's folder" in line


def test_the_network_switched_off_is_no_network(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "can't be fetched" in said("art/good", download=True)


def test_a_disk_without_room_is_said_before(hub, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "GB free" in said("art/good", download=True)
    assert not hub.got


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./art", "art", "a/b/c", "~nobody/x", "bad\0name", "", "é/ü?"])
def test_a_name_that_is_neither_a_folder_nor_on_the_hub_is_said(name, cache):
    assert "folder" in said(name)


def test_a_folder_of_pickles_is_refused_and_one_with_missing_parts_too(tmp_path, cache):
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    assert "holds no weights" in said(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "pickle" in said(str(tmp_path))
    parts = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(parts))
    (tmp_path / "model-1.safetensors").write_bytes(b"x")
    assert "pickle" in said(str(tmp_path))
    (tmp_path / "pytorch_model.bin").unlink()
    assert "not all of them" in said(str(tmp_path))
    (tmp_path / "model-2.safetensors").write_bytes(b"x")
    assert find_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("config", "words"),
    [('{"model_type": "gpt2"}', "'gpt2'"), ("", "'None'"), ('{"model_type": "blip"}', "can't be loaded")],
)
def test_a_folder_that_is_another_model_or_damaged_is_one_line(tmp_path, config, words):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(BaseModelError, match=words) as error:
        load_captioner("blip", {"model": str(tmp_path)})
    assert "\n" not in str(error.value)
