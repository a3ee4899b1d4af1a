"""Public mode: two visitors, each with a cookie of their own, who try to get at each other's things.

They are the same two in all tests: a client costs a second of reading what can be called.
"""

import json
import os
import re
import threading
import time
from functools import cache, partial
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from studio.errors import BusyError, NotAllowedError, WorkspaceError
from studio.server import owners
from studio.server.permissions import OWN, VISITED
from studio.server.visitors import IDLE, LIFE, Visitors, VisitorsWorkspace, name_of
from studio.services.jobs import Jobs, jobs
from studio.workspace import Workspace
from tests.serving import served

PATIENCE = 120  # seconds: torch is read meanwhile, in the same process
QUICK = {"preview.every": 0, "validation.every": 0, "training.batch_size": 1, "adapter.targets": "attention"}
fetch, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def url(root, quick_export_check):
    with served(root, public=True) as url:
        yield url


@pytest.fixture(scope="module")
def ada(url, tmp_path_factory):
    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("ada")))


@pytest.fixture(scope="module")
def bob(url, tmp_path_factory):
    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("bob")))


def folder_of(root: Path, visitor: Client) -> Path:
    return root / "visitors" / name_of(visitor.cookies["studio_visitor"])


def ended(visitor: Client, seconds: float = 240) -> dict:
    until = time.monotonic() + seconds
    while (status := visitor.predict(api_name="/job_status"))["state"] == "running":
        assert time.monotonic() < until, status
        time.sleep(0.1)
    return status


def get(url: str, path: Path | str, visitor: Client | None = None) -> int:
    return fetch(f"{url}gradio_api/file={path}", cookies=visitor.cookies if visitor else {}).status_code


def image(path: Path, colour: str = "red") -> Path:
    Image.new("RGB", (96, 96), colour).save(path)
    return path


# Whose is whose -----------------------------------------------------------------------------------------------------


def test_a_visitor_neither_lists_nor_opens_what_is_anothers(root, ada, bob, tmp_path):
    ada.predict([handle_file(image(tmp_path / "secret.png"))], "diary", api_name="/import_images")
    assert "diary" in ada.predict(api_name="/list_datasets")
    assert "diary" not in bob.predict(api_name="/list_datasets")
    with pytest.raises(AppError, match="no dataset called"):
        bob.predict("diary", api_name="/open_dataset")
    assert (folder_of(root, ada) / "datasets" / "diary" / "secret.png").is_file()
    assert not (folder_of(root, bob) / "datasets" / "diary").exists()


def test_runs_jobs_and_images_are_each_visitors_own(url, root, ada, bob):
    run = ada.predict(
        dataset="silhouette", name="hers", steps=4, rank=4, learning_rate="1e-3", more=QUICK, api_name="/start_training"
    )
    assert bob.predict(api_name="/job_status") == {"state": "none"}
    assert bob.predict(api_name="/stop_training") is False  # and so hers goes on
    assert ended(ada)["state"] == "done" and ada.predict(run=run, api_name="/run_status")["state"] == "finished"
    assert bob.predict(api_name="/list_runs") == [] and bob.predict(run="", api_name="/run_status") == {"state": "none"}
    with pytest.raises(AppError, match="no run called"):
        bob.predict(run="hers", api_name="/run_status")
    with pytest.raises(AppError, match="no adapter called"):
        bob.predict(prompt="x", steps=1, adapters=[{"run": "hers"}], api_name="/generate")

    ada.predict(prompt="red apple", seed=1, steps=1, adapters=[{"run": "hers"}], api_name="/generate")
    drawn = next((folder_of(root, ada) / "outputs").glob("*.png"))
    assert (get(url, drawn, ada), get(url, drawn, bob), get(url, drawn)) == (200, 403, 403)
    kept = folder_of(root, ada) / "runs" / "hers" / "adapter.safetensors"
    assert kept.is_file() and get(url, kept, ada) == get(url, kept, bob) == 403  # not meant for the browser at all


def test_no_spelling_of_an_address_leads_to_anothers_file(url, root, ada, bob):
    ada.predict(prompt="red apple", seed=2, steps=1, api_name="/generate")
    bob.predict(api_name="/list_datasets")
    drawn, mine = next((folder_of(root, ada) / "outputs").glob("*.png")), folder_of(root, bob)
    os.symlink(drawn, mine / "outputs" / "link.png")
    spellings = [
        drawn, f"{mine}/outputs/../../{drawn.relative_to(mine.parent)}", os.path.relpath(drawn), f"/{drawn}",
        f"{mine}/outputs/link.png", str(drawn).replace("/", "%2F"), f"file://{drawn}",
    ]  # fmt: skip
    assert get(url, drawn, ada) == 200
    assert {get(url, path, bob) for path in spellings} <= {403, 404}  # 404: it leaves the address of files
    assert fetch(f"{url}gradio_api/file/{drawn}", cookies=bob.cookies).status_code == 403


def test_what_one_sent_is_neither_read_nor_taken_by_another(url, ada, bob, tmp_path):
    sent = post(
        f"{url}gradio_api/upload",
        files={"files": ("a.png", image(tmp_path / "a.png").read_bytes())},
        cookies=ada.cookies,
    ).json()[0]
    assert (get(url, sent, ada), get(url, sent, bob), get(url, sent)) == (200, 403, 403)
    forged = {"path": sent, "meta": {"_type": "gradio.FileData"}}
    assert join(url, bob, "import_images", [[forged], "stolen"]) == 403
    assert join(url, ada, "import_images", [[forged], "mine"]) == 200


def test_an_event_that_names_anothers_file_or_an_address_is_refused(url, root, ada, bob):
    ada.predict(prompt="red apple", seed=3, steps=1, api_name="/generate")
    drawn = next((folder_of(root, ada) / "outputs").glob("*.png"))
    for path in (
        str(drawn),
        os.path.relpath(drawn),
        "/etc/hostname",
        "https://example.com/a.png",
        "FILE:///etc/hostname",
    ):
        for forged in (
            {"path": path, "meta": {"_type": "gradio.FileData"}},
            {"path": path},
            [{"image": {"path": path}}],
        ):
            assert join(url, bob, "import_images", [[forged], "stolen"]) == 403, path


@cache
def numbers(url: str) -> dict[str, int]:
    """The number of each event of the page, by its endpoint's name."""
    return {one["api_name"]: one["id"] for one in fetch(f"{url}config").json()["dependencies"]}


def join(url: str, visitor: Client, name: str, data: list) -> int:
    """The status of a raw event, as no page would send it."""
    event = {
        "data": data,
        "fn_index": numbers(url)[name],
        "session_hash": f"forged by {folder_of(Path(), visitor).name}",
        "trigger_id": None,
        "event_data": None,
    }
    answer = post(
        f"{url}gradio_api/queue/join", content=json.dumps(event), cookies=visitor.cookies,
        headers={"content-type": "application/json"},
    )  # fmt: skip
    return answer.status_code


def test_another_visitors_session_is_neither_watched_nor_used(url, ada, bob):
    """Its hash is secret; should it become known, its answers and the state of its page are still its visitor's."""
    session = {"session_hash": "adas-page"}
    event = {"data": [], "fn_index": 0, "trigger_id": None, **session}
    assert post(f"{url}gradio_api/queue/join", json=event, cookies=ada.cookies).status_code == 200
    for way in (
        lambda: fetch(f"{url}gradio_api/queue/data", params=session, cookies=bob.cookies),
        lambda: fetch(f"{url}gradio_api/heartbeat/adas-page", cookies=bob.cookies),
        lambda: post(f"{url}gradio_api/queue/join", json=event, cookies=bob.cookies),
        lambda: post(f"{url}gradio_api/cancel", json=session | {"fn_index": 0, "event_id": "x"}, cookies=bob.cookies),
        lambda: post(
            f"{url}gradio_api/component_server", json=session | {"data": [], "component_id": 1, "fn_name": "x"}
        ),
    ):
        assert way().status_code == 403
    begun = post(f"{url}gradio_api/call/list_datasets", json={"data": []}, cookies=ada.cookies).json()["event_id"]
    assert fetch(f"{url}gradio_api/call/list_datasets/{begun}", cookies=bob.cookies).status_code == 403
    assert fetch(f"{url}gradio_api/queue/data?session_hash={begun}", cookies=bob.cookies).status_code == 403
    assert "event: complete" in fetch(f"{url}gradio_api/call/list_datasets/{begun}", cookies=ada.cookies).text


def test_the_folder_of_all_visitors_is_no_file(url, root, ada):
    for path in (root / "visitors", root, folder_of(root, ada), f"{root}/visitors/", f"{root}/visitors/."):
        assert get(url, path, ada) == 403


def test_a_cookie_is_given_once_and_is_not_in_any_address(url):
    with httpx.Client(timeout=PATIENCE) as browser:
        first = browser.get(url)
        assert "HttpOnly" in first.headers["set-cookie"] and "SameSite=Lax" in first.headers["set-cookie"]
        secret = browser.cookies["studio_visitor"]
        browser.get(url)
        assert browser.cookies["studio_visitor"] == secret and secret not in name_of(secret)
    assert fetch(url).cookies["studio_visitor"] != secret


def test_a_cookie_that_is_none_of_ours_names_no_folder(url, root):
    for forged in ("../../etc", "a" * 20, "x" * 100, "c0ffee;", ""):
        answer = fetch(url, headers={"cookie": f"studio_visitor={forged}"})
        assert answer.cookies["studio_visitor"] != forged
    assert all(re.fullmatch("[cs][0-9a-f]{40}|nobody", folder.name) for folder in (root / "visitors").iterdir())


def test_a_program_that_keeps_no_cookies_has_its_sessions_workspace(url, tmp_path):
    class Forgetful(Client):
        """As a browser that blocks cookies."""

        cookies = property(lambda self: {}, lambda self, value: None)

    clients = [Forgetful(url, verbose=False, download_files=str(tmp_path / "downloads")) for _ in range(2)]
    one, two = clients
    one.predict([handle_file(image(tmp_path / "b.png"))], "hers", api_name="/import_images")
    assert "hers" in one.predict(api_name="/list_datasets") and "hers" not in two.predict(api_name="/list_datasets")
    path, _ = one.predict(prompt="red apple", seed=4, steps=1, api_name="/generate")
    assert Image.open(path).size == (128, 128)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint, given, said",
    [
        ("/start_training", {"dataset": "silhouette", "more": {"base": "owner/model"}}, "built-in models"),
        ("/start_training", {"dataset": "silhouette", "steps": 1001}, "at most 1000"),
        ("/start_training", {"dataset": "silhouette", "steps": 4, "rank": 128}, "at most 64"),
        ("/start_training", {"dataset": "silhouette", "steps": 4, "more": {"training.compile": True}}, "must be off"),
        ("/check_settings", {"dataset": "silhouette", "more": {"data.resolution": 4096}}, "at most 256"),
        ("/generate", {"prompt": "x", "width": 1024}, "at most 512 pixels"),
        ("/generate", {"prompt": "x", "steps": 200}, "at most 50 steps"),
        ("/caption_dataset", {"dataset": "silhouette", "captioner": "blip", "download": True}, "built-in models"),
        (
            "/caption_dataset",
            {"dataset": "silhouette", "captioner": "wd", "settings": {"model": "/etc"}},
            "built-in models",
        ),
    ],
)
def test_what_a_visitor_may_not_do_is_refused_in_one_sentence(bob, endpoint, given, said):
    with pytest.raises(AppError, match=said) as caught:
        bob.predict(**given, api_name=endpoint)
    assert len(str(caught.value).splitlines()) == 1


def test_folders_of_the_machine_are_refused_in_the_action_itself(tmp_path):
    from studio.services import datasets

    workspace = VisitorsWorkspace(Visitors(tmp_path / "visitors"))
    with owners.acting("c1"), pytest.raises(NotAllowedError, match="can't be typed here"):
        datasets.start_import(workspace, "x", [], str(tmp_path))


def test_the_page_shows_no_field_for_folders(url):
    shown = {one["props"].get("elem_id"): one["props"] for one in fetch(f"{url}config").json()["components"]}
    assert shown["import-folder"]["visible"] is False


def test_the_doctor_tells_visitors_nothing_of_the_owners_machine(root, bob):
    found = bob.predict(api_name="/doctor")
    assert found["studio"] and str(root) not in json.dumps(found)
    assert not {"system", "workspace", "disk_free"} & set(found)


def test_a_full_workspace_takes_no_more(tmp_path):
    from studio.services import datasets

    workspace = VisitorsWorkspace(Visitors(tmp_path / "visitors"), VISITED.__class__(room=100))
    with owners.acting("c1"):
        (workspace.outputs / "large.bin").write_bytes(b"x" * 200)
        with pytest.raises(WorkspaceError, match="workspace is full"):
            datasets.start_import(workspace, "x", [str(image(tmp_path / "c.png"))])


def test_nobody_in_particular_has_no_workspace(tmp_path):
    workspace = VisitorsWorkspace(Visitors(tmp_path / "visitors"))
    with pytest.raises(WorkspaceError, match="cookies"):
        _ = workspace.datasets
    assert list((tmp_path / "visitors").iterdir()) == []


# Time and turns -----------------------------------------------------------------------------------------------------


class Clock:
    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_workspace_goes_when_it_was_not_used_for_hours(tmp_path):
    clock = Clock()
    visitors = Visitors(tmp_path, clock)
    (visitors.folder("c1") / "datasets" / "a.txt").write_text("x")
    clock.now += LIFE / 2
    (visitors.folder("c2") / "datasets" / "a.txt").write_text("x")
    for thread in threading.enumerate():  # which looks for what may go, since the last look is long ago
        if thread.name == "sweep":
            thread.join()
    clock.now += LIFE / 2 + 1
    assert visitors.sweep() == ["c1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c2"]
    assert not any((visitors.folder("c1") / "datasets").iterdir())  # who comes back begins anew


def test_a_restart_knows_how_old_a_workspace_is(tmp_path):
    clock = Clock()
    Visitors(tmp_path, clock).folder("c1")
    clock.now += LIFE + 1
    assert Visitors(tmp_path, clock, at_work=lambda: {job.owner for job in jobs.everyone()}).sweep() == ["c1"]


@pytest.mark.parametrize("jump", [-10 * LIFE, 10 * LIFE])
def test_a_clock_that_jumps_sweeps_nobodys_work(tmp_path, monkeypatch, jump):
    visitors = Visitors(tmp_path)
    (visitors.folder("c1") / "datasets" / "a.txt").write_text("x")
    real, steadily = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert visitors.sweep() == []
    monkeypatch.setattr(time, "monotonic", lambda: steadily() + LIFE + 1)
    assert visitors.sweep() == ["c1"]


def test_a_workspace_of_the_future_is_one_of_now(tmp_path):
    clock = Clock()
    Visitors(tmp_path, clock).folder("c1")
    clock.now -= 10 * LIFE
    visitors = Visitors(tmp_path, clock)
    clock.now += LIFE + 1
    assert visitors.sweep() == ["c1"]


def test_a_workspace_whose_job_runs_stays(tmp_path):
    clock = Clock()
    visitors = Visitors(tmp_path, clock, at_work=lambda: {job.owner for job in jobs.everyone()})
    visitors.folder("c1")
    with owners.acting("c1"):
        job = jobs.start("import", "x", lambda job: job.stop_event.wait(30), device=False)
    clock.now += LIFE + 1
    assert visitors.sweep() == []
    job.stop()
    job.wait()
    assert visitors.sweep() == ["c1"]


def test_the_longest_idle_go_first_when_all_are_too_large(tmp_path):
    clock = Clock()
    visitors = Visitors(tmp_path, clock, room=250)
    for name in ("c1", "c2", "c3"):
        (visitors.folder(name) / "outputs" / "a.bin").write_bytes(b"x" * 100)
        clock.now += IDLE
    visitors.sweep()  # unless a look in the background was first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c2", "c3"]


def fill(visitors: Visitors, name: str, address: str = "", size: int = 1) -> None:
    """As the workspace of `name` does before it writes, and then writes."""
    visitors.folder(name)
    visitors.admit(name, address)
    (visitors.folder(name) / "outputs" / f"{size}.bin").write_bytes(b"x" * size)


def test_too_many_visitors_are_asked_to_come_back(tmp_path):
    visitors = Visitors(tmp_path, Clock(), most=1)
    fill(visitors, "c1")
    visitors.folder("c2")  # who only looks takes no place
    with pytest.raises(BusyError, match="try again"):
        visitors.admit("c2")
    fill(visitors, "c1")


def test_invented_visitors_take_nobodys_place(tmp_path, monkeypatch):
    """310 cookies once took all 300 places in 13 s, and idle visitors were swept for the next."""
    clock = Clock()
    monkeypatch.setattr("studio.server.visitors.MOST_EMPTY", 20)
    visitors = Visitors(tmp_path, clock, most=24)
    fill(visitors, "honest", "1.1.1.1")
    clock.now += IDLE + 1
    for number in range(100):
        visitors.folder(f"looks-{number}")
    taken = 0
    for number in range(100):
        try:
            fill(visitors, f"writes-{number}", "6.6.6.6")
            taken += 1
        except BusyError as error:
            assert "from your network" in str(error)
    assert taken == 3, "an eighth of the places"
    fill(visitors, "another", "2.2.2.2")
    clock.now += 2
    gone = visitors.sweep()
    assert {"honest", "another"} & set(gone) == set() and len(list(tmp_path.iterdir())) <= 20 + 5


def test_an_address_fills_its_share_and_is_swept_first(tmp_path):
    clock = Clock()
    visitors = Visitors(tmp_path, clock, room=1000)
    fill(visitors, "honest", "1.1.1.1", 100)
    fill(visitors, "large", "6.6.6.6", 100)
    visitors.sweep()
    fill(visitors, "larger", "6.6.6.6", 950)
    visitors.sweep()
    with pytest.raises(BusyError, match="share"):
        visitors.admit("large", "6.6.6.6")
    visitors.admit("honest", "1.1.1.1")
    clock.now += IDLE + 1
    assert visitors.sweep() == ["large", "larger"]


def test_only_one_sweep_goes_on(tmp_path, monkeypatch):
    began, go = [], threading.Event()

    def slow(folder):
        began.append(folder)
        go.wait(30)
        return 0

    clock = Clock()
    visitors = Visitors(tmp_path, clock)
    fill(visitors, "c1")
    monkeypatch.setattr("studio.server.visitors._holds_anything", slow)
    for _ in range(5):
        clock.now += LIFE
        visitors.folder("c1")
    sweeps = [thread for thread in threading.enumerate() if thread.name == "sweep"]
    assert len(sweeps) == 1
    go.set()
    sweeps[0].join()
    assert len(began) == 1


def test_whoever_comes_second_stands_in_line_and_reads_nothing_of_the_first():
    mine, order, go = Jobs(), [], threading.Event()

    def work(job):
        order.append(job.owner)
        go.wait(30)

    with owners.acting("c1"):
        first = mine.start("train", "Training secret", work)
        with pytest.raises(BusyError, match="Training secret"):
            mine.start("train", "Training more", work)
    with owners.acting("c2"):
        second = mine.start("train", "Training mine", work)
    with owners.acting("c3"):
        third = mine.start("caption", "Captioning", work)
        assert mine.current is third and mine.running() == [third]
    time.sleep(0.5)
    assert order == ["c1"] and (second.ahead, third.ahead) == (1, 2)
    assert "you are next" in second.message and "2 are before you" in third.message and "secret" not in second.message
    third.stop()
    third.wait()
    assert third.state == "stopped"
    go.set()
    second.wait()
    assert order == ["c1", "c2"] and second.state == first.state == "done" and second.message == ""


def test_a_job_ends_at_its_limit():
    mine = Jobs()
    job = mine.start("train", "Training x", lambda job: job.stop_event.wait(30), limit=0.2)
    job.wait()
    assert job.state == "stopped" and "most that a job may take" in job.message


def test_a_limited_run_can_not_hold_the_device_by_pausing(tmp_path):
    from studio.services import runs

    job = jobs.start("train", "Training x", lambda job: job.stop_event.wait(30), limit=60)
    with pytest.raises(NotAllowedError, match="paused"):
        runs.pause_training(Workspace.open(tmp_path))
    job.stop()
    job.wait()


def test_what_is_known_of_a_visitor_is_forgotten_with_the_workspace():
    kept: owners.PerOwner[str] = owners.PerOwner()
    with owners.acting("c1"):
        kept["a"] = "x"
    assert "a" not in kept and len(kept) == 0
    owners.forget("c1")
    assert kept.everyone() == []


def test_a_persons_own_machine_allows_everything():
    assert OWN.folders and OWN.models and OWN.publish and not OWN.most and OWN.room is None
