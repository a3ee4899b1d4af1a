"""The tutorial in README works as it stands there; the same three lines work on other people's models."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach, read_adapter

README = Path(__file__).parents[2] / "README.md"


def test_the_tutorial_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    text = README.read_text(encoding="utf-8")
    code = re.search(r"<!-- tutorial -->\n```python\n(.*?)```", text, re.S).group(1)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    keep = "before = {key: value.clone() for key, value in model.state_dict().items()}\n"
    exec(code.replace("adapter = attach(", keep + "adapter = attach("), names)
    printed = capsys.readouterr().out
    assert "444 / 1,045 (42.49%)" in printed
    losses = [float(value) for value in re.findall(r"loss ([0-9.]+)", printed)]
    assert len(losses) == 10 and losses[-1] < 0.7 * losses[0] and losses == sorted(losses, reverse=True)
    after = names["model"].state_dict()
    assert all(torch.equal(after[key], value) for key, value in names["before"].items())
    assert read_adapter(tmp_path / "perceptron.safetensors").rank == 4


transformers = pytest.importorskip("transformers")


def classifier():
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=3,
        initializer_range=0.2,
    )
    return transformers.BertForSequenceClassification(config), ("query", "value")


def language_model():
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.2,
    )
    return transformers.LlamaForCausalLM(config), ("q_proj", "v_proj", "mlp")


@pytest.mark.parametrize("make", [classifier, language_model])
def test_a_transformers_model_learns_through_its_adapter_alone(make):
    torch.manual_seed(0)
    model, targets = make()
    model.eval()
    ids = torch.randint(1, 60, (8, 12))
    labels = ids if make is language_model else ids[:, 0] % 3
    before = copy.deepcopy(model.state_dict())

    adapter = attach(model, AdapterSpec(rank=4, targets=targets))
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert isinstance(adapter, nn.Module) and sum(p.abs().sum() for n, p in adapter.named_parameters() if n[-1] == "B")
