"""Base models on the command line: `python -m studio base NAME`."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict

from studio.cli.terminal import DONE, INTERRUPTED, say, say_download, stop_on_signals
from studio.errors import BaseModelError
from studio.server.settings import Parser


def base_commands(add: Callable[..., Parser]) -> None:
    """Add `base` to the parser of `studio.cli`."""
    about = "Say what a base model is and what it takes, before it is loaded; fetch it from the hub."
    sub = add("base", base_command, about)
    sub.add_argument("name", metavar="NAME", help="starter, a folder, a .safetensors file, or owner/name[@revision]")
    sub.add_argument("--download", action="store_true", help="fetch it from huggingface.co if it is not here")
    sub.add_argument("--token", metavar="T", help="for models that ask for consent (better: set HF_TOKEN)")
    sub.add_argument("--json", action="store_true", help="print it as JSON")


def base_command(given: argparse.Namespace) -> int:
    """Print the base's card. Ctrl-C stops a download; what came whole stays."""
    if given.download and not _is_here(given.name):
        from studio.basemodels.hub import fetch_base
        from studio.hub import DownloadStopped

        with stop_on_signals() as stop:
            try:
                fetch_base(given.name, given.token, say_download(), stop)
            except DownloadStopped:
                say("Stopped. The files that came whole stay.")
                return INTERRUPTED
    from studio.basemodels.card import describe_base

    card = describe_base(given.name)
    print(json.dumps(asdict(card), indent=2) if given.json else card)
    return DONE


def _is_here(name: str) -> bool:
    from studio.basemodels import base_folder

    try:
        base_folder(name)
    except BaseModelError:
        return False
    return True
