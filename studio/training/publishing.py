"""A finished run as a model on the Hugging Face Hub: a folder that can be looked at first, then sent.

The folder holds the adapter, a model card, previews and the settings. No path of this machine is in it. A token is
handed to huggingface_hub for the upload and kept nowhere.
"""

import io
import json
import re
import shutil
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from studio.basemodels.choice import BaseChoice
from studio.errors import RunError
from studio.hub import is_hub_id, is_token
from studio.training.config import RunConfig, config_from_toml, config_to_toml
from studio.training.folders import renamed
from studio.training.model_card import model_card
from studio.training.publication import Publication
from studio.training.reading import RunView
from studio.training.runs import read_run
from studio.workspace import Workspace, remove_folder, temporary_in

LICENCES = (
    "apache-2.0",
    "mit",
    "openrail",
    "creativeml-openrail-m",
    "openrail++",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "other",
)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
BLOCK = 2**20  # bytes between two checks of `stop`

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class PublishingStopped(Exception):
    """The person stopped it. Nothing of it is on the hub but an empty model."""


def prepare(workspace: Workspace, name: str, wanted: Publication) -> Path:
    """Make the folder that would be sent, exports/NAME-hub, anew. No network, no token.

    Raises RunError when the run has no adapter yet or a field can't be used.
    """
    if wanted.licence and not _LICENCE.fullmatch(wanted.licence):
        raise RunError(f"{wanted.licence[:40]!r} is no licence of the hub: choose one from the list.")
    if wanted.repo:
        check_repo(wanted.repo)
    view = read_run(workspace, name)
    if not view.adapter:
        raise RunError(f"The run {name!r} has no adapter yet: wait until it has finished.")
    config = without_paths(config_from_toml(workspace.runs / name / "run.toml"))
    target = workspace.exports / f"{name}-hub"
    made = temporary_in(workspace.exports)
    try:
        _copy_adapter(view.adapter, made / f"{name}.safetensors", config.base)
        images = _copy_previews(view, made)
        (made / "run.toml").write_text(config_to_toml(config), encoding="utf-8")
        card = model_card(view, config, wanted, images, _starting_points(images))
        (made / "README.md").write_text(card, encoding="utf-8")
        remove_folder(target)
        made.rename(target)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(f"The folder can't be written ({error.strerror}): free some space.") from error
        raise
    return target


def upload(
    folder: Path,
    wanted: Publication,
    token: str | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Send a prepared folder as one commit; returns the model's address.

    token  one that may write; None: HF_TOKEN, or what `hf auth login` kept
    stop   ends it within a block of bytes; raises PublishingStopped

    Raises RunError, in one sentence that says what to do.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HTTPError

    check_repo(wanted.repo)
    if token is not None and not is_token(token):
        raise RunError("That is not a token: copy it once more from the hub's settings.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total, sent, lock = sum(path.stat().st_size for path in files), [0], threading.Lock()

    def count(size: int) -> None:  # from several threads
        if stop is not None and stop.is_set():
            raise PublishingStopped
        with lock:
            sent[0] = min(total, sent[0] + size)
            if progress:
                progress(sent[0], total)

    api = HfApi(endpoint=constants.ENDPOINT, token=token, library_name="lora-studio")
    try:
        count(0)
        address = str(api.create_repo(wanted.repo, private=wanted.private, exist_ok=True))
        if wanted.private and not api.model_info(wanted.repo).private:
            raise RunError(f"{wanted.repo} is on the hub already and public: choose another name, or untick private.")
        with ExitStack() as held:
            streams = [held.enter_context(_Counted(path)) for path in files]
            parts = [
                CommitOperationAdd(path.relative_to(folder).as_posix(), stream) for path, stream in zip(files, streams)
            ]  # reads each once, for its hash
            for stream in streams:
                stream.count = count
            api.create_commit(wanted.repo, parts, commit_message="LoRA trained with LoRA Studio")
        return address
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        if stop is not None and stop.is_set():
            raise PublishingStopped from error
        raise RunError(_why_not(wanted.repo, error, constants.ENDPOINT)) from error


def check_repo(repo: str) -> None:
    """Raises RunError unless it has the form owner/name."""
    if not is_hub_id(repo):
        raise RunError("Name the model as owner/name, such as anna/moody-cat.")


def without_paths(config: RunConfig) -> RunConfig:
    """The settings with names in place of folders: where they lie on this machine is nobody's business."""
    data: dict[str, Any] = {
        key: Path(getattr(config.data, key)).name for key in ("folder", "held_out", "regularisation")
    }
    data["folders"] = [renamed(line, lambda folder: Path(folder).name) for line in config.data.folders]
    return config.model_copy(update={"base": base_name(config.base), "data": config.data.model_copy(update=data)})


def base_name(base: str) -> str:
    """`owner/name` of a model on the hub, else the name of its folder or file."""
    name = BaseChoice.of(base).name
    return name if is_hub_id(name) and not Path(name).exists() else Path(name).name


# The folder ---------------------------------------------------------------------------------------------------------


def _copy_adapter(source: Path, target: Path, base: str) -> None:
    """The same tensors, byte for byte; in the header's metadata the base by its name alone."""
    with source.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        metadata = header.get("__metadata__", {})
        for key in ("studio.base", "ss_sd_model_name"):
            if key in metadata:
                metadata[key] = base
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
        with target.open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            shutil.copyfileobj(stream, out)


def _copy_previews(view: RunView, folder: Path) -> list[tuple[int, str, str]]:
    """(step, prompt, file in `folder`) of the first and the newest preview of each prompt, oldest first."""
    ends: dict[str, list[tuple[int, Path]]] = {}
    for step, prompt, file in view.previews:
        if file.is_file() and not file.is_symlink():
            ends[prompt] = [*ends.get(prompt, [])[:1], (step, file)]
    found = []
    for number, (prompt, images) in enumerate(ends.items()):
        for step, file in images:
            target = folder / "images" / f"{number:02d}-{step:06d}.png"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
            found.append((step, prompt, target.relative_to(folder).as_posix()))
    return sorted(found, key=lambda row: row[0])


def _starting_points(images: list[tuple[int, str, str]]) -> dict[str, str]:
    """Of each prompt, what the base model drew before the first step."""
    return {prompt: file for step, prompt, file in images if step == 0}


# The hub ------------------------------------------------------------------------------------------------------------


class _Counted(io.BufferedReader):
    """A file that tells how much of it was read. `count` may raise, which ends the reading."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self.count: Callable[[int], None] = lambda size: None

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            data = super().read()
        else:
            data = super().read(min(size, BLOCK))
        self.count(len(data))
        return data


def _why_not(repo: str, error: Exception, hub: str) -> str:
    """One sentence: what the hub answered, and what to do."""
    from huggingface_hub.errors import LocalTokenNotFoundError

    status = None
    for one in (error.__cause__, error):  # it wraps what went wrong with one file
        with suppress(AttributeError):
            status = one.response.status_code  # type: ignore[union-attr]
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return f"The hub does not know this token: make one that may write on {hub}/settings/tokens."
    if status == 403:
        return f"This token may not write to {repo}: use one that may, or another owner's name."
    if status is not None:
        return f"The hub refused {repo} (answer {status}): check its name and try again later."
    return f"{hub} can't be reached: connect to the network and try again; the prepared folder stays."
