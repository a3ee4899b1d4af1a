"""What the Hub checks of a pushed Space: the front matter of README.md, and the size of files.

Sources: "Spaces Configuration Reference", "Getting Started with Repositories" and "Storage limits" of the Hub's own
documentation (huggingface/hub-docs), and what its git server answers to a push.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from studio.text import size

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SDKS = {"gradio", "docker", "static"}
KNOWN = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version", "suggested_hardware",
    "suggested_storage", "app_file", "app_port", "base_path", "fullWidth", "header", "short_description", "models",
    "datasets", "tags", "thumbnail", "pinned", "hf_oauth", "hf_oauth_scopes", "hf_oauth_expiration_minutes",
    "disable_embedding", "startup_duration_timeout", "custom_headers", "preload_from_hub", "license",
}  # fmt: skip
HARDWARE = re.compile(r"cpu-(basic|upgrade)|zero-a10g|(t4|l4|l40s|a10g|a100|h100|h200)[a-z0-9-]*")
SHORT = 60  # characters of short_description
LFS = 10 * 2**20  # bytes from which the git server asks for LFS
MOST = 10**9  # bytes of a repository of a Space, until its storage is asked for


class Check(NamedTuple):
    """One line of the table. good: None where it only informs."""

    what: str
    good: bool | None
    found: str


def front_matter(readme: str) -> dict[str, str]:
    """The keys between the two lines of dashes, one `key: value` a line as README has them; {} where there are none."""
    block = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    pairs = (line.split(":", 1) for line in block[1].splitlines() if ":" in line) if block else ()
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def checks(folder: Path) -> Iterator[Check]:
    """folder: what would be pushed."""
    said = front_matter((folder / "README.md").read_text("utf-8"))
    yield from _front_matter(said, folder)
    yield from _files(folder)


def _front_matter(said: dict[str, str], folder: Path) -> Iterator[Check]:
    unknown = sorted(set(said) - KNOWN)
    yield Check("keys of the front matter", bool(said) and not unknown, f"unknown: {unknown}" if unknown else "known")
    for key in ("title", "emoji", "license"):
        yield Check(key, bool(said.get(key)), said.get(key, "missing"))
    colours = {said.get("colorFrom"), said.get("colorTo")}
    yield Check("colorFrom, colorTo", colours <= COLOURS, " and ".join(map(str, sorted(map(str, colours)))))
    yield Check("sdk", said.get("sdk") in SDKS, said.get("sdk", "missing"))
    pins = dict(line.split("==") for line in (folder / "requirements.txt").read_text().split("\n") if "==" in line)
    ours, theirs = said.get("sdk_version"), pins.get("gradio")
    yield Check("sdk_version", bool(ours) and ours == theirs, f"{ours}, and gradio=={theirs} in requirements.txt")
    version = said.get("python_version", "")
    yield Check("python_version", bool(re.fullmatch(r"3\.\d+(\.\d+)?", version)), version or "missing")
    app = said.get("app_file", "")
    yield Check("app_file", bool(app) and (folder / app).is_file(), app or "missing")
    short = said.get("short_description", "")
    yield Check("short_description", 0 < len(short) <= SHORT, f"{len(short)} of {SHORT} characters")
    hardware = said.get("suggested_hardware", "")
    yield Check("suggested_hardware", not hardware or bool(HARDWARE.fullmatch(hardware)), hardware or "none")


def _files(folder: Path) -> Iterator[Check]:
    """The Hub's own client sends large and binary files to LFS by itself; a plain `git push` has to be told."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    yield Check("size of all files", total < MOST, f"{size(total)} in {len(files):,} files")
    large = sorted((path for path in files if path.stat().st_size > LFS), key=lambda path: -path.stat().st_size)
    names = ", ".join(f"{path.relative_to(folder).as_posix()} ({size(path.stat().st_size)})" for path in large)
    yield Check("files for LFS (above 10 MiB)", None, names or "none")
    links = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()]
    yield Check("links", not links, ", ".join(links) or "none")
