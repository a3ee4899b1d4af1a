"""A run belongs to the studio, not to the page that started it."""

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import expect

from tests.browser import clicks
from tests.browser.conftest import open_studio


def test_closed_tab_does_not_stop_the_run_and_a_new_one_shows_it(context, studio, page):
    clicks.open_sample(page, "silhouette")
    clicks.start_run(page, "long", steps=5000)
    clicks.run_state(page, "running")
    page.close()

    again = open_studio(context, studio)
    clicks.tab(again, "Train")
    clicks.run_state(again, "running")
    expect(again.locator("#status")).to_contain_text("long")
    expect(again.locator("#start")).to_have_count(0)
    expect(again.locator("#stop")).to_be_visible()
    expect(again.locator("#why")).to_contain_text("A run is active")

    httpx.post(f"{studio}gradio_api/call/v2/stop_training", json={}).raise_for_status()  # as from elsewhere
    clicks.run_state(again, "stopped")
    expect(again.locator("#start")).to_be_enabled()


@pytest.mark.full
def test_a_page_whose_stream_was_lost_hears_again(context, studio):
    page, deaf = context.new_page(), True
    close = 'data: {"msg": "close_stream"}\n\n'

    def answer(route):
        if deaf:  # as when the server closes its stream while an event is on its way
            route.fulfill(status=200, content_type="text/event-stream", body=close)
        else:
            route.continue_()

    page.route("**/queue/data**", answer)
    page.goto(studio)
    page.wait_for_timeout(14_000)  # all that the page has asked by itself is pending now
    deaf = False
    clicks.open_sample(page, "silhouette")
    client = Client(studio, verbose=False)
    client.predict("silhouette", "", True, api_name="/caption_dataset")
    expect(page.locator("#caption-progress")).to_contain_text("captions written", timeout=clicks.FIRST_LOAD)
    client.close()
