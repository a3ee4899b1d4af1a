"""The command line: exit codes, one clear line for bad input, and what each command hands to the services."""

import json
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from studio.cli import main, training
from studio.cli.adapters import named_adapter
from studio.errors import AdapterError, ConfigError
from studio.workspace import Workspace
from tests.basemodels import tiny
from tests.forking import Forked

PROMPT = "red apple, noto style, on a blue background"


@pytest.fixture
def space(tmp_path, monkeypatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "space")
    monkeypatch.setenv("STUDIO_WORKSPACE", str(workspace.root))
    return workspace


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (128, 128), (60 * number, 90, 200)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"image {number}")
    return folder


def refusal(capsys, *arguments: str) -> str:
    """The one line that a command refuses its input with."""
    assert main.main(arguments) == main.USER
    (line,) = capsys.readouterr().err.splitlines()
    assert "Traceback" not in line and len(line) < 400
    return line


# bad input: one clear line, exit 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("train",),
        ("train", "a.toml", "--data", "b"),
        ("train", "missing.toml"),
        ("generate", "--out", "a.png"),
        ("caption", "missing-folder"),
        ("inspect", "missing.safetensors"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, space, arguments):
    assert refusal(capsys, *arguments)


def test_an_empty_folder_is_refused(capsys, space, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "No images" in refusal(capsys, "train", "--data", str(tmp_path / "empty"))
    assert "No images" in refusal(capsys, "caption", str(tmp_path / "empty"))


def test_a_text_file_called_png_is_refused(capsys, space, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.png").write_text("not an image")
    assert "notes.png" in refusal(capsys, "train", "--data", str(folder))


@pytest.mark.parametrize(
    "change",
    ["adapter.rank=0", "training.learning_rate=abc", "training.steps=-5", "training.nonsense=1", "training.steps"],
)
def test_a_wrong_setting_is_refused_by_name(capsys, space, images, change):
    line = refusal(capsys, "train", "--data", str(images), "--set", change)
    assert change.partition("=")[0] in line
    assert not list(space.runs.iterdir())  # nothing was begun


def test_a_list_that_cannot_be_read_is_refused(capsys, space, images):
    assert "preview.prompts" in refusal(capsys, "train", "--data", str(images), "--set", "preview.prompts=[one, two")


def test_a_damaged_settings_file_is_refused(capsys, space, tmp_path):
    (tmp_path / "run.toml").write_text("this is [not toml")
    assert refusal(capsys, "train", str(tmp_path / "run.toml"))


def test_resuming_something_that_is_no_run_is_refused(capsys, space, tmp_path):
    assert "run.toml" in refusal(capsys, "train", "--resume", str(tmp_path))


@pytest.mark.parametrize("content", [b"", b'\x10\0\0\0\0\0\0\0{"a":'], ids=["0 bytes", "cut off"])
def test_a_damaged_adapter_is_refused(capsys, space, tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    assert "bad.safetensors" in refusal(capsys, "inspect", str(path))
    line = refusal(capsys, "generate", "--prompt", PROMPT, "--adapter", f"{path}:0.5", "--out", str(tmp_path / "a.png"))
    assert "bad.safetensors" in line
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("command", [("resize", "--rank", "1"), ("convert", "--layout", "kohya")], ids=lambda c: c[0])
def test_numbers_that_are_not_finite_are_refused_in_one_line(capsys, space, tmp_path, command):
    import torch
    from safetensors.torch import save_file

    path, out = tmp_path / "nan.safetensors", tmp_path / "out.safetensors"
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{name}.lora_A.weight": torch.full((2, 8), torch.nan), f"{name}.lora_B.weight": torch.ones(8, 2)}, path)
    assert "not finite" in refusal(capsys, command[0], str(path), str(out), *command[1:])
    assert not out.exists()


def test_every_setting_and_every_field_is_a_flag(capsys):
    from studio.generation import Recipe
    from studio.schema import settings
    from studio.training.config import RunConfig

    other = {"data.folder": "data", "adapters": "adapter"}
    for command, model in (("train", RunConfig), ("generate", Recipe)):
        assert main.main([command, "--help"]) == main.DONE
        shown = capsys.readouterr().out
        for one in settings(model):
            assert f"--{other.get(one.name, one.name).replace('_', '-')}" in shown, (command, one.name)


def test_an_endless_prompt_is_refused(capsys, space, tmp_path):
    line = refusal(capsys, "generate", "--prompt", "x" * 10_000, "--out", str(tmp_path / "a.png"))
    assert "prompt" in line.lower()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--size", "128"), ("--size", "0x0"), ("--steps", "0"), ("--steps", "many"), ("--adapter", "nothing.safetensors")],
)
def test_a_wrong_value_for_generate_is_refused(capsys, space, tmp_path, flag, value):
    assert refusal(capsys, "generate", "--prompt", PROMPT, flag, value, "--out", str(tmp_path / "a.png"))


@pytest.mark.parametrize("out", ["a.jpg", "missing/a.png"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(capsys, space, tmp_path, out):
    assert refusal(capsys, "generate", "--prompt", PROMPT, "--out", str(tmp_path / out))


# parsing


@pytest.mark.parametrize(
    ("text", "strength"), [("style.safetensors", 1.0), ("style.safetensors:0.5", 0.5), ("style.safetensors:-1", -1.0)]
)
def test_an_adapter_may_carry_its_strength(space, tmp_path, monkeypatch, text, strength):
    monkeypatch.chdir(tmp_path)
    Path("style.safetensors").touch()
    assert named_adapter(text, space) == (Path("style.safetensors"), strength)


def test_a_drive_letter_is_not_a_strength(space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(r"C:\style.safetensors").touch()
    assert named_adapter(r"C:\style.safetensors", space) == (Path(r"C:\style.safetensors"), 1.0)
    assert named_adapter(r"C:\style.safetensors:0.25", space) == (Path(r"C:\style.safetensors"), 0.25)


def test_a_finished_run_may_be_named(space):
    path = space.runs / "style" / "adapter.safetensors"
    path.parent.mkdir()
    path.touch()
    assert named_adapter("style:0.5", space) == (path, 0.5)


def test_what_lies_in_the_workspace_may_be_named(space):
    dropped, step = space.adapters / "ink.safetensors", space.runs / "style" / "checkpoints" / "000002"
    step.mkdir(parents=True)
    for path in (dropped, step / "adapter.safetensors", space.runs / "style" / "run.toml"):
        path.touch()
    assert named_adapter("ink:0.5", space) == (dropped, 0.5)
    assert named_adapter("ink.safetensors", space) == (dropped, 1.0)
    assert named_adapter("style@2:0.5", space) == (step / "adapter.safetensors", 0.5)


@pytest.mark.parametrize("text", ["style.safetensors:strong", "style.safetensors:nan", "style.safetensors:inf"])
def test_a_strength_that_is_no_number_is_refused(space, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("style.safetensors").touch()
    with pytest.raises(AdapterError, match="number"):
        named_adapter(text, space)


def test_a_setting_is_text_or_a_list():
    assert training._change("training.learning_rate = 1e-4") == ("training.learning_rate", "1e-4")
    assert training._change('preview.prompts=["a = b", "c"]') == ("preview.prompts", ["a = b", "c"])
    with pytest.raises(ConfigError):
        training._change("=3")


# what works


def test_doctor_says_what_works_here(capsys, space):
    assert main.main(["doctor", "--json"]) == main.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["workspace"] == str(space.root) and found["device"]["kind"] in ("cpu", "cuda", "mps")
    assert {row["name"] for row in found["works"]} >= {"train", "generate", "caption", "page"}
    assert main.main(["doctor"]) == main.DONE
    assert "torch" in capsys.readouterr().out


def test_the_workspace_flag_stands_before_or_after_the_command(capsys, tmp_path):
    for place, arguments in (
        (tmp_path / "a", ["--workspace", str(tmp_path / "a"), "doctor", "--json"]),
        (tmp_path / "b", ["doctor", "--json", "--workspace", str(tmp_path / "b")]),
    ):
        assert main.main(arguments) == main.DONE
        assert json.loads(capsys.readouterr().out)["workspace"] == str(place)


def test_generate_writes_the_image_and_its_recipe(capsys, space, tmp_path):
    out = tmp_path / "apple.png"
    assert main.main(["generate", "--prompt", PROMPT, "--steps", "2", "--seed", "7", "--out", str(out)]) == main.DONE
    assert capsys.readouterr().out.strip() == str(out)
    with Image.open(out) as image:
        assert image.size == (128, 128) and PROMPT in image.text["parameters"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_captions_are_kept_unless_told_otherwise(capsys, space, images):
    (images / "0.txt").unlink()
    assert main.main(["caption", str(images), "--trigger", "zsk"]) == main.DONE
    assert "1 written, 3 kept" in capsys.readouterr().out
    assert (images / "0.txt").read_text().startswith("zsk, ")
    assert (images / "1.txt").read_text().strip() == "zsk, image 1"
    assert main.main(["caption", str(images)]) == main.DONE
    assert "0 written, 4 kept, 0 unreadable" in capsys.readouterr().out
    (images / "0.jpg").write_bytes((images / "0.png").read_bytes())  # of one stem: said, and not written twice
    assert main.main(["caption", str(images)]) == main.DONE
    assert "0.png: its caption file would be that of 0.jpg, rename one of the two." in capsys.readouterr().err


TRAIN = ["--set", "training.batch_size=2", "--set", "preview.every=0", "--set", "validation.every=0"]


def test_train_leaves_an_adapter_that_inspect_and_generate_take(capsys, space, images, tmp_path):
    arguments = ["train", "--data", str(images), "--name", "blue", "--set", "training.steps=2", "--set"]
    assert main.main([*arguments, "adapter.rank=2", *TRAIN]) == main.DONE
    printed = capsys.readouterr()
    adapter = Path(printed.out.strip())
    assert adapter == space.runs / "blue" / "adapter.safetensors" and adapter.is_file()
    assert "Finished" in printed.err
    assert main.main(["inspect", str(adapter), "--json"]) == main.DONE
    assert json.loads(capsys.readouterr().out)["ranks"].keys() == {"2"}
    assert main.main(["inspect", adapter.parent.name, "--base", "starter"]) == main.DONE
    assert "layers are applied" in capsys.readouterr().out
    out = tmp_path / "a.png"
    assert main.main(["generate", "--prompt", PROMPT, "--steps", "1", "--adapter", "blue:0.5", "--out", str(out)]) == 0


def test_ctrl_c_writes_the_checkpoint_and_exits_130(space, images, tmp_path):
    base = str(tiny.save("sd1", images.parent))
    command = ["train", "--data", str(images), "--name", "long", "--base", base, *TRAIN]

    process = Forked(tmp_path / "log", *command, "--set", "training.steps=100000")
    try:
        while "loss" not in process.log.read_text("utf-8") and not process.ended():
            time.sleep(0.05)
        process.signal(signal.SIGINT)
        status, said = process.wait(), process.log.read_text("utf-8")
    except BaseException:
        process.signal(signal.SIGKILL)
        raise
    assert status == main.INTERRUPTED, said
    assert "Traceback" not in said and "Stopped" in said
    assert list((space.runs / "long" / "checkpoints").iterdir())


def test_adapter_files_are_converted_resized_and_merged(capsys, space, tmp_path):
    import torch

    from studio.adapters import AdapterSpec, attach, read_adapter
    from studio.basemodels import load_base

    adapter = attach(load_base().modules()["unet"], AdapterSpec(rank=4, targets="attention"))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.02)
    one, kohya, back, small, both = (
        str(tmp_path / f"{n}.safetensors") for n in ("one", "kohya", "back", "small", "both")
    )
    adapter.save(one, metadata={"studio.trigger": "zsk"})
    adapter.detach()
    assert main.main(["convert", one, kohya, "--layout", "kohya"]) == main.DONE
    assert main.main(["convert", kohya, back, "--layout", "diffusers"]) == main.DONE
    first, second = read_adapter(one), read_adapter(back)
    assert first.layers.keys() == second.layers.keys() and second.metadata["studio.trigger"] == "zsk"
    assert all(torch.equal(first.layers[k].parts["A"], second.layers[k].parts["A"]) for k in first.layers)
    assert read_adapter(kohya).layout == "kohya"
    assert main.main(["resize", one, small, "--rank", "2"]) == main.DONE
    assert "changed by" in capsys.readouterr().err and read_adapter(small).rank == 2
    assert main.main(["merge", f"{one}:0.5", f"{small}:1", both]) == main.DONE
    assert read_adapter(both).rank == 6
    assert main.main(["inspect", both, "--base", "starter"]) == main.DONE
    said = capsys.readouterr().out
    assert main.main(["inspect", one, "--base", "starter", "--beside", one, "--beside", small]) == main.DONE
    overlaps = capsys.readouterr().out
    assert f"{one} (overlap +1.00)" in overlaps and f"{small} (overlap +0." in overlaps
    assert "--base" in refusal(capsys, "inspect", one, "--beside", small)
    assert "changes its weights by" in said
    assert "two adapters" in refusal(capsys, "merge", one, both)
    assert "different layouts" in refusal(capsys, "merge", one, kohya, both)
    assert "no adapter" in refusal(capsys, "merge", one, str(tmp_path / "none.safetensors"), both)
    assert "at least 1" in refusal(capsys, "resize", one, small, "--rank", "0")


def test_a_run_whose_name_has_spaces_is_followed_to_its_end_and_not_resumed_after_it(capsys, space, images):
    folder = images.rename(images.with_name("my images (cats)"))
    assert main.main(["train", "--data", str(folder), "--set", "training.steps=1", *TRAIN]) == main.DONE
    adapter = Path(capsys.readouterr().out.strip())
    assert adapter.is_file() and adapter.parent.parent == space.runs
    before = adapter.read_bytes()
    assert "is finished" in refusal(capsys, "train", "--resume", str(adapter.parent))
    assert adapter.read_bytes() == before


def test_one_mistake_is_one_line_and_leaves_no_run(capsys, space, images):
    said = refusal(capsys, "train", "--data", str(images), "--base", "nosuch", "--name", "x")
    assert said.count("nosuch") == 1 and not (space.runs / "x").exists()


def test_every_setting_is_listed_with_its_default(capsys):
    assert main.main(["train", "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["adapter.rank", "16"] for line in lines)
    assert any(line.split()[:2] == ["training.clip", "1.0"] for line in lines)
    assert any(line.split()[:2] == ["data.buckets", "true"] for line in lines)
    assert any("schedule-free-adamw" in line for line in lines) and len(lines) > 50


def test_a_flag_that_is_repeated_keeps_all_that_was_given():
    from studio.cli import operations
    from studio.services.operations import all_operations

    remove = all_operations()["remove_images"]
    assert operations._typed(remove, "files", ["a.png", "b.png"]) == ["a.png", "b.png"]
    assert operations._typed(remove, "files", ['["a.png", "b.png"]']) == ["a.png", "b.png"]


def test_a_text_that_looks_like_a_number_stays_text():
    from studio.cli import generation

    assert generation._typed("negative_prompt", "5") == "5" and generation._typed("steps", "5") == 5
    assert generation._typed("guidance", "2.5") == 2.5 and generation._typed("steps", "many") == "many"
