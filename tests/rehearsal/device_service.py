"""The service that lends GPUs to a ZeroGPU Space, as far as the `spaces` package asks it. Every request is kept."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@contextmanager
def served() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """(address, requests so far: path and what was asked). A GPU is always free."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            split = urlsplit(self.path)
            asked.append((split.path, {key: values[0] for key, values in parse_qs(split.query).items()}))
            given = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-pretend", "allowToken": f"token-{len(asked)}"}
            body = json.dumps(given if split.path == "/schedule" else {}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
