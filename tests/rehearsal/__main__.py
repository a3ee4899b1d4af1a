"""Rehearse a Hugging Face Space: what the Hub checks, what it installs, and what a visitor meets.

python -m tests.rehearsal [--environment FOLDER] [--only hub cpu zero] [--out FILE] [--patience SECONDS]

Installs requirements.txt alone in an empty environment, starts the studio there as a CPU Space and as a ZeroGPU one,
and walks through both in Chromium as a stranger. Prints a table; exits 1 when a line of it failed.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rehearsal import device_service, environment, hub
from tests.rehearsal.hub import Check
from tests.serving import free_port

PARTS = ("hub", "cpu", "zero")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="keep the environment here, and use it when it is there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="the table as Markdown, also in this file")
    parser.add_argument("--patience", type=float, default=180, help="seconds that one thing may take in the browser")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = rehearsed(root, given.environment or root / "environment", given.only, given.patience)
    text = table(found)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", "utf-8")
    return int(any(check.good is False for check in found))


def rehearsed(root: Path, env: Path, parts: list[str], patience: float) -> list[Check]:
    space = environment.copied(environment.ROOT, root / "space")
    found = list(hub.checks(space)) if "hub" in parts else []
    if not {"cpu", "zero"} & set(parts):
        return found
    python, seconds = environment.installed(space, env)
    lacks = environment.missing(python, space)
    found.append(Check("requirements.txt, alone", not lacks, lacks or f"installed in {seconds:.0f} s"))
    try:  # the Hub adds it to every Space of Gradio's; Gradio itself looks for it there
        found.append(Check("with the package `spaces`", True, environment.with_spaces(python, space)))
        real = True
    except subprocess.CalledProcessError:
        found.append(Check("with the package `spaces`", None, "not to be had: a stand-in takes its place"))
        real = False
    if "cpu" in parts:
        found += on_cpu(space, python, root, patience)
    if "zero" in parts:
        found += on_zero(space, python, root, real, patience)
    return found


def on_cpu(space: Path, python: Path, root: Path, patience: float) -> list[Check]:
    app = hub.front_matter((space / "README.md").read_text("utf-8"))["app_file"]
    return visited("CPU", [str(python), app], space, root / "cpu", patience)


def on_zero(space: Path, python: Path, root: Path, real: bool, patience: float) -> list[Check]:
    """real: whether the `spaces` package is there, which asks the device service for each call."""
    with device_service.served() as (address, asked):
        command = [str(python), "-m", "tests.rehearsal.zero_space"]
        more = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": address}
        found = visited("ZeroGPU", command, space, root / "zero", patience, **more)
    if real:
        calls = [one for path, one in asked if path == "/schedule"]
        gave_back = sum(path == "/release" and one.get("fail") != "true" for path, one in asked)
        seconds = sorted({one.get("durationSeconds", "") for one in calls})
        said = f"{len(calls)} times, for at most {' or '.join(seconds)} s, given back {gave_back} times"
        found.append(Check("ZeroGPU: images ask for a GPU", bool(calls) and gave_back == len(calls), said))
        named = sum("token" in one for one in calls)
        found.append(
            Check("ZeroGPU: the visitor's quota is used", named == len(calls), f"{named} of {len(calls)} calls")
        )
    return found


def visited(place: str, command: list[str], space: Path, folder: Path, patience: float, **more: str) -> list[Check]:
    """Start it and walk through it."""
    from tests.rehearsal import visitor  # a browser and torch: the Hub's checks need neither

    folder.mkdir()
    environ = environment.variables(free_port(), folder / "workspace", **more)
    log = folder / "log.txt"
    try:
        with environment.started(command, space, environ, log) as (seconds, runs):
            found = [Check(f"{place}: start until the first page", True, f"{seconds:.1f} s")]
            url = f"http://127.0.0.1:{environ['GRADIO_SERVER_PORT']}"
            found += visitor.visit(place, url, "SPACES_ZERO_GPU" in more, runs, patience)
    except RuntimeError as error:
        return [Check(f"{place}: start", False, str(error))]
    lines = log.read_text("utf-8", "replace")
    # Python says so of what it could not clean up at the end, which no request meets.
    faults = lines.count("Traceback (most recent call last)") - lines.count("Exception ignored in")
    if faults > 0:
        print(lines[-6000:], file=sys.stderr)
    return [*found, Check(f"{place}: nothing failed in its log", faults <= 0, f"{max(0, faults)} tracebacks")]


def table(found: list[Check]) -> str:
    marks = {True: "yes", False: "NO", None: "–"}
    rows = [f"| {one.what} | {marks[one.good]} | {' '.join(one.found.split())} |" for one in found]
    return "\n".join(["| what | good | found |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    sys.exit(main())
