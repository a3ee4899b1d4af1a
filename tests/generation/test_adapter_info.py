"""What a row says of a file, whatever wrote it and whatever it claims."""

import gc
import json
import weakref

import pytest
import torch

from studio.adapters import AdapterSpec, attach, read_outline
from studio.basemodels import load_base
from studio.errors import AdapterError
from studio.generation import adapter_info
from studio.generation.adapter_info import read_adapter_info, trigger_words
from studio.workspace import ASSETS


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("facts") / "one.safetensors"
    adapter = attach(load_base(shared=False).model, AdapterSpec(rank=4, alpha=4))
    adapter.save(path, metadata={"studio.trigger": "inkling"})
    return path


def test_kind_rank_words_and_fit(file):
    info = read_adapter_info(file, load_base().modules())
    assert info.matched == info.layers > 0
    assert info.words == ("inkling",)
    assert "rank 4" in info.line and f"{info.layers} of {info.layers} layers fit" in info.line


def test_a_file_for_another_base_says_so_and_nothing_else(tmp_path):
    file = tmp_path / "starter.safetensors"
    attach(load_base(str(ASSETS / "starter"), shared=False).model, AdapterSpec(rank=1)).save(file)
    other = {"unet": torch.nn.Sequential(torch.nn.Linear(3, 3))}
    assert read_adapter_info(file, other).line.startswith("made for LoRA Studio starter: none of its")


def test_of_noted_tags_only_what_stands_everywhere_and_is_no_ordinary_word_is_a_trigger():
    tags = {"10_a": {"ohwx": 12, "zsk man": 11, "on a red background": 12, "1girl": 12, "long hair": 12, "qwfp": 3}}
    assert trigger_words({"ss_tag_frequency": json.dumps(tags)}) == ("ohwx", "zsk man")
    assert trigger_words({"ss_tag_frequency": json.dumps({"a": {"cat": 9, "on a cyan background": 9}})}) == ()


@pytest.mark.parametrize("text", ["[", "[]", "3", '{"a": 3}', '{"a": {"b": "c"}}', "[" * 100_000, '{"a": [1]}'])
def test_broken_tags_are_no_words(text):
    assert trigger_words({"ss_tag_frequency": text}) == ()


def test_a_file_that_is_gone_is_said(tmp_path):
    with pytest.raises(AdapterError, match="no adapter file"):
        read_adapter_info(tmp_path / "none.safetensors")


def test_a_base_that_lies_where_another_lay_is_compared_anew(file, monkeypatch):
    """`id` as if memory were used again at once, which it is when a base makes room for the next."""
    fits = load_base().modules()
    monkeypatch.setattr(adapter_info, "id", lambda thing: 1, raising=False)
    assert read_adapter_info(file, {"unet": torch.nn.Linear(3, 3)}).matched == 0
    assert read_adapter_info(file, {"unet": fits["unet"]}).matched > 0


def test_what_is_remembered_of_a_base_holds_none_in_memory(file, monkeypatch):
    known = {"unet": torch.nn.Linear(3, 3)}
    read = []
    monkeypatch.setattr(adapter_info, "read_outline", lambda path: read.append(path) or read_outline(path))
    assert read_adapter_info(file, known) is read_adapter_info(file, known) and len(read) == 1
    gone = weakref.ref(known.pop("unet"))
    gc.collect()
    assert gone() is None
