"""The same way through for a program: gradio_client against the named endpoints."""

import time
import zipfile

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageChops

from studio.services.operations import all_operations
from tests.basemodels import tiny
from tests.serving import served

pytestmark = pytest.mark.usefixtures("small_starter")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def studio(root, tmp_path_factory, quick_export_check, small_starter):
    with served(root) as url:
        client = Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
        yield client
        client.close()


def wait(studio, endpoint: str, seconds: float = 240, **arguments) -> dict:
    until = time.monotonic() + seconds
    while (status := studio.predict(api_name=endpoint, **arguments))["state"] == "running":
        assert time.monotonic() < until, status
        time.sleep(0.1)
    return status


QUICK = {"preview.every": 0, "validation.every": 0, "training.batch_size": 1, "adapter.targets": "attention"}


def test_whole_way_as_a_program(studio):
    dataset = studio.predict("silhouette", api_name="/open_dataset")
    assert dataset["name"] == "silhouette" and len(dataset["items"]) == 24
    studio.predict("silhouette", "inkling", True, api_name="/caption_dataset")
    assert wait(studio, "/job_status")["state"] == "done"
    captioned = studio.predict("silhouette", api_name="/open_dataset")
    assert all(item["caption"].startswith("inkling, ") for item in captioned["items"])
    first = captioned["items"][0]["file"]
    assert studio.predict("silhouette", first, "inkling, a\nfox", api_name="/save_caption") == "inkling, a fox"

    run = studio.predict(
        dataset="silhouette", name="ink", steps=8, rank=4, learning_rate="1e-2", more=QUICK, api_name="/start_training"
    )
    with pytest.raises(AppError, match="ink"):  # one job at a time, said in one line
        studio.predict(dataset="silhouette", name="ink", steps=20, api_name="/start_training")
    status = wait(studio, "/run_status", run=run)
    assert (status["state"], status["step"], status["adapter_ready"]) == ("finished", 8, True), status

    images = []
    for strength in (0.2, 1.0):
        image, recipe = studio.predict(
            prompt="inkling, a red apple, on a blue background",
            seed=7,
            steps=4,
            adapters=[{"run": run, "strength": strength}],
            api_name="/generate",
        )
        assert "seed 7" in recipe and f"ink at {strength:g}" in recipe
        images.append(Image.open(image).convert("RGB"))
    assert ImageChops.difference(*images).getbbox() is not None


@pytest.mark.parametrize(
    ("endpoint", "arguments", "part"),
    [
        ("/open_dataset", {"dataset": "../../etc"}, "not the name of a dataset"),
        ("/open_dataset", {"dataset": "nothing-here"}, "no dataset called"),
        ("/save_caption", {"dataset": "silhouette", "file": "../x.png", "caption": "x"}, "no image called"),
        ("/start_training", {"dataset": "silhouette", "learning_rate": "abc"}, "learning_rate"),
        ("/start_training", {"dataset": "silhouette", "rank": 0}, "rank: must be at least 1"),
        ("/start_training", {"dataset": "silhouette", "more": {"data.held_out": "/etc"}}, "not the name of a dataset"),
        ("/start_training", {"dataset": "silhouette", "more": {"base": "/etc"}}, "no base model"),
        ("/caption_dataset", {"dataset": "silhouette", "captioner": "nobody"}, "no captioner"),
        ("/caption_dataset", {"dataset": "silhouette", "settings": {"x": 1}}, "starter.x"),
        ("/edit_captions", {"dataset": "silhouette", "operation": "add tag", "first": " "}, "Type a tag"),
        ("/edit_captions", {"dataset": "silhouette", "operation": "tidy", "filter": {"has": 3}}, "filter.has"),
        ("/remove_images", {"dataset": "silhouette", "files": ["../../x.png"]}, "x.png"),
        ("/export_dataset", {"dataset": "silhouette", "background": "no colour"}, "not a colour"),
        ("/run_status", {"run": "../runs"}, "no run called"),
        ("/generate", {"prompt": "a" * 10_000}, "4000"),
        ("/generate", {"prompt": "x", "seed": "NaN"}, "seed: must be a whole number"),
        ("/generate", {"prompt": "x", "guidance": "NaN"}, "guidance: must be a number"),
        ("/generate", {"prompt": "x", "adapters": "[{"}, "is not JSON"),
        ("/generate", {"prompt": "x", "adapters": [{"file": "../../secret.safetensors"}]}, "adapter"),
        ("/generate", {"prompt": "x", "adapters": [{"path": "/etc/passwd"}]}, "Each adapter must be"),
    ],
)
def test_mistake_is_answered_in_one_line(studio, endpoint, arguments, part):
    with pytest.raises(AppError) as caught:
        studio.predict(api_name=endpoint, **arguments)
    text = str(caught.value)
    assert part in text and "\n" not in text


def test_a_run_is_checked_paused_resumed_and_extended_by_a_program(studio, tmp_path):
    base = studio.predict(str(tiny.save("sd1", tmp_path)), api_name="/add_base")
    assert studio.predict(api_name="/list_presets")["starter, character"]["training.steps"] == 150
    more = {"dataset": "silhouette", "rank": 2, "more": QUICK | {"base": base, "validation.every": 4}}
    more["more"]["validation.fraction"] = 0.05
    studio.predict(steps=8, api_name="/check_settings", **more)
    assert wait(studio, "/job_status")["state"] == "done"
    report = studio.predict(api_name="/check_report")
    assert report["ready"] and report["step_seconds"] > 0 and report["memory"] > 0

    run = studio.predict(name="long", steps=2000, api_name="/start_training", **more)
    until = time.monotonic() + 120
    while studio.predict(run, api_name="/run_status")["step"] < 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert studio.predict(api_name="/pause_training") is True
    while (status := studio.predict(run, api_name="/run_status"))["state"] != "paused" and time.monotonic() < until:
        time.sleep(0.2)
    assert status["state"] == "paused"
    assert studio.predict(run, api_name="/resume_training") == run
    assert studio.predict(api_name="/stop_training") is True
    assert wait(studio, "/run_status", run=run)["state"] == "stopped"

    short = studio.predict(name="short", steps=4, api_name="/start_training", **more)
    status = wait(studio, "/run_status", run=short)
    assert status["verdict"] and status["looks"][0]["loss"] == status["looks"][0]["base_loss"]
    assert status["hardest"] and "reproduces the trained model" in status["certificate"]["message"]
    assert studio.predict(short, 2, api_name="/extend_training") == short
    assert wait(studio, "/run_status", run=short)["step"] == 6


@pytest.mark.full
def test_a_dataset_is_checked_mended_edited_and_taken_back_by_a_program(studio, tmp_path):
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        image = Image.radial_gradient("L").resize((160, 160))
        Image.merge("RGB", [image if colour == "red" else image.rotate(90).point(lambda v: 255 - v)] * 3).save(
            tmp_path / f"{name}.png"
        )
    files = [handle_file(str(tmp_path / f"{name}.png")) for name in "abc"]
    assert len(studio.predict(files, "discs", api_name="/import_images")["items"]) == 3
    found = studio.predict("discs", 64, "", api_name="/check_dataset")
    kinds = {one["kind"]: one for one in found}
    assert sorted(kinds["near-duplicates"]["files"]) == ["a.png", "b.png"], found
    number = kinds["near-duplicates"]["number"]
    studio.predict("discs", number, "keep the largest of each", api_name="/mend_dataset")
    assert len(studio.predict("discs", api_name="/open_dataset")["items"]) == 2

    more = {"dataset": "discs", "operation": "add tag", "first": "disc", "api_name": "/edit_captions"}
    assert [one["after"] for one in studio.predict(**more)] == ["disc", "disc"]
    assert not any(item["caption"] for item in studio.predict("discs", api_name="/open_dataset")["items"])
    studio.predict(write=True, **more)
    assert [item["caption"] for item in studio.predict("discs", api_name="/open_dataset")["items"]] == ["disc"] * 2
    rows = studio.predict("discs", api_name="/score_captions")["rows"]
    assert [row["caption"] for row in rows] == ["disc"] * 2 and rows[0]["similarity"] <= rows[1]["similarity"]
    studio.predict("discs", api_name="/undo")
    studio.predict("discs", api_name="/undo")
    assert len(studio.predict("discs", api_name="/open_dataset")["items"]) == 3
    steps = studio.predict("discs", api_name="/dataset_history")
    assert [step["kind"] for step in steps] == ["undo", "undo", "change", "change"]
    with zipfile.ZipFile(studio.predict("discs", "", api_name="/export_dataset")) as archive:
        assert sorted(name for name in archive.namelist() if name.endswith(".png")) == ["a.png", "b.png", "c.png"]
    assert "3 pieces" in studio.predict("zsk", api_name="/trigger_report")["message"]


@pytest.mark.full
def test_images_grids_and_adapters_by_a_program(studio, tmp_path):
    from studio.adapters import AdapterSpec, attach
    from studio.basemodels import load_base

    made = attach(load_base(shared=False).model, AdapterSpec(rank=2, targets="attention"))
    for number, parameter in enumerate(made.parameters()):
        parameter.data.fill_(0.02 * (1 - 2 * (number % 2)))
    made.save(tmp_path / "drawn.safetensors", metadata={"studio.trigger": "zsk"})
    name = studio.predict(handle_file(str(tmp_path / "drawn.safetensors")), api_name="/add_adapter")
    adapter = {"file": name}
    assert adapter in studio.predict(api_name="/list_adapters")
    facts = studio.predict(adapter, api_name="/inspect_adapter")
    assert facts["words"] == ["zsk"] and facts["matched"] == facts["layers"] > 0

    recipe = {"prompt": "zsk, a red apple", "steps": 2, "adapters": [adapter | {"strength": 0.5}]}
    more = {"scheduler": "Euler", "clip_skip": 2}
    studio.predict(seed=41, more=more, api_name="/generate", **recipe)
    (found,) = studio.predict("zsk 41", api_name="/list_images")["entries"]
    told = studio.predict(found["name"], api_name="/image_recipe")
    assert told["recipe"]["scheduler"] == "Euler" and told["adapters"][0]["strength"] == 0.5 and not told["problems"]
    assert studio.predict(found["name"], api_name="/delete_image")
    assert not studio.predict("zsk 41", api_name="/list_images")["entries"]
    assert studio.predict(api_name="/restore_image") == found["name"]

    axes = [{"kind": "strength", "text": "0, 1"}, {"kind": "seed", "text": "1-2"}]
    studio.predict(axes=axes, api_name="/draw_grid", **recipe)
    assert wait(studio, "/job_status")["state"] == "done"
    with Image.open(studio.predict(api_name="/grid_result")) as sheet:
        assert sheet.width > 256 and sheet.height > 256
    with pytest.raises(AppError, match="whole number"):
        studio.predict(axes=[{"kind": "seed", "text": "1.5"}], api_name="/draw_grid", **recipe)

    assert studio.predict(name="baked", api_name="/export_adapters", **recipe)["state"] == "running"
    assert wait(studio, "/job_status")["state"] == "done"
    assert {"file": "baked.safetensors"} in studio.predict(api_name="/list_adapters")


@pytest.mark.full
def test_the_queue_and_the_bin_by_a_program(studio):
    studio.predict("silhouette", api_name="/open_dataset")
    quick = {"dataset": "silhouette", "steps": 4, "more": QUICK, "api_name": "/queue_training"}
    run = studio.predict(name="later", rank=2, **quick)
    assert studio.predict(api_name="/list_queue")["waiting"] == [run]
    studio.predict(run, api_name="/leave_queue")
    assert studio.predict(api_name="/list_queue")["waiting"] == []
    run = studio.predict(name="again", rank=2, **quick)
    other = studio.predict(name="other", rank=4, **quick)
    studio.predict(api_name="/start_queue")
    for _ in range(400):  # it begins by itself
        if studio.predict(run=other, api_name="/run_status")["state"] == "finished":
            break
        time.sleep(0.5)
    key = studio.predict(run, api_name="/delete_run")
    assert run not in studio.predict(api_name="/list_runs")
    assert studio.predict(key, api_name="/restore_run") == run
    assert run in studio.predict(api_name="/list_runs")
    both = studio.predict([run, other], api_name="/compare_runs")
    assert set(both["losses"]) == {run, other} and len(both["losses"][run]["trained"]) == 4
    assert both["differences"]["adapter.rank"] == [2, 4]
    assert studio.predict(run, "the good one", api_name="/note_run") == "the good one"
    studio.predict(run, "me/mine", "mit", "zsk", "", True, False, "", api_name="/publish_run")
    assert wait(studio, "/job_status")["state"] == "done"
    made = studio.predict(api_name="/publish_result")
    assert "zsk" in made["card"] and "README.md" in made["files"] and not made["address"]
    with pytest.raises(AppError, match="owner/name"):
        studio.predict(run, "mine", "mit", "", "", True, True, "", api_name="/publish_run")
    assert studio.predict(api_name="/list_bases")[0] == "starter"
    assert "works" in studio.predict(api_name="/doctor")


def test_dropped_files_that_can_not_be_used(studio, tmp_path):
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(AppError, match="empty.safetensors"):
        studio.predict(handle_file(str(tmp_path / "empty.safetensors")), api_name="/add_adapter")
    (tmp_path / "notes.png").write_text("dear diary", encoding="utf-8")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    with pytest.raises(AppError, match="notes.png"):
        studio.predict([handle_file(str(tmp_path / "notes.png"))], "mine", api_name="/import_images")
    files = [handle_file(str(tmp_path / name)) for name in ("notes.png", "red.png")]
    dataset = studio.predict(files, "mine", api_name="/import_images")
    assert len(dataset["items"]) == 1 and "notes.png" in dataset["skipped"][0]


def test_only_images_are_served(studio, root):
    import httpx

    for path in (root / "runs", root / "datasets", root.parent):
        secret = path / "secret.txt"
        secret.write_text("secret", encoding="utf-8")
        answer = httpx.get(f"{studio.src.rstrip('/')}/gradio_api/file={secret}")
        assert answer.status_code == 403, path
    assert httpx.get(f"{studio.src.rstrip('/')}/gradio_api/file=/etc/passwd").status_code == 403


def test_every_operation_has_an_endpoint_that_is_described(studio):
    described = studio.view_api(return_format="dict", print_info=False)["named_endpoints"]
    every = all_operations().values()
    assert set(described) == {f"/{name}" for one in every for name in (one.name, *one.aliases)}
    for one in every:
        endpoint = described[f"/{one.name}"]
        assert endpoint["description"].startswith(one.summary.splitlines()[0])
        assert [parameter["parameter_name"] for parameter in endpoint["parameters"]] == list(one.fields)
        assert all(f"{name}: " in endpoint["description"] for name in one.fields)
