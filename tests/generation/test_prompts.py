"""Prompts are read as A1111 reads them, and weights and length reach the text encoder."""

import numpy as np
import pytest
import torch

from studio.basemodels import load_base
from studio.generation.prompts import parse, take_adapters
from tests.operations import growth


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red apple", [("a red apple", 1.0)]),
        ("a (red) apple", [("a ", 1.0), ("red", 1.1), (" apple", 1.0)]),
        ("a ((red))", [("a ", 1.0), ("red", 1.21)]),
        ("a [red]", [("a ", 1.0), ("red", 0.909091)]),
        ("(red:1.5) [(blue:0.5)]", [("red", 1.5), (" ", 1.0), ("blue", 0.454545)]),
        (r"\(red\) \\", [("(red) \\", 1.0)]),
        ("red) (blue", [("red) ", 1.0), ("blue", 1.1)]),  # an open bracket counts to the end, a stray one is itself
        ("a: b", [("a: b", 1.0)]),
        ("one BREAK two", [("one", 1.0), ("BREAK", -1.0), ("two", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_brackets_weigh_as_in_a1111(prompt, parts):
    assert parse(prompt) == parts


def test_adapters_are_taken_out_of_the_prompt():
    prompt, named = take_adapters("a cat <lora:ink:0.8:0.2>, <lora:my file> blue <LORA:x:abc>")
    assert prompt == "a cat ,  blue"
    assert [(one.name, one.strength, one.text_strength) for one in named] == [
        ("ink", 0.8, 0.2), ("my file", 1.0, None), ("x", 1.0, None),
    ]  # fmt: skip


def test_hostile_prompts_end_in_finite_weights():
    for prompt in ("(" * 50_000, "(" * 20_000 + "x" + ")" * 20_000, "[(x:9e99)" * 5000, "(x:0)" * 5000, "\\" * 50_001):
        assert all(np.isfinite(part.weight) and abs(part.weight) <= 10 for part in parse(prompt))
        take_adapters(prompt + "<lora:" * 20_000)


@pytest.mark.parametrize("piece", ["(", "[(x:9e99)", "(x:0)", "\\", "a)"])
def test_the_work_grows_with_the_length_of_a_prompt(piece):
    assert growth(parse, piece * 500, piece * 1000) < 2.5


def test_the_work_grows_with_the_depth_of_brackets():
    small, double = ("(" * n + "x" + ")" * n for n in (500, 1000))
    assert growth(parse, small, double) < 2.5


@pytest.fixture(scope="module")
def base():
    return load_base("starter")


def test_a_plain_prompt_is_encoded_as_the_pipeline_does(base):
    for prompt in ("red apple, on a blue background", "", "x " * 70):
        plain = base.encode_prompt([prompt])["states"]
        assert torch.equal(base.encode_parts([parse(prompt)])["states"], plain)


def test_weights_multiply_the_states_and_keep_their_mean(base):
    words, plain = parse("red (apple:1.5)"), base.encode_parts([parse("red apple")])["states"]
    found = base.encode_parts([words])["states"]
    ids = [len(base.pipeline.tokenizer(text, add_special_tokens=False).input_ids) for text, _ in words]
    factors = torch.ones(77)
    factors[1 + ids[0] : 1 + sum(ids)] = 1.5
    wanted = plain * factors[None, :, None]
    wanted *= plain.mean() / wanted.mean()
    assert torch.allclose(found, wanted, atol=1e-5)


def test_clip_skip_takes_the_layer_before_and_the_final_norm(base):
    seen = {}
    encoder = base.pipeline.text_encoder
    layers = [module for name, module in encoder.named_modules() if name.split(".")[-2:-1] == ["layers"]]
    hook = layers[-2].register_forward_hook(
        lambda module, given, answer: seen.update(states=answer if torch.is_tensor(answer) else answer[0])
    )
    found = base.encode_parts([parse("red apple")], clip_skip=2)["states"]
    hook.remove()
    norm = next(module for name, module in encoder.named_modules() if name.endswith("final_layer_norm"))
    assert torch.allclose(found, norm(seen["states"]), atol=1e-6)
    assert not torch.allclose(found, base.encode_parts([parse("red apple")])["states"], atol=1e-2)


def test_a_long_prompt_is_read_to_its_end(base):
    start = "red apple, " * 30
    one, other = (parse(start + end) for end in ("blue", "green"))
    chunks = base.chunks(one)
    assert chunks == 2
    first, second = (base.encode_parts([parts], chunks=chunks)["states"] for parts in (one, other))
    assert first.shape[1] == 154 and torch.equal(first[:, :77], second[:, :77])
    assert not torch.allclose(first[:, 77:], second[:, 77:])
