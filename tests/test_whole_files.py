"""Copies and deletions that are cut short: what is under the final name is whole, or not there."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from studio import workspace
from studio.server.settings import Settings
from studio.workspace import atomic_copy, remove_folder


def cut_short(*_, **__):
    raise KeyboardInterrupt


def test_a_copy_that_is_cut_short_leaves_what_was_there(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "new" / "b"
    source.write_text("first")
    atomic_copy(source, target)
    assert target.read_text() == "first" and target.stat().st_mtime == source.stat().st_mtime
    source.write_text("second")

    def half(source, target):
        with open(target, "w") as stream:
            stream.write("sec")
        raise KeyboardInterrupt

    monkeypatch.setattr(workspace.shutil, "copyfile", half)
    with pytest.raises(KeyboardInterrupt):
        atomic_copy(source, target)
    assert target.read_text() == "first" and list(target.parent.iterdir()) == [target]


def test_a_deletion_that_is_cut_short_leaves_nothing_under_the_name_and_is_ended_by_the_next(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(workspace.shutil, "rmtree", cut_short)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "one")
    assert not (tmp_path / "one").exists()
    remove_folder(tmp_path / "two")
    remove_folder(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_deletion_is_cut_short_is_no_checkpoint(tmp_path, monkeypatch):
    from studio.training import checkpoints

    def save(step: int) -> None:
        checkpoints.save(tmp_path, step, checkpoints.pack({"step": step}), lambda file: file.touch(), keep=2)

    for step in (1, 2):
        save(step)
    with monkeypatch.context() as patch:
        patch.setattr(workspace.shutil, "rmtree", cut_short_of_the_first())
        with pytest.raises(KeyboardInterrupt):
            save(3)
    assert [folder.name for folder in checkpoints.every(tmp_path)] == ["000002", "000003"]
    assert all((folder / "adapter.safetensors").is_file() for folder in checkpoints.every(tmp_path))
    save(4)
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["000003", "000004"]


def test_what_a_killed_run_left_of_a_checkpoint_goes_with_the_next(tmp_path):
    from studio.training import checkpoints

    (tmp_path / "checkpoints" / "000137.part").mkdir(parents=True)
    checkpoints.save(tmp_path, 200, checkpoints.pack({"step": 200}), lambda file: file.touch(), keep=2)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["000200"]


def test_what_killed_programs_left_goes_once_it_is_old_and_nothing_else(tmp_path, monkeypatch):
    folder, outside = tmp_path / "inside" / "cats", tmp_path / "outside"
    kept = [folder / name for name in ("a.png", ".studio/history.jsonl", "12345678.tmp", ".mine.tmp", ".mine.gone")]
    for file in kept:
        workspace.atomic_write(file, "kept")
    script = "import os, pathlib, sys, studio.workspace as w; os.replace = lambda *_: os._exit(9)"
    for target in (folder / "a.png", outside / "a.png"):
        killed = [sys.executable, "-c", f"{script}; w.atomic_write(pathlib.Path(sys.argv[1]), 'half')", str(target)]
        assert subprocess.run(killed).returncode == 9
    (folder / "link").symlink_to(outside)
    (tmp_path / "inside" / "old").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(workspace.shutil, "rmtree", cut_short)
        remove_folder(tmp_path / "inside" / "old")
    everything = sorted(tmp_path.rglob("*"))
    workspace.sweep(tmp_path / "inside", time.time() - 3600)
    assert sorted(tmp_path.rglob("*")) == everything  # it may be under way
    workspace.sweep(tmp_path / "inside", time.time() + 1)
    gone = [path.name for path in everything if not path.exists()]
    assert len(gone) == 2 and ".old.gone" in gone and list(outside.iterdir())
    assert all(file.read_text() == "kept" for file in kept)


def test_the_studio_sweeps_the_folders_of_its_workspace_and_nothing_beside_them(tmp_path, monkeypatch):
    from studio.web import app

    left = [tmp_path / name / ".abcdefgh.tmp" for name in (".", "mine", "runs/one", "cache/encoded/ab", "visitors/c1")]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    hours_later = time.time() + 7200
    monkeypatch.setattr(app.time, "time", lambda: hours_later)
    app._sweep(Settings(workspace=tmp_path))
    assert [file.exists() for file in left] == [True, True, False, False, False]


def test_a_copy_under_way_is_not_taken_for_old_because_its_source_is(tmp_path, monkeypatch):
    (tmp_path / "source").write_text("long ago")
    os.utime(tmp_path / "source", (0, 0))
    replace = os.replace

    def swept(source, target):
        workspace.sweep(tmp_path, time.time() - 3600)
        replace(source, target)

    monkeypatch.setattr(workspace.os, "replace", swept)
    atomic_copy(tmp_path / "source", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_text() == "long ago"


def cut_short_of_the_first():
    """rmtree that takes one file out of a folder and is then killed; elsewhere, and for folders not there, as usual."""
    whole = shutil.rmtree

    def remove(folder, ignore_errors=False):
        if not folder.is_dir():
            return whole(folder, ignore_errors=ignore_errors)
        (folder / "adapter.safetensors").unlink()
        raise KeyboardInterrupt

    return remove


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_nobody_else_on_the_machine_reads_a_workspace(tmp_path):
    script = """
import os, sys
from pathlib import Path
from studio.workspace import Workspace, temporary_in, atomic_copy, keep_private, atomic_write
os.umask(0o022)
root = Path(sys.argv[1])
if len(sys.argv) > 2:
    root.mkdir()
    root.chmod(0o775)
workspace = Workspace.open(root / "workspace" if len(sys.argv) == 2 else root)
keep_private(workspace.root)
atomic_write(workspace.outputs / "a.json", "{}")
atomic_copy(workspace.outputs / "a.json", workspace.datasets / "set" / "b.json")
temporary_in(workspace.exports).rename(workspace.exports / "made")
(workspace.cache / "plain").write_text("x")
for path in [workspace.root, *sorted(workspace.root.rglob("*"))]:
    print(oct(path.stat().st_mode & 0o777), path.name)
"""
    for options, folder, file in (([], "0o700", "0o600"), (["shared"], "0o770", "0o660")):  # by the group, on purpose
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / ("x" if options else "y")), *options],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        rights = {name: mode for mode, name in (line.split() for line in done.stdout.splitlines()[1:])}
        assert {rights[name] for name in ("a.json", "b.json", "plain")} == {file}
        assert {rights[name] for name in ("set", "made")} == {folder}
        assert done.stdout.split()[0] == (folder if not options else "0o775")


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_folders_left_open_by_an_older_version_are_closed_and_named(tmp_path):
    script = """
import sys
from pathlib import Path
from studio.workspace import keep_private
print(keep_private(Path(sys.argv[1])))
"""
    open_ones = [tmp_path / name for name in ("datasets", "runs")]
    for folder in open_ones:
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask of this process

    def closed() -> str:
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    tmp_path.chmod(0o775)  # shared with the group, on purpose
    assert closed() == "[]"
    tmp_path.chmod(0o755)
    assert closed() == "['datasets', 'runs']"
    assert {folder.stat().st_mode & 0o777 for folder in open_ones} == {0o700}
    assert closed() == "[]"
