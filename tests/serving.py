"""A studio that serves on this machine for as long as a test needs it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.settings import Settings


@contextmanager
def served(root: Path, **options) -> Iterator[str]:
    """The address of a studio whose workspace is `root`. Ends its jobs and itself. options: of Settings."""
    from studio.ui import actions
    from studio.ui.app import build, launch_options

    actions.latest.clear()  # what a studio served before this one in the same process has done
    settings = Settings(workspace=root, browser=False, **options)
    demo = build(settings)
    try:
        _, url, _ = demo.queue().launch(**launch_options(settings), prevent_thread_lock=True, quiet=True)
        yield url
    finally:
        end_jobs()
        demo.close(verbose=False)


def end_jobs(seconds: float = 60) -> None:
    """Stop what runs and wait for its end: jobs belong to the process, not to a page."""
    from studio.jobs import jobs

    until = time.monotonic() + seconds
    while running := jobs.everyone():
        for job in running:
            job.stop()
        assert time.monotonic() < until, f"{running[0].title} did not stop within {seconds} s"
        time.sleep(0.1)
