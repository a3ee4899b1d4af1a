"""The page while something runs out: it answers, says what is wrong in one sentence, and is well again afterwards."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client, handle_file

from tests.chaos.children import Child, Say
from tests.chaos.killed_work import SAMPLE
from tests.chaos.starved_work import space
from tests.chaos.starving import few_files, fill, free, little_memory, read_only


class Page:
    """A studio that serves in a process of its own, and a program that asks it."""

    def __init__(self, child: Child, url: str):
        self.child, self.url = child, url
        self.client = Client(url, verbose=False, download_files=False)

    def ask(self, endpoint: str, **arguments: Any) -> Any:
        return self.client.predict(api_name=f"/{endpoint}", **arguments)

    def draw(self, seed: int) -> Any:
        return self.ask("generate", prompt="red apple", steps=2, seed=seed)

    def refused(self, work: Callable[[], Any]) -> str:
        """The one line that the page answers with, while it stays up."""
        try:
            work()
        except Exception as error:
            said = str(error)
            assert "\n" not in said and "Errno" not in said and 10 < len(said) < 300, said
            assert self.answers(), "the page is gone"
            return said
        raise AssertionError("nothing was said")

    def answers(self, seconds: float = 20) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                if httpx.get(self.url, timeout=3).status_code == 200:
                    return True
        return False


@contextmanager
def page(root: Path, temporary: Path | None = None) -> Iterator[Page]:
    """A studio in the workspace of `space`. temporary: where the server keeps what is sent; on the same disk."""
    parent, temporary = os.getpid(), temporary or root / "temporary"

    def serve(say: Say) -> None:
        from tests.serving import served

        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(temporary)
        with served(root / "space") as url:
            say(url)
            while os.getppid() == parent:
                time.sleep(0.2)

    temporary.mkdir(exist_ok=True)
    child = Child(serve)
    try:
        yield Page(child, child.hear(60))
    finally:
        child.kill()


def page_on_a_full_disk(root: Path) -> str:
    space(root)
    with page(root) as studio:
        studio.draw(1)
        fill(root)
        said = {studio.refused(lambda: studio.draw(2))}
        first = studio.ask("open_dataset", dataset="silhouette")["items"][0]["file"]
        said |= {studio.refused(lambda: studio.ask("save_caption", dataset="silhouette", file=first, caption="x y"))}
        said |= {studio.refused(lambda: studio.ask("start_training", dataset="silhouette", steps=2))}
        free(root)
        studio.draw(3)
    return " / ".join(sorted(said))


def page_opened_on_a_full_disk(root: Path) -> str:
    space(root)
    fill(root)
    with page(root) as studio:
        said = studio.refused(lambda: studio.draw(1))
        free(root)
        studio.draw(2)
    return said


def page_in_a_read_only_workspace(root: Path) -> str:
    space(root)
    read_only(root)
    with page(root, root.with_name("temporary")) as studio:
        assert len(studio.ask("open_dataset", dataset="silhouette")["items"]) == 24
        said = {studio.refused(lambda: studio.draw(1))}
        said |= {studio.refused(lambda: studio.ask("start_training", dataset="silhouette", steps=2))}
        file = handle_file(str(next(SAMPLE.glob("*.png"))))
        said |= {studio.refused(lambda: studio.ask("import_images", files=[file], name="mine"))}
        read_only(root, False)
        studio.draw(2)
    return " / ".join(sorted(said))


def page_without_memory(root: Path) -> str:
    """Little is left to a studio that serves: drawing ends well or in a line, and well once there is memory again."""
    space(root)
    said = []
    with page(root) as studio:
        studio.draw(1)
        for more in (1, 8, 32, 128):
            with little_memory(more * 2**20, studio.child.pid), suppress(httpx.HTTPError, TimeoutError):
                try:
                    studio.ask("generate", prompt="red apple", steps=2, seed=more, width=512, height=512)
                    said.append("it worked")
                except Exception as error:
                    said.append(str(error).splitlines()[0][:160])
            assert studio.answers(), "the page is gone"
        studio.draw(2)
    return " / ".join(dict.fromkeys(said))


def page_without_file_handles(root: Path) -> str:
    """No visitor can be let in while it has no handle; those who come afterwards are."""
    space(root)
    refused = 0
    with page(root) as studio:
        studio.draw(1)
        for more in (0, 1, 3, 6):
            with few_files(more, studio.child.pid):
                try:
                    httpx.get(studio.url, timeout=2)
                except httpx.HTTPError:
                    refused += 1
            assert studio.answers(), "the page is gone"
        studio.draw(2)
    return f"{refused} of 4 visitors had to wait; all were let in afterwards"


def page_whose_dataset_vanishes(root: Path) -> str:
    folder = space(root).datasets / "mine"
    (folder.parent / "silhouette").rename(folder)
    with page(root) as studio:
        file = studio.ask("open_dataset", dataset="mine")["items"][0]["file"]
        folder.rename(root / "away")
        said = {studio.refused(lambda: studio.ask("save_caption", dataset="mine", file=file, caption="x"))}
        said |= {studio.refused(lambda: studio.ask("caption_dataset", dataset="mine"))}
        said |= {studio.refused(lambda: studio.ask("start_training", dataset="mine", steps=2))}
        (root / "away").rename(folder)
        assert len(studio.ask("open_dataset", dataset="mine")["items"]) == 24
    return " / ".join(sorted(said))


ROWS = {
    function.__name__.replace("_", " "): function
    for function in (
        page_on_a_full_disk, page_opened_on_a_full_disk, page_in_a_read_only_workspace, page_without_memory,
        page_without_file_handles, page_whose_dataset_vanishes,
    )
}  # fmt: skip
