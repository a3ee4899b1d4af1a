"""Merging into a checkpoint and extracting a LoRA, as operations: jobs with progress, stop, notes and a place."""

import pytest
from safetensors.torch import load_file

from studio.adapters import AdapterSpec, attach, read_adapter
from studio.basemodels import load_base
from studio.cli.main import main
from studio.errors import AdapterError, NotAllowedError
from studio.server.permissions import VISITED
from studio.services import base_models, checkpoints
from studio.workspace import Workspace
from tests.basemodels import tiny


@pytest.fixture
def space(tmp_path):
    """A workspace whose list holds a tiny base, and an adapter that was made for it."""
    workspace = Workspace.open(tmp_path / "w")
    folder = tiny.save("sd1", tmp_path)
    line = base_models.line_from(workspace, str(folder), {})
    adapter = attach(load_base(line).modules()["unet"], AdapterSpec(rank=2))
    for _, layer, _ in adapter.items():
        layer.B.data.fill_(0.1)
    adapter.save(workspace.adapters / "ink.safetensors")
    adapter.detach()
    return workspace, base_models.remember(workspace, line)


def ended(job):
    job.thread.join()
    assert job.state == "done", job.error
    return job


def test_a_checkpoint_is_made_listed_and_a_lora_extracted_from_it(space):
    workspace, base = space
    used = [{"file": "ink.safetensors", "strength": 0.5}]
    job = ended(checkpoints.merge_into_checkpoint(workspace, used, base, "mine", "fp16"))
    made = job.result
    assert made.checkpoint == "mine" and (workspace.exports / "mine" / "model_index.json").is_file()
    assert job.message.splitlines()[-1] == "It stands on the list of base models as mine."
    weights = load_file(next((workspace.exports / "mine" / "unet").glob("*.safetensors")))
    assert {str(one.dtype) for one in weights.values()} == {"torch.float16"}
    job = ended(checkpoints.extract_lora(workspace, "mine", base, rank=4))
    assert job.result.key == "file:mine-lora.safetensors"
    first, second, *_ = job.message.splitlines()
    assert "it lacks" in first and second.startswith("Largest errors: unet.")
    assert read_adapter(workspace.adapters / "mine-lora.safetensors").metadata["studio.extracted_from"] == "mine"


def test_what_can_t_be_is_refused_before_a_job(space):
    workspace, base = space
    with pytest.raises(AdapterError, match="nothing to merge"):
        checkpoints.merge_into_checkpoint(workspace, [], base)
    visitor = Workspace(workspace.root, VISITED)
    with pytest.raises(NotAllowedError):
        checkpoints.merge_into_checkpoint(visitor, [{"file": "ink.safetensors"}])
    with pytest.raises(NotAllowedError):
        checkpoints.extract_lora(visitor, "mine")


def test_stop_leaves_no_file(space, monkeypatch):
    workspace, base = space
    from studio.basemodels import extraction

    def slow(*args):
        jobs.append(1)
        job.stop_event.set()
        return cut(*args)

    cut, jobs = extraction._cut, []
    monkeypatch.setattr(extraction, "_cut", slow)
    merged = ended(checkpoints.merge_into_checkpoint(workspace, [{"file": "ink.safetensors"}], base, "mine"))
    assert merged.result.checkpoint
    job = checkpoints.extract_lora(workspace, "mine", base)
    job.thread.join()
    assert job.state == "stopped" and len(jobs) == 1
    assert [path.name for path in workspace.adapters.iterdir()] == ["ink.safetensors"]


def test_the_commands(space, tmp_path, capsys):
    workspace, base = space
    line = base_models.line_of(workspace, base)
    root = ["--workspace", str(workspace.root)]
    assert main([*root, "merge-checkpoint", "ink:0.5", str(tmp_path / "new"), "--base", line]) == 0
    assert main([*root, "extract", str(tmp_path / "new"), str(tmp_path / "x.safetensors"), "--base", line]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "new"), str(tmp_path / "x.safetensors")]
    assert main([*root, "merge-checkpoint", "ink", str(tmp_path / "new"), "--base", line]) == 2
    assert "is there already" in capsys.readouterr().err
