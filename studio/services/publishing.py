"""Publishing a run: prepared as a folder, then sent to the hub, both in the background. The token stays in memory."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studio.errors import RunError
from studio.services.jobs import Job, counting, jobs, latest, remember
from studio.services.operations import operation
from studio.services.parameters import RunName
from studio.workspace import Workspace, checked_name


@dataclass
class Published:
    """What a publishing job has made so far. files: (name, bytes); address: of the model on the hub, once it is."""

    folder: Path
    files: list[tuple[str, int]] = field(default_factory=list)
    card: str = ""
    address: str = ""


@operation(needs="publish")
def publish_run(
    workspace: Workspace,
    run: RunName,
    repo: Annotated[str, Field(max_length=200, description="owner/name on the Hub.")] = "",
    licence: Annotated[str, Field(max_length=100, description="Licence, as the Hub names them; may be empty.")] = "",
    triggers: Annotated[str, Field(max_length=2000, description="Trigger words, separated by commas.")] = "",
    about: Annotated[str, Field(max_length=50_000, description="Markdown for the model card.")] = "",
    private: Annotated[bool, Field(description="Only the owner sees it.")] = True,
    send: Annotated[bool, Field(description="Upload it; off only prepares the folder.")] = False,
    token: Annotated[str, Field(max_length=500, description="The Hub's token that may write; it is not kept.")] = "",
) -> Job:
    """Make the model card and folder of a run in the background and, with `send`, upload it to the Hub.

    Wait with job_status, then ask publish_result. On a person's own machine an empty token stands for HF_TOKEN.
    """
    from studio.training.publication import Publication
    from studio.training.publishing import PublishingStopped, check_repo, prepare, upload

    run = checked_name(run, "run")
    words = tuple(filter(None, (word.strip() for word in re.split(r"[,\n]", triggers or ""))))
    wanted = Publication((repo or "").strip(), (licence or "").strip(), words, about or "", bool(private))
    if send:
        check_repo(wanted.repo)
        if not token.strip() and not workspace.allows.folders:  # HF_TOKEN is its owner's, not a visitor's
            raise RunError("Give a token of yours that may write: the hub's settings make one.")

    def work(job: Job) -> None:
        job.message = "Preparing the folder"
        folder = prepare(workspace, run, wanted)
        files = [
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        job.result = Published(folder, files, (folder / "README.md").read_text("utf-8"))
        if not send or job.stop_event.is_set():
            job.message = "Prepared. Nothing was sent."
            return
        job.message = f"Sending to {wanted.repo}"

        try:
            job.result.address = upload(folder, wanted, token.strip() or None, counting(job), job.stop_event)
        except PublishingStopped:
            job.message = "Stopped. Nothing was published."
            return
        job.message = "Published."

    job = jobs.start("publish", f"Publishing {run}", work, device=False)
    remember(job, run)
    return job


def newest_publishing() -> tuple[Job | None, str]:
    """(job, run) of the newest one, or (None, "")."""
    newest = latest.get("publish")
    return (newest.job, newest.name) if newest else (None, "")


@operation()
def publish_result(workspace: Workspace) -> dict[str, Any]:
    """What the newest publishing made: the card, the files with their bytes, the address on the Hub."""
    job, run = newest_publishing()
    made = job.result if job else None
    if not made:
        return {"run": run}
    return {"run": run, "card": made.card, "files": dict(made.files), "address": made.address}
