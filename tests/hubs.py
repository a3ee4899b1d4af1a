"""A hub of models on this machine, that speaks as much of huggingface.co's language as huggingface_hub asks for."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def no_network(folder: Path, monkeypatch):
    """An empty Hugging Face cache at `folder`, and nobody who answers."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    unplug(monkeypatch)
    yield folder
    huggingface_hub.close_session()


def unplug(monkeypatch) -> None:
    _to(monkeypatch, "http://127.0.0.1:9")  # the port where bytes are lost; nobody listens


def _to(monkeypatch, endpoint: str) -> None:
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@contextmanager
def serve(models: dict[str, dict[str, bytes]], monkeypatch, revisions=("main",)):
    """The server of {model: {file: bytes}}. `got`: the files that were fetched; `tokens`: what was said for permission;
    `asked`: each question with its token.

    A model called …/gated asks for consent.
    """

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            if self.path.startswith("/api/agent-harnesses"):  # the library's own question, once in a new home
                return self.answer(404, b"{}")
            server.tokens.append(self.headers.get("Authorization"))
            server.asked.append((self.command, self.path, server.tokens[-1]))
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[0] == "api":
                model, what = "/".join(parts[2:4]), parts[4:]
                if model not in models:
                    return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                if len(what) > 1 and what[1] not in (*revisions, SHA):
                    return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                files = models[model]
                if what[:1] == ["tree"]:
                    rows = [
                        {"type": "file", "path": f, "size": len(d), "oid": f"{len(d):040x}"} for f, d in files.items()
                    ]
                    return self.answer(200, json.dumps(rows).encode())
                names = [{"rfilename": file} for file in files]
                return self.answer(200, json.dumps({"id": model, "sha": SHA, "siblings": names}).encode())
            model, file = "/".join(parts[:2]), "/".join(parts[4:])
            if model.endswith("/gated"):
                return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            data = models[model][file]
            facts = {"ETag": f'"{len(data):040x}"', "X-Repo-Commit": SHA}
            if self.command == "GET":
                server.got.append(file)
            return self.answer(200, data, facts)

        def answer(self, code, data, headers=()):
            self.send_response(code)
            for key, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.got, server.tokens, server.asked, server.models = [], [], [], models
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    _to(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
