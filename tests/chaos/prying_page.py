"""The parts of prying.py that look: for a token on the disk and in the logs, and for markup on the page."""

import io
import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from typing import Any

from PIL import Image

from tests.chaos.prying import MARKUP, Asker, Place, Told, png
from tests.serving import served

TOKEN = "hf_" + "Pry" * 12

# A token of the hub -------------------------------------------------------------------------------------------------


def keep_a_secret(place: Place) -> Told:
    """A token typed to publish and to fetch a base: it reaches the hub, and is nowhere else afterwards."""
    import pytest
    from huggingface_hub import constants

    from studio.services import base_models
    from studio.services.jobs import jobs
    from studio.workspace import Workspace
    from tests import hubs
    from tests.training.test_publishing import MINE, hub, make

    told, stream = Told(), io.StringIO()
    handler, log = logging.StreamHandler(stream), logging.getLogger()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    patch = pytest.MonkeyPatch()
    patch.delenv("HF_TOKEN", raising=False)
    patch.setattr(constants, "HF_TOKEN_PATH", str(place.root / "no-token"))
    heard: list[str | None] = []
    try:
        workspace = Workspace.open(place.guard / "workspace")
        if not (workspace.runs / "cat").exists():
            make(workspace, "cat")
        with served(workspace.root) as url, hubs.no_network(place.root / "hf", patch):
            asker = Asker(url)
            for status in (200, 401):
                with hub(patch, status=status) as server:
                    asker.ask("/publish_run", ["cat", MINE, "mit", "zsk", "", True, True, TOKEN])
                    jobs.beside["publish"].wait()
                    heard += [said for _, said in server.asked]
                    told.calls += 1
            with hubs.serve({"art/gated": {}}, patch) as server:
                for token in (TOKEN, f"{TOKEN}\n", f"{TOKEN} ä"):
                    base_models.start_download(workspace, "art/gated", token).wait()
                    told.calls += 1
                heard += server.tokens
            answers = (asker.ask(name, [])[1] for name in ("/job_status", "/list_bases", "/publish_result"))
            shown = [asker.http.get("/config").text, *answers]
    finally:
        patch.undo()
        log.removeHandler(handler)
        log.setLevel(level)
    if f"Bearer {TOKEN}" not in heard:
        told.broke["the token did not reach the hub"] += 1
    if TOKEN in stream.getvalue():
        told.broke["a log says it"] += 1
    if any(TOKEN in text for text in shown):
        told.broke["the page or an answer says it"] += 1
    for path in place.root.rglob("*"):
        if path.is_file() and (TOKEN.encode() in path.read_bytes() or TOKEN in path.name):
            told.broke[f"{path.name} holds it"] += 1
    return told


# Markup, looked at --------------------------------------------------------------------------------------------------


def look_at_markup(place: Place) -> Told:
    """Markup in captions, notes, prompts, names and an adapter's words, on each part of the page in Chromium."""
    from playwright.sync_api import sync_playwright

    from studio.adapters import AdapterSpec, attach
    from studio.basemodels import load_base
    from studio.generation import Recipe, save_image
    from studio.training.caption_words.effects import WordEffect, WordReport, keep
    from studio.training.events import Failed, Preview, Warned
    from studio.training.paired import Difference
    from studio.training.runs import append
    from studio.workspace import Workspace
    from tests.browser import clicks
    from tests.browser.conftest import FLAGS
    from tests.training.test_publishing import make

    told, workspace = Told(), Workspace.open(place.guard / "workspace")
    name = "<img data-pried onerror=1 src=x>"  # what a file can be called
    sets = workspace.datasets / name
    sets.mkdir(exist_ok=True)
    for file in ("a", name):
        (sets / f"{file}.png").write_bytes(png("blue"))
        (sets / f"{file}.txt").write_text(f"{MARKUP}, {MARKUP}\n")
    if not (workspace.runs / "cat").exists():
        make(workspace, "cat")
    (workspace.runs / "cat" / "note.txt").write_text(MARKUP)
    for event in (Warned(40, MARKUP), Preview(40, MARKUP, "previews/000040-0.png"), Failed(40, MARKUP)):
        append(workspace.runs / "cat", event)
    worse = Difference(0.5, 0.01)
    effect = WordEffect(MARKUP, False, 3, 0.9, 2, 2, 0.2, 0.2, 0.1, 0.15, worse, worse)
    keep(workspace.runs / "cat", WordReport(40, [effect], [MARKUP], [MARKUP]))
    save_image(Image.new("RGB", (64, 64)), Recipe(prompt=MARKUP, negative_prompt=MARKUP), workspace.outputs)
    made = attach(load_base(shared=False).model, AdapterSpec(rank=1, targets="attention"))
    made.save(workspace.adapters / f"{name}.safetensors", metadata={"studio.trigger": MARKUP})
    with served(workspace.root) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
        page.on("dialog", lambda dialog: dialog.dismiss())
        page.goto(url)

        shown: list[str] = []

        def look(where: str) -> None:
            page.wait_for_timeout(1500)
            told.calls += 1
            shown.extend([where] * ("data-pried" in page.inner_text("body")))
            if page.evaluate("window.pried") or page.locator("[data-pried]").count():
                told.broke[f"markup is markup in {where}"] += 1

        _drop_all(page, look, workspace)
        clicks.choose(page, "dataset", "<img")
        page.locator("#images button.thumbnail-lg").first.click()
        look("Dataset, Images")
        for part in ("Check", "Bulk edit", "Compare captioners", "History"):
            page.locator("#dataset-tabs").get_by_role("tab", name=part).click()
            look(f"Dataset, {part}")
        clicks.tab(page, "Train")
        look("Train, This run")
        for part in ("#note-and-files", "#through-time"):
            page.locator(f"{part} button").first.click()
        look("Train, its note and previews")
        _look_at_measures(page, look)
        page.locator("#train-tabs").get_by_role("tab", name="All runs").click()
        look("Train, All runs")
        clicks.tab(page, "Generate")
        clicks.choose(page, "add-adapter", "<img")
        look("Generate, a row")
        for part in ("Adapters", "Measure", "Gallery", "Grid"):
            page.locator("#generate-tabs").get_by_role("tab", name=part).click()
            look(f"Generate, {part}")
        clicks.fill(page, "prompt", f"<lora:{MARKUP[:20]}:1> x")
        page.locator("#go").click()
        look("Generate, a message")
        clicks.tab(page, "About")
        look("About")
        german = browser.new_context(viewport={"width": 1440, "height": 1000}, locale="de-DE")
        for tab in ("dataset", "train", "generate"):
            page = german.new_page()
            page.goto(f"{url}#{tab}")
            look(f"{tab}, in German")
        browser.close()
    if len(shown) < 12 or "Train, caption words" not in shown:
        told.broke[f"as text it is in {shown} alone: these looks tell nothing"] += 1
    return told


def _drop_all(page: Any, look: Callable[[str], None], workspace: Any) -> None:
    """Files of every kind with markup in their names and inside, dropped on the page."""
    name, stream = "<img data-pried onerror=1 src=x>", io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{name}.png", png("red"))
        archive.writestr(f"{name}.html", MARKUP)
    image = next(workspace.outputs.glob("*.png")).read_bytes()
    toml = f"name = {json.dumps(MARKUP)}\n{json.dumps(MARKUP)} = 1\n"
    drops = {
        "an image's recipe": [(f"{name}.png", image)],
        "a run.toml": [(f"{name}.toml", toml.encode())],
        "what is of no kind": [(f"{name}.html", MARKUP.encode()), (f"{name}.safetensors", MARKUP.encode())],
        "a zip and captions": [(f"{name}.zip", stream.getvalue()), (f"{name}.txt", MARKUP.encode())],
    }
    for what, files in drops.items():
        given = [{"name": file, "mimeType": "application/octet-stream", "buffer": data} for file, data in files]
        page.locator("#drop-anywhere input[type=file]").set_input_files(given)
        page.locator(".dropped").wait_for(timeout=60_000)
        look(f"drops, {what}")
        page.locator(".dropped [data-act=close]").click()
        page.locator(".dropped").wait_for(state="detached", timeout=60_000)


def _look_at_measures(page: Any, look: Callable[[str], None]) -> None:
    """Parts below a run: what was measured of its words, and a rerun file of another visitor."""
    from studio.training.rerun import Expected, MadeOf, Rerun

    page.locator("#caption-words button").first.click()
    look("Train, caption words")
    facts = {MARKUP: [MARKUP[:20], "x", "", "1"]}
    made = MadeOf(versions={MARKUP: MARKUP}, device=MARKUP, weights=MARKUP[:100], files={"trained": facts})
    settings = {"base": "starter", "data.folder": MARKUP, "data.trigger": MARKUP}
    whole = Rerun(
        format="lora-studio rerun", version=1, name=MARKUP, settings=settings, made_of=made, expected=Expected()
    )
    page.locator("#reproduce button").first.click()
    for what, text in (("differences", whole.model_dump_json()), ("refusal", json.dumps({MARKUP: MARKUP}))):
        given = {"name": "a.rerun.json", "mimeType": "application/json", "buffer": text.encode()}
        if page.locator("#rerun-upload button[aria-label='Clear']").count():
            page.locator("#rerun-upload button[aria-label='Clear']").click()
        page.locator("#rerun-upload input[type=file]").set_input_files(given)
        page.wait_for_timeout(2000)
        page.locator("#rerun-check").click()
        look(f"Train, Reproduce, {what}")
