"""A set of 5,000 images: python -m tests.benchmarks.dataset [--images 5000] [--side 512]

Makes the images of `large_set` in a temporary folder and prints images per second of import and of the built-in
tagger beside plain Pillow decoding of the same files, then how long the page waits for what a person does with them.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from studio.captioning import caption_dataset
from studio.datasets import bulk, examine, import_images, open_dataset, undo
from studio.services import captions, datasets
from studio.services.thumbnails import thumbnail
from studio.web.dataset.images import PAGE
from studio.workspace import Workspace
from tests.benchmarks.large_set import make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=512)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, workspace = Path(folder) / "many", Workspace.open(Path(folder) / "workspace")
        make(source, given.images, given.side)
        throughput(source, workspace)
        waits(workspace)


def throughput(source: Path, workspace: Workspace) -> None:
    """Import and tagger against decoding, once with one thread and once with all."""
    files = sorted(source.glob("*.jpg"))

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.convert("RGB")

    def all_at_once() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, files))

    def one_by_one() -> None:
        for file in files:
            decode(file)

    all_at_once()  # the files are in the system's memory for all of them
    floor = rate("Pillow decoding, one thread", len(files), one_by_one)
    rate(f"Pillow decoding, {os.cpu_count()} threads", len(files), all_at_once, floor)
    rate("import", len(files), lambda: import_images(workspace, "many", [source]), floor)
    dataset = open_dataset(workspace.datasets / "many")
    rate("built-in tagger", len(files), lambda: caption_dataset(dataset, mode="overwrite"), floor)
    rate("health check, first", len(files), lambda: examine(dataset, 512), floor)
    rate("health check, again", len(files), lambda: examine(dataset, 512), floor)
    rate("thumbnails", len(files), lambda: [thumbnail(workspace, item.path) for item in dataset.items], floor)


def rate(title: str, count: int, work: Callable[[], object], floor: float = 0.0) -> float:
    began = time.perf_counter()
    work()
    found = count / (time.perf_counter() - began)
    print(f"{title:32}{found:9.0f} images/s" + (f"{found / floor:8.2f} of decoding" if floor else ""), flush=True)
    return found


def waits(workspace: Workspace) -> None:
    """Milliseconds of the server for one click, the median and the worst of ten."""

    def page(wanted: bulk.Filter, by: str = "name") -> None:
        dataset = datasets.view(workspace, "many")
        for item in bulk.sort_items(bulk.select(dataset, wanted), by)[:PAGE]:
            thumbnail(workspace, item.path)

    def edit() -> None:
        dataset = datasets.view(workspace, "many")
        captions.save_caption(workspace, "many", dataset.file_of(dataset.items[7]), f"words {time.time()}")

    def many() -> None:
        dataset = datasets.view(workspace, "many")
        found = captions.propose(workspace, "many", bulk.Filter(), "prepend", f"{time.time():.0f} ")
        bulk.apply(dataset, found, "benchmark")
        undo(datasets.view(workspace, "many"))

    wait("open, as the page does", lambda: (datasets._viewed.clear(), page(bulk.Filter())))
    wait("next page", lambda: page(bulk.Filter()))
    wait("filter by a tag", lambda: page(bulk.Filter(has="gradient")))
    wait("filter by a pattern", lambda: page(bulk.Filter(pattern=r"back\w+d")))
    wait("sort by caption", lambda: page(bulk.Filter(), "caption"))
    wait("edit one caption", edit)
    wait("edit all captions and undo", many, times=2)


def wait(title: str, work: Callable[[], object], times: int = 10) -> None:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    print(f"{title:32}{1000 * statistics.median(seconds):9.0f} ms, at most {1000 * max(seconds):.0f} ms", flush=True)


if __name__ == "__main__":
    main()
