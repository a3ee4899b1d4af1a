"""Batches that get smaller when memory runs out, and giving memory back."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from studio import devices
from studio.errors import out_of_memory

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


def free_memory() -> None:
    """What is no longer used, also what torch keeps of a device's memory for later."""
    gc.collect()
    devices.empty_cache()


class Batches:
    """Runs work in batches of `size`, which is halved for good when memory runs out."""

    def __init__(self, size: int):
        self.size = max(1, size)

    def run(
        self, work: Callable[[list[T]], Sequence[R]], things: Sequence[T], passing: tuple = ()
    ) -> list[R | Exception]:
        """work's answer for each thing; an exception in its place when even alone it can't be done.

        passing: exceptions that are not about one thing, and go up.
        """
        answers: list[R | Exception] = []
        alone = 0  # how many more are tried one by one, after a batch failed for another reason than memory
        while len(answers) < len(things):
            part = list(things[len(answers) : len(answers) + (1 if alone else self.size)])
            try:
                found = work(part)
                if len(found) != len(part):
                    raise RuntimeError(f"{len(found)} answers for {len(part)} images")
                answers += found
                alone = max(0, alone - len(part))
                continue
            except passing:
                raise
            except Exception as error:
                log.info("a batch of %d failed", len(part), exc_info=True)
                failed = error.with_traceback(None)  # the frames would keep the batch's memory
            no_room = out_of_memory(failed)
            if no_room:
                free_memory()
            if len(part) == 1:
                answers.append(failed)
                alone = max(0, alone - 1)
            elif no_room:
                self.size = (len(part) + 1) // 2
            else:
                alone = len(part)
        return answers
