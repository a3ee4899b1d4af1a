"""The three lines of README's tutorial work on the models of other libraries."""

import copy

import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach

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
