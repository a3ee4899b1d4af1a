"""Images of a dataset on their way to a model: which, and decoded while the model works."""

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from studio.captioning.batching import Batches
from studio.datasets import Dataset, Item
from studio.errors import DatasetError


def chosen_items(dataset: Dataset, only: Collection[str] | None) -> list[Item]:
    if only is None:
        return dataset.items
    items = dataset.by_file()
    for file in only:
        if file not in items:
            raise DatasetError(f"There is no image called {file[:60]!r} in {dataset.name}: open the dataset again.")
    wanted = set(only)
    return [item for file, item in items.items() if file in wanted]


def opened(items: list[Item], side: int, batches: Batches) -> Iterator[list[tuple[Item, Image.Image | Exception]]]:
    """Batches of (item, its image or what is wrong with it). The next batch is decoded while this one is used."""
    pool, left = ThreadPoolExecutor(2), iter(items)
    waiting: deque[tuple[Item, Future[Image.Image]]] = deque()

    def fill(count: int) -> None:
        while len(waiting) < count and (item := next(left, None)) is not None:
            waiting.append((item, pool.submit(_load, item, side)))

    try:
        fill(batches.size)
        while waiting:
            part = [waiting.popleft() for _ in range(min(batches.size, len(waiting)))]
            fill(batches.size)
            yield [(item, _answer(future)) for item, future in part]
            fill(batches.size)
    finally:
        pool.shutdown(cancel_futures=True)


def readable(
    batch: list[tuple[Item, Image.Image | Exception]],
) -> tuple[list[tuple[Item, Image.Image]], list[str]]:
    """(the items with their images, a line on each other one) of a batch of `opened`."""
    good = [(item, image) for item, image in batch if isinstance(image, Image.Image)]
    return good, [str(problem) for _, problem in batch if not isinstance(problem, Image.Image)]


def _load(item: Item, side: int) -> Image.Image:
    """Upright RGB; shrunk by a whole number where it stays above `side`, so that a batch of photos fits in memory."""
    image = item.load(side)
    times = min(image.size) // side if side else 1
    return image.reduce(times) if times > 1 else image


def _answer(future: "Future[Image.Image]") -> Image.Image | Exception:
    try:
        return future.result()
    except (DatasetError, MemoryError) as error:
        return error
