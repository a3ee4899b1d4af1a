"""What was deleted on the page: it takes room that is told, goes for good when told to, and is then not offered."""

import pytest
from PIL import Image

from studio.errors import StudioError
from studio.generation import Recipe, save_picture
from studio.ui import actions_about, actions_all_runs, actions_history, actions_shelf
from studio.workspace import Workspace, size_of


@pytest.fixture
def workspace(tmp_path):
    """Two pictures, two adapters and two runs, of which one each was deleted."""
    workspace = Workspace.open(tmp_path / "workspace")
    pictures = [save_picture(Image.new("RGB", (16, 16)), Recipe(prompt=one), workspace.outputs) for one in "ab"]
    for name in ("old", "new"):
        (workspace.adapters / f"{name}.safetensors").write_bytes(b"x" * 3000)
        (workspace.runs / name).mkdir()
        (workspace.runs / name / "run.toml").write_text(f'name = "{name}"\n')
    actions_history.remove(workspace, pictures[0].name)
    actions_shelf.remove(workspace, "file:old.safetensors")
    actions_all_runs.throw_away(workspace, ["old"])
    return workspace


def test_it_is_counted_apart_from_the_folders_that_it_lies_in(workspace):
    found = actions_about.set_aside(workspace)
    assert found.counts == {"picture": 1, "adapter": 1, "run": 1}
    job = actions_about.start_report(workspace)
    job.wait()
    sizes = job.result.sizes
    assert sizes[actions_about.ASIDE] == found.size > 3000 and sizes["adapters"] == 3000
    assert sum(sizes.values()) == size_of(workspace.root)


def test_emptying_the_bin_frees_its_bytes_touches_nothing_else_and_leaves_nothing_to_put_back(workspace):
    stamp, aside = actions_all_runs.list_stamp(workspace), actions_about.set_aside(workspace)
    before = size_of(workspace.root)
    assert actions_about.empty_bin(workspace) == aside.size == before - size_of(workspace.root)
    assert actions_about.set_aside(workspace) == ({"picture": 0, "adapter": 0, "run": 0}, 0)
    assert len(actions_history.newest_files(workspace)) == 1 and (workspace.adapters / "new.safetensors").is_file()
    assert (workspace.runs / "new" / "run.toml").is_file()
    assert not actions_history.removed(workspace) and not actions_all_runs.in_the_bin(workspace)
    assert actions_all_runs.list_stamp(workspace) != stamp  # so that a list of runs that is open is drawn again
    for back in (actions_history.put_back, lambda space: actions_shelf.put_back(space, "old.safetensors")):
        with pytest.raises(StudioError):
            back(workspace)
    assert actions_about.empty_bin(workspace) == 0
    name = actions_history.newest_files(workspace)[0][0]
    actions_history.remove(workspace, name)  # there is a bin again
    assert actions_history.put_back(workspace) == name
