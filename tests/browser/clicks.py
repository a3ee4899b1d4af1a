"""What a person does on the page, in one line each."""

from playwright.sync_api import Page, expect

FIRST_LOAD = 600_000  # ms: torch, diffusers and the starter are read on the first use, or a run is waited for


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def choose(page: Page, field: str, option: str) -> None:
    """Pick the first option with `option` in it in the drop-down with this id."""
    page.locator(f"#{field} input").click()
    page.get_by_role("option").filter(has_text=option).first.click()


def fill(page: Page, field: str, text: str) -> None:
    page.locator(f"#{field} textarea, #{field} input").first.fill(text)


def value(page: Page, field: str) -> str:
    return page.locator(f"#{field} textarea, #{field} input").first.input_value()


def message(page: Page, part: str, timeout: float = FIRST_LOAD) -> str:
    """Wait for a message with `part` in it, close it and return its text; it must be one line."""
    toast = page.get_by_test_id("toast-text").filter(has_text=part)
    expect(toast).to_have_count(1, timeout=timeout)
    text = toast.inner_text().strip()
    assert "\n" not in text and "Traceback" not in text
    page.get_by_test_id("toast-close").evaluate_all("all => all.forEach(one => one.click())")  # it goes by itself too
    expect(toast).to_have_count(0)
    return text


def open_sample(page: Page, name: str) -> None:
    choose(page, "dataset", name)
    expect(page.locator("#images button.thumbnail-lg").first).to_be_visible()


def add_images(page: Page, files, name: str) -> None:
    """From the card of the first view, into a new dataset of this name."""
    field = page.locator("#dataset-name input, #dataset-name textarea").first
    if not field.is_visible():
        page.locator("#more-ways button").first.click()
    fill(page, "dataset-name", name)
    page.locator("#drop-images input[type=file]").set_input_files(files)


def caption_everything(page: Page) -> None:
    page.locator("#caption-all").click()
    expect(page.locator("#caption-progress")).to_contain_text("captions written", timeout=FIRST_LOAD)


def start_run(page: Page, name: str, steps: int) -> None:
    """Fill in and start a run from the Dataset tab's dataset, on the Train tab."""
    page.locator("#to-train").click()
    expect(page.locator("#training-steps input")).to_be_visible()
    fill(page, "run-name", name)
    fill(page, "training-steps", str(steps))
    page.locator("#start").click()


def run_state(page: Page, state: str, timeout: float = FIRST_LOAD) -> None:
    expect(page.locator(f"#status .pill.{state}")).to_be_visible(timeout=timeout)


def set_strength(page: Page, row: int, strength: float) -> None:
    field = page.locator(f"#strength-{row} input[type=number]")
    field.fill(f"{strength}")
    field.press("Tab")


def draw(page: Page) -> str:
    """Press Generate, wait for a new image, return its address."""
    image = page.locator("#image img:not(.draft)")
    before = image.get_attribute("src") if image.count() else ""
    page.locator("#go").click()
    expect(image).not_to_have_attribute("src", before or "", timeout=FIRST_LOAD)
    return image.get_attribute("src")
