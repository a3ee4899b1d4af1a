"""What was deleted on the page: it takes room that is told, goes for good when told to, and is then not offered."""

import pytest
from PIL import Image

from studio.errors import StudioError
from studio.generation import Recipe, save_image
from studio.services import adapter_library, gallery, run_library, system
from studio.workspace import Workspace, size_of


@pytest.fixture
def workspace(tmp_path):
    """Two images, two adapters and two runs, of which one each was deleted."""
    workspace = Workspace.open(tmp_path / "workspace")
    images = [save_image(Image.new("RGB", (16, 16)), Recipe(prompt=one), workspace.outputs) for one in "ab"]
    for name in ("old", "new"):
        (workspace.adapters / f"{name}.safetensors").write_bytes(b"x" * 3000)
        (workspace.runs / name).mkdir()
        (workspace.runs / name / "run.toml").write_text(f'name = "{name}"\n')
    gallery.remove(workspace, images[0].name)
    adapter_library.remove(workspace, "file:old.safetensors")
    run_library.move_to_trash(workspace, ["old"])
    return workspace


def test_it_is_counted_apart_from_the_folders_that_it_lies_in(workspace):
    found = system.trash_contents(workspace)
    assert found.counts == {"image": 1, "adapter": 1, "run": 1}
    job = system.start_report(workspace)
    job.wait()
    sizes = job.result.sizes
    assert sizes[system.TRASH] == found.size > 3000 and sizes["adapters"] == 3000
    assert sum(sizes.values()) == size_of(workspace.root)


def test_emptying_the_bin_frees_its_bytes_touches_nothing_else_and_leaves_nothing_to_put_back(workspace):
    stamp, aside = run_library.list_stamp(workspace), system.trash_contents(workspace)
    before = size_of(workspace.root)
    assert system.empty_trash(workspace) == aside.size == before - size_of(workspace.root)
    assert system.trash_contents(workspace) == ({"image": 0, "adapter": 0, "run": 0}, 0)
    assert len(gallery.newest_files(workspace)) == 1 and (workspace.adapters / "new.safetensors").is_file()
    assert (workspace.runs / "new" / "run.toml").is_file()
    assert not gallery.removed(workspace) and not run_library.trashed_runs(workspace)
    assert run_library.list_stamp(workspace) != stamp  # so that a list of runs that is open is drawn again
    for back in (gallery.put_back, lambda space: adapter_library.put_back(space, "old.safetensors")):
        with pytest.raises(StudioError):
            back(workspace)
    assert system.empty_trash(workspace) == 0
    name = gallery.newest_files(workspace)[0][0]
    gallery.remove(workspace, name)  # there is a bin again
    assert gallery.put_back(workspace) == name
