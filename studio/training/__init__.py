"""Config in, events out. A run is an iterator of events and a folder on disk.

`train` is imported when first asked for, because it brings torch; reading runs does not.
"""

from typing import Any

from studio.training.config import RunConfig, config_from, config_from_toml, config_to_toml
from studio.training.reading import RunView, read_events, read_run_folder
from studio.training.runs import extend_run, list_runs, new_run, read_run

__all__ = [
    "RunConfig",
    "RunView",
    "config_from",
    "config_from_toml",
    "config_to_toml",
    "extend_run",
    "list_runs",
    "new_run",
    "read_events",
    "read_run",
    "read_run_folder",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        from studio.training.trainer import train

        return train
    raise AttributeError(name)
