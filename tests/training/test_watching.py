"""What a run says of itself: held-out loss, memorized previews, hard images, the export check, TensorBoard."""

import json
import random
import shutil
import threading

import pytest
from PIL import Image

from studio.adapters import read_adapter
from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.errors import ConfigError
from studio.generation import read_recipe
from studio.services.runs import hardest_of
from studio.training import config_from, read_run, train
from studio.training.cache import Cache
from studio.training.config_sections import DataConfig
from studio.training.difficulty import Difficulty, hardest, standing_out
from studio.training.events import ExportChecked, Finished, Step, Validation, Warned
from studio.training.examples import list_examples
from studio.training.memorization import MemorizationCheck
from studio.training.preview_prompts import PreviewLine, prompt_and_strength, read_preview, write_preview
from studio.workspace import ASSETS

SILHOUETTES = ASSETS / "datasets" / "silhouette"


def test_held_out_loss_at_step_0_is_exactly_the_bases_and_falls_when_it_learns(workspace, quick):
    settings = quick | {
        "name": "learn", "training.steps": 24, "training.batch_size": 4, "adapter.targets": "all", "adapter.rank": 8,
        "validation.every": 12, "training.warmup": 4, "training.learning_rate": 8e-3,
    }  # fmt: skip
    events = list(train(config_from(settings), workspace))
    looks = [event for event in events if isinstance(event, Validation)]
    assert looks[0].loss == looks[0].base_loss and looks[0].spread == 0
    assert looks[-1].loss < 0.9 * looks[-1].base_loss and looks[-1].spread > 0 and looks[-1].verdict == "learning"
    assert len(looks[-1].bands) == 4 and sum(looks[-1].bands) / 4 == pytest.approx(looks[-1].loss, rel=1e-4)
    finished = next(event for event in events if isinstance(event, Finished))
    assert "Verdict: learned" in finished.message and "Better than the base in" in finished.message
    steps = [event for event in events if isinstance(event, Step)]
    assert all(event.gradient_norm > 0 and event.memory > 0.1 and event.steps_per_second > 0 for event in steps)


def test_held_out_loss_is_the_same_however_the_run_is_seeded_or_batched(workspace, quick):
    held = str(ASSETS / "datasets" / "held-out" / "silhouette")
    bases = set()
    for seed, batch in ((0, 1), (1, 2)):
        settings = {"name": f"s{seed}", "training.seed": seed, "training.batch_size": batch, "training.steps": 1}
        config = config_from(quick | settings | {"data.held_out": held, "validation.every": 1})
        looks = [event for event in train(config, workspace) if isinstance(event, Validation)]
        bases.add(looks[0].base_loss)
    assert len(bases) == 1


def test_the_saved_file_is_proven_in_a_clean_pipeline(workspace, quick, whole_export_check):
    config = config_from(quick | {"name": "proof", "training.learning_rate": 0.01, "adapter.text_encoder": True})
    (said,) = [event for event in train(config, workspace) if isinstance(event, ExportChecked)]
    assert said.unused == 0 and said.difference < 0.5 and "reproduces the trained model" in said.message


def test_a_file_that_does_not_hold_what_was_trained_is_found_out(workspace, quick, whole_export_check, monkeypatch):
    from studio.training import train_step

    whole = train_step.adapter_bytes

    def half(title, updates, **more):
        return whole(title, dict(list(updates.items())[::2]), **more)

    monkeypatch.setattr(train_step, "adapter_bytes", half)
    config = config_from(quick | {"name": "bad", "training.learning_rate": 0.3, "adapter.targets": "all"})
    (said,) = [event for event in train(config, workspace) if isinstance(event, ExportChecked)]
    assert said.difference > 0.5 and "does not reproduce" in said.message


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    base = load_base("starter", shared=False)
    cache, data = Cache(tmp_path_factory.mktemp("cache")), DataConfig(folder=str(SILHOUETTES))
    examples, _ = list_examples(open_dataset(SILHOUETTES).items, base, cache, data, 0)
    return base, MemorizationCheck.of(examples, base)


def test_a_preview_that_is_a_training_image_is_called_memorized(memory):
    base, known = memory
    assert known.check(0, Image.new("RGB", (128, 128), "gray"), 0, base) is None
    item = open_dataset(SILHOUETTES).items[3]
    said = known.check(0, item.load(), 100, base)
    assert said and item.path.name in said and "memorized" in said


def test_an_ordinary_preview_is_not_called_memorized(memory):
    base, known = memory
    for number, file in enumerate(sorted((ASSETS / "datasets" / "moody-cat").glob("*.png"))[:5]):
        known.check(number, Image.new("RGB", (128, 128), "gray"), 0, base)
        assert known.check(number, Image.open(file).convert("RGB"), 100, base) is None


def test_hard_images_come_first_whatever_noise_they_were_seen_at(tmp_path):
    known, chance = Difficulty(), random.Random(0)
    for _ in range(400):
        names = chance.sample([f"p{i}" for i in range(10)], 4)
        shares = [chance.random() for _ in names]
        usual = [0.1 + share for share in shares]  # a loss depends on the noise far more than on the image
        known.see(names, [u * (1.5 if n == "p7" else 1.0) for n, u in zip(names, usual)], shares)
    known.write(tmp_path)
    (first, seen, hard), *rest = hardest(tmp_path)
    assert first == "p7" and seen > 50 and hard == pytest.approx(1.4, abs=0.12)
    assert all(value == pytest.approx(0.95, abs=0.12) for _, _, value in rest)


def test_images_stand_out_only_far_above_the_others():
    usual = [(f"{n}.png", 9, 1 + n / 100) for n in range(12)]
    assert standing_out(usual) == [] and standing_out([]) == []
    odd = ("odd.png", 9, 1.6)
    assert standing_out([odd, *usual]) == [odd]
    assert standing_out([("a", 9, 1.04), *[(f"{n}", 9, 1.0) for n in range(9)]]) == [], "no spread, and no matter"
    assert standing_out([odd, *usual[:3]]) == [], "too few images to say what is usual"


def test_a_runs_folder_tells_its_hardest_images(workspace, quick):
    for _ in train(config_from(quick | {"name": "hard"}), workspace):
        pass
    found = hardest(workspace.runs / "hard")
    assert found and sum(seen for _, seen, _ in found) == 12
    assert {name for name, _, _ in found} <= {path.name for path in SILHOUETTES.glob("*.png")}


@pytest.mark.full
def test_previews_keep_the_strength_that_their_prompt_names(workspace, quick):
    settings = {"name": "p", "preview.every": 6, "preview.steps": 2, "training.learning_rate": 0.02,
                "preview.prompts": ["rocket", "rocket @0", "rocket @0.5"]}  # fmt: skip
    for _ in train(config_from(quick | settings), workspace):
        pass
    shown = {(step, prompt): Image.open(file).tobytes() for step, prompt, file in read_run(workspace, "p").previews}
    assert shown[0, "rocket"] == shown[6, "rocket @0"] == shown[0, "rocket @0"], "strength 0 is the base"
    assert len({shown[6, prompt] for prompt in ("rocket", "rocket @0", "rocket @0.5")}) == 3
    recipe = read_recipe(read_run(workspace, "p").previews[-1][2])
    assert recipe.values["prompt"] == "rocket" and recipe.adapters[0]["strength"] == 0.5
    assert prompt_and_strength("mail to a@b") == ("mail to a@b", 1.0)


def test_a_preview_line_takes_kohyas_flags(workspace, quick):
    line = "rocket @0.5 --n blurry, grey --w 130 --h 96 --d 7 --l 1.5 --s 3 --ss euler"
    settings = {"name": "f", "preview.every": 6, "preview.steps": 2, "preview.prompts": [line, "rocket --am 0.25"]}
    events = list(train(config_from(quick | settings), workspace))
    assert any(isinstance(event, Warned) and "(--ss)" in event.message for event in events)
    first, second = (read_recipe(file) for _, _, file in read_run(workspace, "f").previews[-2:])
    wanted = {"prompt": "rocket", "negative_prompt": "blurry, grey", "seed": 7, "guidance": 1.5, "steps": 3}
    assert wanted.items() <= first.values.items() and first.adapters[0]["strength"] == 0.5
    assert Image.open(read_run(workspace, "f").previews[-2][2]).size == (128, 96)
    assert second.adapters[0]["strength"] == 0.25 and second.values["steps"] == 2


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("a -- b --width", PreviewLine("a -- b --width")),
        ("--n x", PreviewLine("", negative="x")),
        ("a --s 9999 --w 1 --d", PreviewLine("a", steps=200, width=64, others=("--d",))),
        ("a @2 --L 3", PreviewLine("a", 2.0, guidance=3.0)),
    ],
)
def test_flags_that_are_odd_stay_words_or_are_brought_into_range(line, wanted):
    assert read_preview(line) == wanted


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (PreviewLine("red  apple"), "red apple"),
        (
            PreviewLine("a", 0.5, "b c", 768, 1024, 7, 4.5, 20),
            "a --n b c --w 768 --h 1024 --d 7 --l 4.5 --s 20 --am 0.5",
        ),
        (PreviewLine("a", -1.0), "a --am -1"),
    ],
)
def test_a_line_is_written_as_it_is_read(line, text):
    assert write_preview(line) == text
    back = read_preview(text)
    assert back == PreviewLine(" ".join(line.prompt.split()), *list(vars(line).values())[1:])


@pytest.mark.parametrize("prompt", ["a --s 3", "a @0.5"])
def test_a_prompt_that_reads_as_a_flag_is_refused(prompt):
    with pytest.raises(ConfigError, match="reads as a flag"):
        write_preview(PreviewLine(prompt))


def test_a_run_is_sampled_and_saved_when_asked(workspace, quick):
    sample, save = threading.Event(), threading.Event()
    seen = []
    config = config_from(quick | {"name": "asked", "training.checkpoint_every": 100, "preview.steps": 1})
    for event in train(config, workspace, sample=sample, save=save):
        if isinstance(event, Step) and event.step == 3:
            sample.set()
            save.set()
        seen.append((type(event).__name__, event.step))
    assert ("Preview", 4) in seen and ("Checkpoint", 4) in seen and not (sample.is_set() or save.is_set())
    plain = config_from(quick | {"name": "plain", "training.checkpoint_every": 100})
    losses = [event.loss for event in train(plain, workspace) if isinstance(event, Step)]
    assert losses == [loss for _, loss, _ in read_run(workspace, "asked").losses]


def test_best_weights_are_kept_and_their_step_is_named(workspace, quick):
    settings = {"name": "best", "training.steps": 8, "training.learning_rate": 0.05, "validation.every": 2}
    *_, last = train(config_from(quick | settings), workspace)
    measured = {look.step: look.loss for look in read_run(workspace, "best").validations if look.step}
    assert last.kept == min(measured, key=measured.get)
    assert read_adapter(workspace.runs / "best" / "adapter.safetensors").metadata["studio.step"] == str(last.kept)


def test_a_run_that_over_fits_stops_by_itself_when_asked_and_says_so(workspace, quick, monkeypatch):
    from studio.training import validation

    words = iter(["learning", "learning", "over-fitting", "over-fitting", "over-fitting"])
    monkeypatch.setattr(validation, "judge", lambda *_: next(words))
    settings = {"name": "over", "training.steps": 20, "validation.every": 2, "validation.stop": True}
    events = list(train(config_from(quick | settings), workspace))
    assert events[-1].step == 6 and "Stopped at step 6, since the held-out loss rose" in events[-1].message
    warned = [event.message for event in events if type(event).__name__ == "Warned"]
    assert sum("Over-fitting" in said for said in warned) == 1
    assert read_run(workspace, "over").state == "finished"


def test_tensorboard_reads_what_the_run_wrote(workspace, quick):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = threading.active_count()
    for _ in train(config_from(quick | {"name": "tb", "training.tensorboard": True}), workspace):
        pass
    files = list((workspace.runs / "tb" / "tensorboard").rglob("*tfevents*"))
    found = EventAccumulator(str(files[0].parent)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    known = [(step, pytest.approx(loss, rel=1e-5)) for step, loss, _ in read_run(workspace, "tb").losses]
    assert losses == known
    assert threading.active_count() <= before  # its writer has a thread


def test_events_of_an_older_run_are_still_read(workspace):
    folder = workspace.runs / "old"
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text('[data]\nfolder = "x"\n')
    lines = [
        {"event": "Started", "step": 0, "steps": 2, "process": 1, "process_started": 0.0, "parameters": "1 / 2"},
        {"event": "Step", "step": 1, "loss": 0.5, "smoothed": 0.5, "learning_rate": 0.1, "rate": 1, "seconds_left": 1},
        {"event": "Validation", "step": 1, "loss": 0.4, "base_loss": 0.5},
    ]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    view = read_run(workspace, "old")
    assert view.losses == [(1, 0.5, 0.5)] and view.validation == [(1, 0.4, 0.5)] and view.state == "interrupted"


def test_averaged_weights_are_what_is_saved(workspace, quick):
    settings = {"name": "ema", "training.ema": 0.9, "training.learning_rate": 0.01}
    for _ in train(config_from(quick | settings), workspace):
        pass
    from studio.training import checkpoints

    state = checkpoints.newest(workspace.runs / "ema")
    saved = read_adapter(workspace.runs / "ema" / "adapter.safetensors")
    averaged = sum(float(value.abs().sum()) for value in state["train_step"]["average"]["values"])
    live = sum(float(v.abs().sum()) for v in state["train_step"]["adapters"]["unet"].values())
    kept = sum(float(part.abs().sum()) for update in saved.layers.values() for part in update.parts.values())
    assert kept == pytest.approx(averaged, rel=1e-4) and abs(kept - live) > 1e-3 * live


@pytest.mark.full
def test_images_of_one_name_in_two_folders_are_told_apart_among_the_hard_ones(workspace, quick):
    data = workspace.datasets / "two"
    sources = {"10_a/x.png": "moth", "1_b/x.png": "rose", "ordinary/1_b/x.png": "lamp"}
    for (name, caption), file in zip(sources.items(), sorted(SILHOUETTES.glob("*.png"))):
        place = (workspace.datasets if name.startswith("ordinary") else data) / name
        place.parent.mkdir(parents=True)
        shutil.copy(file, place)
        place.with_suffix(".txt").write_text(caption)
    settings = {"name": "two", "data.folder": str(data), "data.regularisation": str(workspace.datasets / "ordinary")}
    for _ in train(config_from(quick | settings | {"training.steps": 12}), workspace):
        pass
    assert {name for name, _, _ in hardest(workspace.runs / "two")} == set(sources)
    rows = {"1_b/x.png": [3, 1.4], "ordinary/1_b/x.png": [3, 1.2], "10_a/x.png": [9, 0.9], "gone.png": [1, 0.5]}
    (workspace.runs / "two" / "images.json").write_text(json.dumps(rows))
    shown = [(item.caption, hard) for item, hard in hardest_of(workspace, "two")]
    assert shown == [("rose", 1.4), ("lamp", 1.2), ("moth", 0.9)]


def test_hard_images_of_an_older_run_that_wrote_bare_names_are_still_found(workspace, quick):
    data = workspace.datasets / "set"
    (data / "10_a").mkdir(parents=True)
    for file in sorted(SILHOUETTES.glob("*.png"))[:2]:
        shutil.copy(file, data / "10_a" / file.name)
    first, second = (file.name for file in sorted(SILHOUETTES.glob("*.png"))[:2])
    config = config_from(quick | {"name": "older", "data.folder": str(data), "training.steps": 2})
    list(train(config, workspace))
    folder, known = workspace.runs / "older", Difficulty()
    known.restore({"parts": [[1, 0.1]] * 10, "pictures": {first: [4, 1.3], f"10_a/{second}": [2, 1.1]}})
    known.see([f"10_a/{first}", f"10_a/{second}"], [0.1, 0.1], [0.5, 0.5])  # it goes on
    known.write(folder)
    shown = [item.path.name for item, _ in hardest_of(workspace, "older")]
    assert shown == [first, second]
    (folder / "images.json").rename(folder / "pictures.json")  # as it was called before 0.2
    assert [item.path.name for item, _ in hardest_of(workspace, "older")] == shown
    known.write(folder)
    assert not (folder / "pictures.json").exists()


@pytest.mark.full
def test_a_base_of_more_pixels_than_an_image_may_have_is_previewed_within_them(workspace, quick, monkeypatch):
    from studio.training import export_check, previews

    seen = []

    def drawn(base, recipe):
        seen.append((recipe.width, recipe.height))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(previews, "draw", drawn)
    monkeypatch.setattr(export_check, "draw", drawn)
    more = {"name": "vast", "base": "starter?resolution=4096", "data.resolution": 128, "training.steps": 1}
    *_, last = train(config_from(quick | more | {"preview.every": 1, "preview.prompts": ["rocket"]}), workspace)
    assert isinstance(last, Finished) and seen == [(2048, 2048)] * 4  # step 0, step 1, and both sides of the proof
    assert previews.side_of(load_base("starter?resolution=136", shared=False)) == 128  # what the denoiser divides
