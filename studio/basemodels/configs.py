"""Reading the settings of a base's components."""

import json
from pathlib import Path

from studio.errors import BaseModelError


def read_config(file: Path) -> dict:
    """A component's settings. Raises BaseModelError."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{file.parent.name}/{file.name} can't be read: download the model again.") from error
    return found if isinstance(found, dict) else {}
