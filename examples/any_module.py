"""LoRA on any torch module: a text classifier and a small language model.

    python examples/any_module.py [--steps 60]

Both models are tiny, with random weights, so that nothing is downloaded. For a pretrained one, put
`AutoModelForSequenceClassification.from_pretrained(...)` or `AutoModelForCausalLM.from_pretrained(...)` in their place:
nothing else changes.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.2}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 2}


def classifier() -> tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]:
    """(model, batch, target modules). The class to learn is the first token modulo 3. input_ids: (8, 12) int64."""
    model = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()
    ids = torch.randint(1, 60, (8, 12))
    return model, {"input_ids": ids, "labels": ids[:, 0] % 3}, ("query", "value")


def language_model() -> tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]:
    """(model, batch, target modules). The text to learn is the batch itself. input_ids: (8, 12) int64."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    ids = torch.randint(1, 60, (8, 12))
    return model, {"input_ids": ids, "labels": ids}, ("q_proj", "v_proj", "mlp")


def learn(model: nn.Module, batch: dict[str, Tensor], targets: tuple[str, ...], steps: int, file: Path) -> None:
    """Train an adapter, save it, take it off, and put the saved one back."""
    before = model(**batch).loss.item()
    adapter = attach(model, AdapterSpec(rank=4, targets=targets))  # targets: regular expressions on layer names
    print(f"{type(model).__name__}: {adapter.summary()} trainable")
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.03)
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapter.eval()
    with torch.no_grad():
        after = model(**batch).loss.item()
        adapter.strength = 0
        assert model(**batch).loss.item() == before  # exactly the base model
    adapter.save(file)
    adapter.detach()

    again = attach_file(read_adapter(file), {"unet": model})  # "unet" is the component that save() names by default
    with torch.no_grad():
        loaded = model(**batch).loss.item()
    print(f"  loss {before:.3f} -> {after:.3f}; from the file {loaded:.3f}; {again.report}")
    again.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for make in (classifier, language_model):
            learn(*make(), steps, Path(folder) / f"{make.__name__}.safetensors")


if __name__ == "__main__":
    main()
