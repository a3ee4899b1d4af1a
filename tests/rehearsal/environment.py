"""A folder with what would be pushed, an environment with what the Hub installs, and the studio started in both."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import serving

ROOT = Path(__file__).resolve().parents[2]
NAME = "someone/lora-studio"
PATIENCE = 300  # seconds until the first page


def copied(root: Path, folder: Path) -> Path:
    """`folder`, with the files that git has of `root`, as they are now."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


def installed(space: Path, environment: Path) -> tuple[Path, float]:
    """(python of an environment with requirements.txt and nothing else, seconds it took). One that is there is kept."""
    python, began = environment / "bin" / "python", time.monotonic()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(space / "requirements.txt")], check=True, env=_clean())
    return python, time.monotonic() - began


def with_spaces(python: Path, space: Path) -> str:
    """The version of `spaces` beside requirements.txt, as the Hub adds it; raises CalledProcessError where it conflicts
    or can't be had."""
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(space / "requirements.txt"), "spaces"], check=True, env=_clean())
    shown = "from importlib.metadata import version; print(version('spaces'))"
    return subprocess.run([str(python), "-c", shown], check=True, capture_output=True, text=True).stdout.strip()


def missing(python: Path, space: Path) -> str:
    """What pip finds lacking or in conflict; "" when nothing is."""
    found = subprocess.run([str(python), "-m", "pip", "check"], capture_output=True, text=True, env=_clean())
    return "" if found.returncode == 0 else found.stdout.strip()


def variables(port: int, workspace: Path, **more: str) -> dict[str, str]:
    """What the Hub sets for a Space, and a workspace of its own."""
    owner, _, name = NAME.partition("/")
    return {
        **_clean(),
        "SYSTEM": "spaces", "SPACE_ID": NAME, "SPACE_AUTHOR_NAME": owner, "SPACE_REPO_NAME": name,
        "SPACE_TITLE": "LoRA Studio", "SPACE_HOST": f"{owner}-{name}.hf.space", "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port), "GRADIO_NUM_PORTS": "1", "GRADIO_THEME": "huggingface",
        "GRADIO_ALLOW_FLAGGING": "never", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1",
        "STUDIO_WORKSPACE": str(workspace), "HOME": str(workspace.parent), **more,
    }  # fmt: skip


@contextmanager
def started(
    command: list[str], space: Path, environ: dict[str, str], log: Path
) -> Iterator[tuple[float, Callable[[], bool]]]:
    """The studio while it serves: the seconds until its first page, and whether it still runs.

    Raises RuntimeError with its last lines where no page comes.
    """
    url, began = f"http://127.0.0.1:{environ['GRADIO_SERVER_PORT']}", time.monotonic()
    with open(log, "w") as stream:
        process = subprocess.Popen(command, cwd=space, env=environ, stdout=stream, stderr=subprocess.STDOUT)
    with serving.ended(process):
        if not serving.answers(url, process, PATIENCE):
            raise RuntimeError(f"no page:\n{log.read_text()[-3000:]}")
        yield time.monotonic() - began, lambda: process.poll() is None


def _clean() -> dict[str, str]:
    """This process's variables, without those that would let other packages in."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
