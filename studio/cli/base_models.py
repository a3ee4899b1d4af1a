"""Base models on the command line: `python -m studio base NAME`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from studio.cli.terminal import DONE, INTERRUPTED, WorkspaceOption, say, say_download, stop_on_signals
from studio.errors import BaseModelError


def base(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="starter, a folder, a .safetensors file, or owner/name[@revision].")
    ],
    download: Annotated[bool, typer.Option("--download", help="Fetch it from the Hub if it is not here.")] = False,
    token: Annotated[
        str, typer.Option(metavar="T", help="For models that ask for consent (better: set HF_TOKEN).")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    workspace: WorkspaceOption = "",
) -> int:
    """Say what a base model is and what it takes, before it is loaded; fetch it from the Hub."""
    if download and not _is_here(name):
        from studio.basemodels.hub import fetch_base
        from studio.hub import DownloadStopped

        with stop_on_signals() as stop:
            try:
                fetch_base(name, token or None, say_download(), stop)
            except DownloadStopped:
                say("Stopped. The files that came whole stay.")
                return INTERRUPTED
    from studio.basemodels.card import describe_base

    card = describe_base(name)
    print(json.dumps(asdict(card), indent=2) if as_json else card)
    return DONE


def _is_here(name: str) -> bool:
    from studio.basemodels import base_folder

    try:
        base_folder(name)
    except BaseModelError:
        return False
    return True
