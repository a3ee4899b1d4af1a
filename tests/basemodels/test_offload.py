"""A base that is fetched block by block draws and trains as one that is there, though what is away can't be used."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup
from PIL import ImageChops

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter
from studio.basemodels import load_base
from studio.generation import draw
from studio.training import config_from, train
from studio.training.events import ExportChecked, Finished
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels.test_training import RECIPE, settings
from tests.basemodels.tiny import MAKERS


@pytest.fixture
def away(monkeypatch):
    """On one device nothing moves; so what is sent away becomes NaN until it is fetched. Gives the groups here, and
    those that were ever fetched.
    """
    here, fetched, kept = set(), set(), {}

    def weights(group):
        modules = [tensor for module in group.modules for tensor in (*module.parameters(), *module.buffers())]
        return [*modules, *group.parameters, *group.buffers]

    def reads_elsewhere(group):
        """A block that is one adapted layer: the adapter has its weight sent to the device by itself."""
        return all(isinstance(module, torch.nn.Linear) for module in group.modules)

    def onload(group):
        here.add(group)
        fetched.add(group)
        for tensor in weights(group):
            if tensor in kept:
                tensor.data = kept.pop(tensor)

    def offload(group):
        here.discard(group)
        for tensor in weights(group):
            if tensor.is_floating_point() and tensor not in kept and not reads_elsewhere(group):
                kept[tensor] = tensor.data
                tensor.data = torch.full_like(tensor.data, torch.nan)

    @contextmanager
    def looked_at():
        """What is away is only elsewhere: it can be read, if not used."""
        poison = {tensor: tensor.data for tensor in kept}
        for tensor, value in kept.items():
            tensor.data = value
        yield
        for tensor, value in poison.items():
            tensor.data = value

    monkeypatch.setattr(ModuleGroup, "onload_", onload)
    monkeypatch.setattr(ModuleGroup, "offload_", offload)
    return SimpleNamespace(groups=here, fetched=fetched, looked_at=looked_at)


def gradients(base, kind, checkpointing, away):
    if checkpointing:
        base.checkpoint_gradients()
    torch.manual_seed(0)
    with away.looked_at():
        adapter = attach(base.model, AdapterSpec(rank=2, kind=kind, targets="all"))
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(0.01 * torch.randn(p.shape))
    x, t = torch.randn(2, base.channels, 8, 8), torch.tensor([100.0, 900.0])
    t = t.long() if base.prediction_type != "flow" else t
    words = {name: value.detach() for name, value in base.encode_prompt(["red", "blue"]).items()}
    found = []
    for _ in range(2):
        base.predict(x, t, words).square().sum().backward()
        found.append([p.grad.clone() for p in adapter.parameters()])
    adapter.detach()
    return found


@pytest.mark.full
@pytest.mark.parametrize("name", tiers.default(MAKERS, "sdxl", "flux-dev"))
def test_an_offloaded_base_draws_the_same(bases, folders, tmp_path, name, away):
    base = load_base(f"{folders(name)}?offload=true", shared=False)
    assert not away.groups
    assert ImageChops.difference(draw(base, RECIPE), draw(bases(name), RECIPE)).getbbox() is None
    assert len(away.fetched) > 1  # more than the parts outside of blocks
    torch.manual_seed(0)
    made = attach(bases(name).model, AdapterSpec(rank=2), "a")
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.1)
    made.save(tmp_path / "a.safetensors")
    made.detach()
    images = []
    for one in (base, bases(name)):
        attached = attach_file(read_adapter(tmp_path / "a.safetensors"), one.modules())
        images.append(draw(one, RECIPE))
        attached.detach()
    assert max(high for _, high in ImageChops.difference(*images).getextrema()) <= 2  # one beside, one merged


@pytest.mark.parametrize(
    "name, kind, checkpointing",
    [
        ("sdxl", "lora", True),
        ("flux-dev", "dora", False),
        *(tiers.in_full(name, "lora", True) for name in MAKERS if name != "sdxl"),
        *(
            tiers.in_full(*how)
            for how in (("flux-dev", "lora", False), ("sdxl", "lora", False), ("sdxl", "dora", False))
        ),
    ],
)
def test_an_offloaded_base_gives_the_same_gradients(folders, name, kind, checkpointing, away):
    wanted = gradients(load_base(str(folders(name)), shared=False), kind, checkpointing, away)
    base = load_base(f"{folders(name)}?offload=true", shared=False)
    found = gradients(base, kind, checkpointing, away)
    for ours, theirs in zip(found, wanted):
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ours, theirs))
    assert len(away.groups) <= 2 < len(away.fetched)  # the parts outside of blocks, and the block that came last


@pytest.mark.parametrize("name", tiers.default(["sd1", "flux-dev"]))
def test_a_whole_run_goes_on_an_offloaded_base(folders, image, tmp_path, name):
    config = settings(f"{folders(name)}?offload=true", image, **{"training.steps": 3, "training.warmup": 1})
    events = list(train(config_from(config), Workspace.open(tmp_path)))
    proof = next(event for event in events if isinstance(event, ExportChecked))
    assert isinstance(events[-1], Finished) and proof.difference < 1 and not proof.unused
