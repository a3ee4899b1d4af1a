"""Publishing a run: prepared as a folder, then sent to the hub, both in the background. The token stays in memory."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import RunError
from studio.services.jobs import Job, counting, jobs, latest, remember
from studio.workspace import Workspace, checked_name


@dataclass
class Published:
    """What a publishing job has made so far. files: (name, bytes); address: of the model on the hub, once it is."""

    folder: Path
    files: list[tuple[str, int]] = field(default_factory=list)
    card: str = ""
    address: str = ""


def start_publishing(
    workspace: Workspace, run: str, repo: str, licence: str, triggers: str, about: str, private: bool, send: bool,
    token: str = "",
):  # fmt: skip
    """A background job that prepares the folder and, with `send`, uploads it. Raises a StudioError at once for a field
    that can't be used. On a person's own machine an empty token stands for HF_TOKEN.
    """
    from studio.training.publishing import Publication, PublishingStopped, check_repo, prepare, upload

    workspace.allows.need("publish")
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
        files = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in sorted(folder.rglob("*"))
                 if path.is_file()]  # fmt: skip
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


def newest_publishing():
    """(job, run) of the newest one, or (None, "")."""
    newest = latest.get("publish")
    return (newest.job, newest.name) if newest else (None, "")
