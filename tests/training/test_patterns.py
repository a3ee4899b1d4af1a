"""Layers by pattern: rank, alpha and learning rate of their own, by the first line that fits."""

import re

import pytest
import torch

from studio.adapters import AdapterSpec
from studio.basemodels import load_base
from studio.basemodels.skeleton import skeleton
from studio.errors import ConfigError, NotAllowedError
from studio.server.permissions import OWN, VISITED
from studio.training import config_from
from studio.training.config import dotted
from studio.training.distributed import Distributed
from studio.training.parameter_count import caught, parameter_line
from studio.training.patterns import parse
from studio.training.train_step import TrainStep
from tests import tiers
from tests.basemodels import tiny

LINES = [r"attn2\.to_(k|v)$ rank=0", r"down_blocks.*attn2 rank=6 alpha=3 lr=5e-5", "attn1 rank=2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(str(tiny.save("sd1", tmp_path_factory.mktemp("base"))), shared=False)


def settings(lines, **more):
    usual = {"data.folder": "x", "name": "x", "adapter.rank": 4, "adapter.alpha": 2, "adapter.targets": "attention"}
    return config_from(usual | {"training.learning_rate": 1e-3, "adapter.patterns": lines} | more)


def expected(path):
    """(rank, alpha, rate) by the documented rule, without the code that is tested; None: not trained."""
    if re.search(r"attn2\.to_[kv]$", path):
        return None
    if path.startswith("down_blocks") and "attn2" in path:
        return 6, 3.0, 5e-5
    if "attn1" in path:
        return 2, 1.0, 1e-3
    return 4, 2.0, 1e-3


@pytest.fixture
def begun(base):
    """begun(config): the adapters of its first step, detached afterwards."""
    steps = []

    def begin(config):
        steps.append(TrainStep(config, base, Distributed()))
        return steps[-1]

    yield begin
    for step in steps:
        for adapter in step.adapters.values():
            adapter.detach()


@pytest.mark.parametrize("targets", ["attention", "patterns"])
def test_each_layer_has_what_its_first_line_says(base, begun, targets):
    step = begun(settings(LINES, **{"adapter.targets": targets}))
    updates = {path: update for (_, path), update in step.adapters["unet"].updates.items()}
    rates = {id(p): group["peak"] for group in step.optimizer.param_groups for p in group["params"]}
    attention = [path for path, _ in base.model.named_modules() if re.search(r"attn\d\.to_(q|k|v|out\.0)$", path)]
    wanted = {path: expected(path) for path in attention}
    if targets == "patterns":
        wanted = {path: one for path, one in wanted.items() if one and one[0] != 4}
    wanted = {path: one for path, one in wanted.items() if one}
    assert updates.keys() == wanted.keys() and len({one for one in wanted.values()}) == (
        2 if targets == "patterns" else 3
    )
    for (_, path), layer in step.adapters["unet"]._layers.items():
        rank, alpha, rate = wanted[path]
        assert (updates[path].rank, updates[path].alpha) == (rank, alpha)
        assert {rates[id(p)] for p in layer.parameters()} == {rate}


@pytest.mark.full
def test_a_line_without_numbers_and_none_at_all_change_nothing(begun):
    plain, named = (begun(settings(lines)) for lines in ([], ["attn"]))
    assert plain.adapters["unet"].updates.keys() == named.adapters["unet"].updates.keys()
    groups = [[(len(g["params"]), g["lr"]) for g in step.optimizer.param_groups] for step in (plain, named)]
    assert groups[0] == groups[1]


def test_what_each_line_catches_is_counted_and_nothing_is_said_aloud(base, begun):
    config = settings([*LINES, "nowhere rank=3"], **{"adapter.targets": "patterns"})
    found = caught(config.adapter, type(base), skeleton(str(base.folder)))
    step = begun(config)
    by_rank = {}
    for update in step.adapters["unet"].updates.values():
        layers, numbers = by_rank.get(update.rank, (0, 0))
        by_rank[update.rank] = layers + 1, numbers + sum(tensor.numel() for tensor in update.parts.values())
    assert found[LINES[1].split()[0]] == by_rank[6] and found["attn1"] == by_rank[2]
    assert found[LINES[0].split()[0]][0] > 0 and found[LINES[0].split()[0]][1] == 0 and found["nowhere"] == (0, 0)
    assert any("nowhere fits no layer" in note for note in step.notes) and len(step.notes) == 1
    line = parameter_line(config.adapter, str(base.folder))
    assert f"attn1: {by_rank[2][0]} layers" in line and "layers left out" in line and "nowhere: 0 layers" in line


def test_a_toml_file_and_a_flag_hold_them(tmp_path):
    from studio.training import config_from_toml, config_to_toml

    config = settings(LINES)
    (tmp_path / "run.toml").write_text(config_to_toml(config))
    assert config_from_toml(tmp_path / "run.toml") == config and dotted(config)["adapter.patterns"] == LINES


@pytest.mark.parametrize(
    ("lines", "more", "part"),
    [
        (["attn( rank=4"], {}, "is not a regular expression"),
        (["attn rank=four"], {}, "holds no number"),
        (["attn rank=1.5"], {}, "whole number from 0 to 256"),
        (["attn colour=4"], {}, "is not rank=, alpha= or lr="),
        (["attn lr=0"], {}, "must be above 0"),
        (["attn", "attn rank=3"], {}, "stands there twice"),
        (["attn rank=0"], {"adapter.targets": "patterns"}, "needs a line in adapter.patterns"),
        (["attn lr=1e-4"], {"training.optimizer": "prodigy"}, "prodigy finds one rate"),
        (["a"] * 51, {}, "at most 50"),
    ],
)
def test_a_wrong_line_is_one_sentence(lines, more, part):
    with pytest.raises(ConfigError, match=part) as error:
        settings(lines, **more)
    assert "\n" not in str(error.value)


def test_visitors_name_no_patterns():
    values = dotted(settings(LINES, **{"training.steps": 10, "base": "starter"}))
    OWN.check_run(values)
    with pytest.raises(NotAllowedError, match="by patterns"):
        VISITED.check_run(values)
    VISITED.check_run(values | {"adapter.patterns": []})


def test_a_line_may_hold_any_number_of_spaces():
    assert parse("  attn2   rank=8  ") == parse("attn2 rank=8")


def test_a_table_says_what_each_line_catches(base, begun, tmp_path):
    from studio.services import base_models
    from studio.workspace import Workspace

    workspace = Workspace.open(tmp_path)
    name = base_models.remember(workspace, str(base.folder))
    config = settings(LINES, **{"adapter.alpha": 2})
    *lines, rest, together = base_models.layer_table(
        workspace, name, {"targets": "attention", "rank": 4, "patterns": LINES}
    )
    updates = begun(config).adapters["unet"].updates.values()
    assert [row.line for row in lines] == LINES and lines[0].layers > 0 == lines[0].parameters
    assert rest.line == "adapter.targets = attention" and rest.layers == sum(u.rank == 4 for u in updates)
    assert together.layers == len(updates)
    assert together.parameters == sum(t.numel() for update in updates for t in update.parts.values())
    assert rest.parameters + sum(row.parameters for row in lines) == together.parameters


@pytest.mark.parametrize("name", tiers.default(["sd1", "flux-dev", "sd3"], "sd1", "flux-dev"))
def test_no_text_leaves_out_what_is_fed_the_prompt(tmp_path, name):
    """Seen by what goes into each layer: as many rows as the prompt has, where an image has another count."""
    base = load_base(str(tiny.save(name, tmp_path)), shared=False)
    conditions = base.encode_prompt(["red apple"])
    lengths = {value.shape[1] for value in conditions.values() if value.ndim == 3}
    fed = {}
    for path, layer in base.model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, given, path=path: fed.update({path: given[0].shape}))
    noisy = torch.randn(1, *base.latent_shape(64, 64))
    base.predict(noisy, torch.tensor([500.0 if base.prediction_type == "flow" else 500]), conditions)
    reads = {path for path, shape in fed.items() if len(shape) == 3 and shape[1] in lengths}
    spec = AdapterSpec(targets="no-text")
    assert reads and not any(map(spec.wants, reads)), sorted(filter(spec.wants, reads))
    kept = {path for path in fed if spec.wants(path)}
    assert any("attn1.to_q" in path or "attn.to_q" in path or "attention.to_q" in path for path in kept)
    if name == "sd1":
        assert fed.keys() - kept == {path for path in fed if ".attn2." in path}


def test_blocks_of_sdxl_are_named_and_refused_elsewhere(base, begun):
    from studio.training.effects import refuse

    config = settings([], **{"adapter.targets": "sdxl-style"})
    with pytest.raises(ConfigError, match="SDXL"):
        refuse(config, base)
    with pytest.raises(ConfigError, match="set adapter.text_encoder to false"):
        settings([], **{"adapter.targets": "no-text", "adapter.text_encoder": True})
    assert not AdapterSpec(targets="no-text").wants("context_refiner.0.attention.to_q")  # Z-Image
    for target, block in (("sdxl-style", "1"), ("sdxl-content", "0")):
        spec = AdapterSpec(targets=target)
        assert spec.wants(f"up_blocks.0.attentions.{block}.proj_in")
        assert not spec.wants(f"down_blocks.2.up_blocks.0.attentions.{block}.proj_in")
