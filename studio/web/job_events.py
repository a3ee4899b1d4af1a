"""What the jobs bar says, as a stream, for a page in the background: Gradio stops a page's timers there.

`GET studio/jobs` sends `{"name": "silhouette", "percent": 42, "state": "running"}` as server-sent events when it
changes, and ends after the message that says how the job ended. A page opens it only while it is hidden and a job runs.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import PlainTextResponse, StreamingResponse

from studio.server.owners import NO_VISITOR, acting
from studio.server.visitors import SCOPE
from studio.services.jobs import Job, jobs
from studio.web.components.jobs_bar import SILENT, named, percent

PATH = "/studio/jobs"
EACH, MOST = 4, 400  # streams of one person, and of all
EVERY, ALIVE = 1.0, 15  # seconds between two looks, and seconds after which a line is sent in any case


class JobEvents:
    """ASGI middleware, behind those that say who asks."""

    def __init__(self, app: Any):
        self.app, self._open = app, Counter[str]()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
            return await self.app(scope, receive, send)
        person = (scope[SCOPE] or NO_VISITOR) if SCOPE in scope else ""
        if self._open[person] >= EACH or self._open.total() >= MOST:
            return await PlainTextResponse("Too many pages listen.", 429)(scope, receive, send)
        self._open[person] += 1
        try:
            stream = StreamingResponse(_events(person), media_type="text/event-stream", headers=_PLAIN)
            await stream(scope, receive, send)
        finally:
            self._open[person] -= 1
            if not self._open[person]:
                del self._open[person]


_PLAIN = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def _events(person: str) -> AsyncIterator[str]:
    """Of this person's job that runs now, until it has ended."""
    job, last, quiet = _running(person), "", 0.0
    while job is not None:
        said = json.dumps({"name": named(job), "percent": percent(job), "state": job.state, "message": job.message})
        if said != last:
            yield f"data: {said}\n\n"
            last, quiet = said, 0.0
        if job.state != "running":
            return
        await asyncio.sleep(EVERY)
        quiet += EVERY
        if quiet >= ALIVE:
            yield ": still here\n\n"
            quiet = 0.0
    yield 'data: {"state": "none"}\n\n'


def _running(person: str) -> Job | None:
    with acting(person):
        return next((job for job in jobs.running() if job.kind not in SILENT), None)
