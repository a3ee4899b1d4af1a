"""The Python snippets marked as tutorials, in README and on the pages, run as they stand there."""

import re
from pathlib import Path

import pytest
import torch

from studio.adapters import read_adapter

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "docs" / "adapters-library.md"
_TUTORIAL = re.compile(r"<!-- tutorial -->\n```python\n(.*?)```", re.DOTALL)


def tutorials(page: Path) -> list[str]:
    return _TUTORIAL.findall(page.read_text("utf-8"))


@pytest.mark.parametrize("page", [ROOT / "README.md", LIBRARY], ids=["README", "library"])
def test_the_tutorial_trains_and_leaves_the_model_as_it_was(page, tmp_path, monkeypatch, capsys):
    code = tutorials(page)[0]
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    keep = "before = {key: value.clone() for key, value in model.state_dict().items()}\n"
    assert "\nadapter = attach(" in code
    exec(code.replace("\nadapter = attach(", f"\n{keep}adapter = attach("), names)
    printed = capsys.readouterr().out
    assert "444 / 1,045 (42.49%)" in printed
    losses = [float(value) for value in re.findall(r"loss ([0-9.]+)", printed)]
    assert len(losses) == 10 and losses[-1] < 0.7 * losses[0] and losses == sorted(losses, reverse=True)
    after = names["model"].state_dict()
    assert all(torch.equal(after[key], value) for key, value in names["before"].items())
    assert read_adapter(tmp_path / "perceptron.safetensors").rank == 4


def test_the_loading_tutorial_prints_what_it_says(tmp_path, monkeypatch, capsys):
    code = tutorials(LIBRARY)[1]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    said = re.search(r"print\(adapter\.report\)  # (.+)", code)
    assert said and said[1] in capsys.readouterr().out.splitlines()
