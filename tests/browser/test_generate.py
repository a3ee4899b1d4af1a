"""Adapters dropped and tried by clicking: rows, a sweep, a reload, and an image that gives its recipe back.

The first tests share a page, and each goes on where the one before ended.
"""

import base64
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from playwright.sync_api import expect

from tests.browser import clicks

PROMPT = "red apple, on a blue background"


def adapter(path: Path, seed: int) -> Path:
    from studio.adapters import AdapterSpec, attach
    from studio.basemodels import load_base

    base = load_base(shared=False)
    made = attach(base.model, AdapterSpec(rank=4, alpha=4))
    chance = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=chance) * 0.05
    made.save(path, metadata={"studio.trigger": f"inkling{seed}"})
    return path


DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ['dragenter', 'dragover']) document.body.dispatchEvent(
    new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
  window.letGo = () => document.body.dispatchEvent(
    new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


def open_generate(page, prompt: str = PROMPT) -> None:
    clicks.tab(page, "Generate")
    if prompt:
        clicks.fill(page, "prompt", prompt)
        clicks.fill(page, "gen-steps", "3")


def without_adapters(page) -> None:
    clicks.tab(page, "Generate")
    for row in range(2):
        if page.locator(f"#adapter-{row}").is_visible():
            page.locator(f"#remove-{row}").click()
            expect(page.locator(f"#adapter-{row}")).to_be_hidden()


def test_a_newcomer_takes_an_example_and_generates_by_keyboard(kept_page):
    page = kept_page
    open_generate(page, "")
    page.locator("#examples button").first.click()
    expect(page.locator("#prompt textarea")).not_to_have_value("")
    prompt = page.locator("#prompt textarea").input_value()
    clicks.fill(page, "prompt", f"{prompt}, lighthouse")
    expect(page.locator("#unknown-words")).to_contain_text("lighthouse: the starter does not know this word")
    clicks.fill(page, "gen-steps", "2")
    page.locator("#prompt textarea").press("Control+Enter")
    expect(page.locator("#image img:not(.draft)")).to_be_visible(timeout=clicks.FIRST_LOAD)
    expect(page.locator("#seed input")).not_to_have_value("0")  # a new seed, shown where the next one can be kept
    expect(page.locator("#examples")).to_be_hidden()


def test_clicks_wait_in_line_and_stop_ends_them_all(kept_page, home):
    page = kept_page
    open_generate(page)
    clicks.fill(page, "gen-steps", "150")
    for seed in ("1", "2", "3"):
        clicks.fill(page, "seed", seed)
        page.keyboard.press("Control+Enter")
    line = page.locator("#recipe")
    expect(line).to_contain_text("2 more queued", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#image img.draft")).to_be_visible()  # what is coming, while it comes
    expect(page.locator("#go")).to_be_hidden()
    page.locator("#stop-drawing").click()
    expect(line).to_contain_text("Stopped.")
    expect(page.locator("#stop-drawing")).to_be_hidden()
    clicks.fill(page, "gen-steps", "2")
    clicks.fill(page, "seed", "9")
    clicks.draw(page)
    expect(line).to_contain_text("seed 9")
    drawn = {path.name for path in (home / "workspace/outputs").glob("*.png")}
    assert any(name.endswith("-9.png") for name in drawn)
    assert not any(name.endswith(("-2.png", "-3.png")) for name in drawn), drawn


def test_an_adapter_dropped_anywhere_is_loaded(kept_page, home):
    page = kept_page
    clicks.tab(page, "Dataset")
    file = adapter(home / "dropped.safetensors", 1)
    overlay = page.locator(".drop-overlay")
    page.wait_for_function("document.querySelector('#drop-anywhere input[type=file]')")
    page.evaluate(DROP, [file.name, base64.b64encode(file.read_bytes()).decode()])
    expect(overlay).to_be_visible()
    page.evaluate("window.letGo()")
    expect(overlay).to_be_hidden()
    expect(page.locator("#about-0")).to_contain_text("rank 4", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#dropped")).to_contain_text("1 adapter for Generate: dropped.")
    expect(page.get_by_role("tab", name="Generate")).to_have_attribute("aria-selected", "true")


def test_two_adapters_at_once_a_strip_and_a_reload(kept_page, home):
    page = kept_page
    without_adapters(page)
    open_generate(page)
    files = [adapter(home / "one.safetensors", 1), adapter(home / "two.safetensors", 2)]
    page.locator("#drop-adapters input[type=file]").set_input_files([str(file) for file in files])
    expect(page.locator("#about-1")).to_contain_text("rank 4", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#about-0")).to_contain_text("layers fit")

    page.locator("#about-1").get_by_text("inkling2").click()
    expect(page.locator("#prompt textarea")).to_have_value(f"inkling2, {PROMPT}")

    clicks.set_strength(page, 1, 0.4)
    page.locator("#sweep").click()
    frames = page.locator("#sweep-result .slider-frames img")
    expect(frames).to_have_count(7, timeout=clicks.FIRST_LOAD)
    shown = page.locator("#sweep-result .slider-frames img:not([hidden])")
    expect(shown).to_have_attribute("alt", "one at 1")
    page.locator("#sweep-result input[type=range]").fill("2")
    expect(shown).to_have_count(1)
    expect(shown).to_have_attribute("alt", "one at 0.5")
    assert shown.evaluate("image => image.complete && image.naturalWidth") == 128

    page.reload()  # the open tab stands in the address
    expect(page.locator("#adapter-1")).to_be_visible(timeout=clicks.FIRST_LOAD)
    expect(page.locator("#strength-1 input[type=number]")).to_have_value("0.4")
    expect(page.locator("#strength-1")).to_contain_text("two")
    expect(page.locator("#prompt textarea")).to_have_value(f"inkling2, {PROMPT}")

    page.locator("#remove-0").click()  # the neighbour keeps its value
    expect(page.locator("#adapter-0")).to_be_hidden()
    expect(page.locator("#strength-1 input[type=number]")).to_have_value("0.4")


def test_a_hole_is_painted_and_only_it_is_drawn_anew(kept_page, home):
    page = kept_page
    without_adapters(page)
    source = home / "grey.png"
    Image.new("RGB", (128, 128), "#888888").save(source)
    open_generate(page)
    page.locator("#gen-more button").first.click()
    page.locator("#source input[type=file]").first.set_input_files(str(source))
    canvas = page.locator("#paint canvas")
    expect(canvas).to_be_visible()
    page.wait_for_function("document.querySelector('#paint canvas').width === 128")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    for _ in range(300):
        if any((home / "workspace/outputs/sources").glob("*-*.png")):  # the mask has arrived
            break
        page.wait_for_timeout(100)
    clicks.fill(page, "seed", "5")
    clicks.draw(page)
    drawn = max((home / "workspace/outputs").glob("*-5.png"), key=lambda path: path.stat().st_mtime)
    changed = ImageChops.difference(Image.open(drawn).convert("RGB"), Image.open(source)).convert("L")
    assert changed.getextrema()[1] > 20
    left, top, right, bottom = changed.point(lambda value: 255 * (value > 8)).getbbox()
    assert right - left < 120 and bottom - top < 90, (left, top, right, bottom)  # the rest is the source's own

    clicks.fill(page, "seed", "6")
    page.locator("#drop-adapters input[type=file]").set_input_files(str(drawn))  # source and hole come back
    expect(page.locator("#seed input")).to_have_value("5")
    clicks.draw(page)
    again = max((home / "workspace/outputs").glob("*-5*.png"), key=lambda path: path.stat().st_mtime)
    assert again != drawn
    assert ImageChops.difference(Image.open(again).convert("RGB"), Image.open(drawn).convert("RGB")).getbbox() is None


@pytest.mark.full
def test_what_is_dropped_goes_where_it_belongs(page, tmp_path):
    field = page.locator("#drop-anywhere input[type=file]")
    (tmp_path / "run.toml").write_text("network_dim = 9\n[data]\nfolder = 'x'\n[training]\nsteps = 77\n")
    field.set_input_files(str(tmp_path / "run.toml"))
    expect(page.locator("#training-steps input")).to_have_value("77")
    expect(page.locator("#adapter-rank input")).to_have_value("9")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "plain.png")
    field.set_input_files(str(tmp_path / "plain.png"))
    page.locator("#dropped").get_by_role("button", name="Image to image").click()
    expect(page.locator("#source img").first).to_be_visible()
    field.set_input_files(str(tmp_path / "plain.png"))
    page.locator("#dropped").get_by_role("button", name="New dataset").click()
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(1)
    files = [adapter(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("one", "two"))]
    clicks.tab(page, "Generate")
    clicks.fill(page, "prompt", PROMPT)
    clicks.fill(page, "gen-steps", "2")
    field.set_input_files([str(file) for file in files])
    expect(page.locator("#grid td img")).to_have_count(2, timeout=clicks.FIRST_LOAD)  # both at one seed


@pytest.mark.full
def test_an_image_dropped_back_restores_the_form(page, tmp_path):
    open_generate(page)
    page.locator("#drop-adapters input[type=file]").set_input_files(str(adapter(tmp_path / "one.safetensors", 1)))
    expect(page.locator("#about-0")).to_contain_text("rank 4", timeout=clicks.FIRST_LOAD)
    clicks.set_strength(page, 0, 0.7)
    clicks.fill(page, "seed", "4711")
    clicks.draw(page)
    expect(page.locator("#recipe")).to_contain_text("seed 4711")
    saved = max((tmp_path / "workspace/outputs").glob("*-4711*.png"), key=lambda path: path.stat().st_mtime)

    clicks.fill(page, "prompt", "something else")
    clicks.fill(page, "seed", "1")
    page.locator("#remove-0").click()
    expect(page.locator("#adapter-0")).to_be_hidden()
    page.locator("#drop-adapters input[type=file]").set_input_files(str(saved))
    expect(page.locator("#prompt textarea")).to_have_value(PROMPT)
    expect(page.locator("#seed input")).to_have_value("4711")
    expect(page.locator("#gen-steps input")).to_have_value("3")
    expect(page.locator("#adapter-0")).to_be_visible()
    expect(page.locator("#strength-0 input[type=number]")).to_have_value("0.7")


@pytest.mark.full
def test_earlier_images_stand_side_by_side(page, tmp_path):
    for name in ("one", "two", "three"):
        Image.new("RGB", (128, 128), "red").save(tmp_path / "workspace/outputs" / f"{name}.png")
    page.reload()
    open_generate(page, "")
    images = page.locator("#earlier img")
    expect(images).to_have_count(3, timeout=clicks.FIRST_LOAD)
    first, last = images.first.bounding_box(), images.last.bounding_box()
    assert first["y"] == last["y"] and first["x"] < last["x"]


@pytest.mark.full
def test_what_can_not_be_used_is_one_line_each(page, tmp_path):
    open_generate(page, "red apple <lora:nowhere:1>")
    page.locator("#go").click()
    clicks.message(page, "nowhere")
    (tmp_path / "noise.safetensors").write_bytes(b"\x00" * 50)
    page.locator("#drop-adapters input[type=file]").set_input_files(str(tmp_path / "noise.safetensors"))
    clicks.message(page, "noise.safetensors")
    expect(page.locator("#no-adapters")).to_be_visible()
