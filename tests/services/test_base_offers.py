"""An adapter for another base offers that base, and comes back at its last strength."""

import pytest

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.generation import AppliedAdapter
from studio.services import adapter_strengths, base_models, base_offers
from studio.services.adapter_files import add_adapter_file
from studio.services.base_offers import ADD, FETCH, USE, BaseOffer, base_offer
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def dropped(workspace, tmp_path, **metadata) -> str:
    attach(load_base(shared=False).model, AdapterSpec(rank=2)).save(tmp_path / "ink.safetensors", metadata=metadata)
    return add_adapter_file(workspace, tmp_path / "ink.safetensors")


def test_a_base_of_the_list_that_fits_is_offered(workspace, tmp_path, small_starter, monkeypatch):
    key = dropped(workspace, tmp_path)
    listed = [("Other", "other"), ("Starter (built in)", "starter")]
    monkeypatch.setattr(base_models, "base_choices", lambda workspace: listed)
    assert base_offer(workspace, key, "other") == BaseOffer(USE, "starter")
    assert base_offers.take(workspace, BaseOffer(USE, "starter")) == "starter"
    monkeypatch.setattr(base_models, "base_choices", lambda workspace: listed[:1])
    assert base_offer(workspace, key, "other") is None  # nothing is known to fit


@pytest.mark.parametrize(("missing", "kind"), [(True, FETCH), (False, ADD)])
def test_the_base_that_a_file_names_is_fetched_or_added(workspace, tmp_path, small_starter, monkeypatch, missing, kind):
    key = dropped(workspace, tmp_path, **{"studio.base": "owner/a-model"})
    monkeypatch.setattr(base_models, "base_choices", lambda workspace: [])
    monkeypatch.setattr(base_models, "can_be_fetched", lambda line: missing)
    offer = base_offer(workspace, key, "other")
    assert offer == BaseOffer(kind, "owner/a-model") and "owner/a-model" in offer.text


def test_an_adapter_comes_back_at_its_last_strength(workspace, tmp_path, small_starter):
    key = dropped(workspace, tmp_path)
    assert adapter_strengths.strength_of(workspace, key) == 1.0
    adapter_strengths.remember(workspace, [AppliedAdapter(file=tmp_path / "ink.safetensors", strength=0.4)])
    assert adapter_strengths.strength_of(workspace, key) == 0.4  # by content: this is the copy of the workspace
    (workspace.cache / "strengths.json").write_text("[1")
    assert adapter_strengths.strength_of(workspace, key) == 1.0
