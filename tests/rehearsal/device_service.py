"""The service that lends GPUs to a ZeroGPU Space, as far as the `spaces` package asks it. Every request is kept."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.serving import Quiet, answering


@contextmanager
def served() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """(address, requests so far: path and what was asked). A GPU is always free."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Service(Quiet):
        def do_POST(self) -> None:
            split = urlsplit(self.path)
            asked.append((split.path, {key: values[0] for key, values in parse_qs(split.query).items()}))
            given = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-pretend", "allowToken": f"token-{len(asked)}"}
            self.say("application/json", json.dumps(given if split.path == "/schedule" else {}).encode())

    with answering(Service) as port:
        yield f"http://127.0.0.1:{port}", asked
