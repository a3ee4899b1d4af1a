"""Prompts are read as A1111 reads them, and weights and length reach the text encoder."""

import numpy as np
import pytest
import torch

from studio.basemodels import load_base
from studio.errors import GenerationError
from studio.generation import Recipe, generate
from studio.generation.foreign_text import adapter_tag
from studio.generation.prompts import MAX_CHUNKS, parse, read_prompt
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
        ("(x [y:1.3)", [("x ", 1.3), ("y", 1.181818)]),  # each kind of bracket has its own stack
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 0.909091)]),
        ("[a (b] c)", [("a ", 0.909091), ("b", 1.0), (" c", 1.1)]),
        ("one BREAK two", [("one", 1.0), ("BREAK", -1.0), ("two", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_brackets_weigh_as_in_a1111(prompt, parts):
    assert parse(prompt) == parts


@pytest.mark.parametrize(
    ("tag", "text", "unet"),  # strengths on the text encoder and the rest, by A1111's extra_networks_lora
    [
        ("<lora:ink>", 1, 1),
        ("<lora:ink:0.8>", 0.8, 0.8),
        ("<lora:ink:0:1>", 0, 1),
        ("<lora:ink:0.5:0.8>", 0.5, 0.8),
        ("<lora:ink:te=0:unet=1>", 0, 1),
        ("<lora:ink:unet=1:te=0>", 0, 1),
        ("<lora:ink:te=0.5>", 0.5, 0.5),
        ("<lora:ink:unet=0.5>", 1, 0.5),
        ("<lora:ink:0.3:0.4:te=0.5>", 0.5, 0.4),
        ("<lora:ink:0.3:te=0.5>", 0.5, 0.5),
        ("<LORA:ink: .5 >", 0.5, 0.5),
        ("<lyco:ink:-1>", -1, -1),
        ("<lora:ink:1e0>", 1, 1),
    ],
)
def test_strengths_are_those_of_a1111(tag, text, unet):
    found = read_prompt(f"a cat {tag}, blue")
    (adapter,) = found.adapters
    assert found.text == "a cat , blue" and not found.problems and not found.errors and adapter.name == "ink"
    assert (adapter.strength if adapter.text_strength is None else adapter.text_strength, adapter.strength) == (
        text,
        unet,
    )
    assert read_prompt(adapter_tag(adapter)).adapters == (adapter,)


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("<lora:ink:0.8:dyn=16>", "dynamic rank"),
        ("<lora:ink:1:1:16>", "dynamic rank"),
        ("<lora:ink:1:lbw=" + ",".join("1" * 26) + ">", "block weights (lbw)"),
        ("<lora:ink:1:lbw=MIDD>", "(lbw)"),
        ("<lora:ink:1,5>", "1,5 was read as 1.5"),
        ("<lora:ink:1:step=0-20>", "step=0-20 has no effect"),
        ("<lora:ink:1:1:16:7>", "7 has no effect"),
        ("<hypernet:ink:1>", "is not supported"),
    ],
)
def test_what_has_no_effect_in_a_tag_is_said_and_the_rest_is_taken(tag, said):
    found = read_prompt(f"a cat {tag}")
    assert found.text == "a cat" and not found.errors and any(said in line for line in found.problems)
    assert [one.name for one in found.adapters] == ["ink"] * (not tag.startswith("<hyper"))


@pytest.mark.parametrize(
    "tag",
    [
        "<lora:ink:15>",
        "<lora:ink:-10.1>",
        "<lora:ink:x>",
        "<lora:ink:nan>",
        "<lora::1>",
        "<lora:ink:te=>",
        "<lora:ink:1,5,2>",
        "<lora:ink:0x1>",
    ],
)
def test_a_tag_that_can_not_be_read_is_an_error(tag):
    found = read_prompt(f"a cat {tag}")
    assert found.text == "a cat" and not found.adapters and len(found.errors) == 1
    with pytest.raises(GenerationError, match="^<lora:"):
        found.refuse()


def test_adapters_in_a_negative_prompt_are_said():
    found = read_prompt("fog <lora:ink:1>", negative=True)
    assert found.text == "fog" and not found.adapters and "negative prompt" in found.problems[0]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("[cat:dog:0.5]", "prompt editing"),
        ("a [cat::5]", "prompt editing"),
        ("[cat:0.5]", "prompt editing"),
        ("[a:[b:c:0.2]:0.5]", "prompt editing"),
        ("[cat|dog]", "alternation"),
        ("a cat AND a dog", "composable"),
        ("{a|b} cat", "wildcards"),
        ("a __color__ cat", "a wildcard"),
        ("{{masterpiece}}, cat", "NovelAI"),
        ("embedding:bad, cat", "embedding"),
        ('("a", "b").and()', "Compel"),
        ("a (cat)++", "Compel"),
        ("cat++, a", "Compel"),
        ("a <lora:ink:1", "no adapter tag"),
        ("lora:ink:1> a", "no adapter tag"),
        ("a ＜lora:ink:1＞", "no adapter tag"),
        ("<lora：ink：1>", "no adapter tag"),
        ("a < lyco : ink : 1 >", "no adapter tag"),
    ],
)
def test_syntax_of_other_programs_is_named(prompt, said):
    assert [said in line for line in read_prompt(prompt).problems] == [True]


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat, 1:2, well-known, [blue] (red:1.2), a:b [c:d]",
        r"\[cat:dog:0.5\] \(a\)",
        "BRAND ANDES and",
        "C++-like",
        "a -- b",
        "5 > 3: yes",
        "<b>",
        "one BREAK two",
        "snake_case __init",
        "R&D AND",
    ],
)
def test_plain_text_is_not_complained_of(prompt):
    found = read_prompt(prompt)
    assert not found.problems and not found.errors and found.text == prompt


def test_the_number_of_chunks_is_bounded_in_one_sentence(monkeypatch):
    assert read_prompt("cat BREAK " * 60).errors == ()
    assert "661 chunks" in read_prompt("BREAK " * 660).errors[0]
    base = load_base()
    monkeypatch.setattr(base, "encode_parts", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(GenerationError, match=f"chunks of tokens, and {MAX_CHUNKS} are the most"):
        generate(Recipe(prompt="BREAK " * 660, steps=1))


def test_python_is_told_of_adapters_that_only_a_prompt_names():
    with pytest.raises(GenerationError, match="names the adapter 'ink'"):
        generate(Recipe(prompt="red apple <lora:ink:1>", steps=1))


def test_hostile_prompts_end_in_finite_weights():
    for prompt in ("(" * 50_000, "(" * 20_000 + "x" + ")" * 20_000, "[(x:9e99)" * 5000, "(x:0)" * 5000, "\\" * 50_001):
        assert all(np.isfinite(part.weight) and abs(part.weight) <= 10 for part in parse(prompt))
        read_prompt(prompt + "<lora:" * 20_000)


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
        plain, _ = base.pipeline.encode_prompt(prompt, base.device, 1, False)
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
