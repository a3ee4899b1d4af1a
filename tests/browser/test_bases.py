"""Another base model by clicking: typed, looked at, trained on and drawn with; fetched from a hub, stopped, gone on."""

import json
import threading

import pytest
import torch
from playwright.sync_api import expect
from safetensors.torch import save

from tests import hubs
from tests.basemodels import tiny
from tests.browser import clicks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save("sdxl", tmp_path_factory.mktemp("bases"))


def look(page, prefix: str, place: str) -> None:
    page.locator(f"#{prefix}-another button").first.click()
    clicks.fill(page, f"{prefix}-place", place)
    page.locator(f"#{prefix}-inspect").click()


@pytest.mark.full
def test_a_base_in_a_folder_is_looked_at_trained_on_and_drawn_with(page, folder, tmp_path):
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    look(page, "train", str(folder))
    expect(page.locator("#train-seen")).to_contain_text(
        "SDXL, predicts the noise, 64 pixels", timeout=clicks.FIRST_LOAD
    )
    expect(page.locator("#train-seen")).to_contain_text("On the CPU in fp32")
    page.locator("#train-use").click()
    expect(page.locator("#train-base input")).to_have_value("sdxl")
    expect(page.locator("#preset input")).to_have_value("SDXL")
    expect(page.locator("#training-steps input")).to_have_value("2000")
    expect(page.locator("#adapter-rank input")).to_have_value("32")
    expect(page.locator("#parameters")).to_contain_text("trainable parameters in 80 layers")

    clicks.fill(page, "adapter-rank", "2")
    expect(page.locator("#parameters")).not_to_contain_text("250 k")
    clicks.fill(page, "run-name", "tiny")
    clicks.fill(page, "training-steps", "4")
    page.locator("#expert button").first.click()
    page.locator("#length-settings button").first.click()
    clicks.fill(page, "training-warmup", "0")
    page.locator("#start").click()
    clicks.run_state(page, "finished")
    config = (tmp_path / "workspace/runs/tiny/run.toml").read_text()
    assert f'base = "{folder}"' in config

    page.locator("#to-generate").click()
    expect(page.locator("#gen-base input")).to_have_value("sdxl")  # the run brings its base along
    expect(page.locator("#width input")).to_have_value("64")
    expect(page.locator("#about-0")).to_contain_text("80 of 80 layers fit", timeout=clicks.FIRST_LOAD)
    clicks.fill(page, "prompt", "red apple")
    clicks.fill(page, "gen-steps", "2")
    clicks.draw(page)
    clicks.choose(page, "gen-base", "Starter")
    expect(page.locator("#about-0")).to_contain_text("none of its 80 layers fits")
    expect(page.locator("#width input")).to_have_value("128")
    page.locator("#about-0").get_by_role("button", name="Use sdxl").click()
    expect(page.locator("#gen-base input")).to_have_value("sdxl")
    expect(page.locator("#about-0")).to_contain_text("80 of 80 layers fit")


@pytest.mark.full
def test_what_can_not_be_used_is_said_below_and_not_taken(page, tmp_path):
    clicks.tab(page, "Train")
    look(page, "train", str(tmp_path / "nowhere"))
    seen = page.locator("#train-seen")
    expect(seen).to_contain_text("There is no base model", timeout=clicks.FIRST_LOAD)
    (tmp_path / "refiner").mkdir()
    (tmp_path / "refiner" / "model_index.json").write_text('{"_class_name": "StableDiffusionXLImg2ImgPipeline"}')
    clicks.fill(page, "train-place", str(tmp_path / "refiner"))
    page.locator("#train-inspect").click()
    expect(seen).to_contain_text("SDXL's refiner")
    expect(page.locator("#train-use")).to_be_disabled()
    assert not (tmp_path / "workspace/bases.json").exists()


@pytest.mark.full
def test_a_base_comes_from_the_hub_is_stopped_goes_on_and_the_token_stays_nowhere(page, folder, tmp_path, monkeypatch):
    files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    slow = save({"x": torch.arange(4e6)})
    going = threading.Event()
    with (
        hubs.no_network(tmp_path / "cache", monkeypatch),
        hubs.serve({"art/xl": files | {"unet/more.safetensors": slow}, "art/gated": files}, monkeypatch) as hub,
    ):
        answer = hub.RequestHandlerClass.answer

        def halting(self, code, data, headers=()):
            if self.command == "GET" and data is slow:
                going.wait(30)
            return answer(self, code, data, headers)

        monkeypatch.setattr(hub.RequestHandlerClass, "answer", halting)
        clicks.tab(page, "Generate")
        look(page, "gen", "art/xl")
        expect(page.locator("#gen-seen")).to_contain_text("not on this machine", timeout=clicks.FIRST_LOAD)
        clicks.fill(page, "gen-token", "hf_verysecret")
        page.locator("#gen-download").click()
        expect(page.locator("#gen-token input")).to_have_value("")
        expect(page.locator("#gen-progress")).to_contain_text("GB", timeout=clicks.FIRST_LOAD)
        page.locator("#gen-stop-download").click()
        going.set()
        expect(page.locator("#gen-progress")).to_contain_text("Stopped.", timeout=150_000)
        assert not [question for question in hub.asked if question[2] != "Bearer hf_verysecret"]

        page.locator("#gen-download").click()
        expect(page.locator("#gen-seen")).to_contain_text("SDXL, predicts the noise", timeout=150_000)
        page.locator("#gen-use").click()
        expect(page.locator("#gen-base input")).to_have_value("art/xl")
        kept = json.loads((tmp_path / "workspace/bases.json").read_text())
        assert kept["bases"] == {"art/xl": "art/xl"}

        page.locator("#gen-another button").first.click()
        clicks.fill(page, "gen-place", "art/gated")
        page.locator("#gen-inspect").click()
        expect(page.locator("#gen-seen")).to_contain_text("art/gated is not on this machine")
        page.locator("#gen-download").click()
        expect(page.locator("#gen-progress")).to_contain_text("accept its terms on", timeout=150_000)
    secret = b"verysecret"
    written = [file for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink()]
    assert not any(secret in file.read_bytes() for file in written)
