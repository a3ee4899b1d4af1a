"""The tools of MCP clients: Gradio's, with files that can be sent, and with a password where one is set.

Gradio describes a list of files in a way that no client can check (its schema refers to a definition that is left
out), hands none of them on, and asks its own server without the password. For it, the files that a client names lie on
this machine: it would read any of them. Here a file is what was sent, as `data:…;base64,…` or by an upload before.
"""

import binascii
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio.mcp
from gradio.processing_utils import save_base64_to_cache
from gradio.utils import get_upload_folder
from gradio_client import Client

from studio.errors import StudioError
from studio.services.operations import all_operations

_HOW = "data:…;base64,… of a file, or the address of one that was uploaded before (POST /gradio_api/upload)."
_SERVED = "/gradio_api/file="
_TOKEN = secrets.token_urlsafe(32)  # of the session in which this server asks itself


def install() -> None:
    """From now on Gradio makes its MCP server of this class. It has no other place where one could be given."""
    gradio.mcp.GradioMCPServer = StudioMCP  # type: ignore[misc]


class StudioMCP(gradio.mcp.GradioMCPServer):
    """Gradio's MCP server of a studio."""

    _client_instance: Client | None

    def get_input_schema(
        self, tool_name: str, parameters: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], list[list[str | int]]]:
        """The schema of a tool, and where in it files stand: always a parameter of its own."""
        schema, _ = super().get_input_schema(tool_name, parameters)
        for one in schema["properties"].values():
            if one.get("type") == {}:  # Gradio's "any JSON", which no client takes for a type
                del one["type"]
        name = self._upload_of(tool_name)
        if not name:
            return schema, []
        told = str(schema["properties"][name].get("description", "")).strip()
        text = {"type": "string", "description": f"{told} {_HOW}".strip()}
        many = schema["properties"][name].get("type") == "array"
        schema["properties"][name] = {"type": "array", "items": text} if many else text
        schema.pop("$defs", None)
        return schema, [[name]]

    def _upload_of(self, tool_name: str) -> str:
        """The parameter of a tool that takes files; "" when it takes none."""
        endpoint = self.tool_to_endpoint.get(tool_name, "").lstrip("/")
        for operation in all_operations().values():
            if endpoint in (operation.name, *operation.aliases):
                return operation.upload
        return ""

    def convert_strings_to_filedata(self, value: Any, filedata_positions: list[list[str | int]]) -> Any:
        """The arguments as Gradio's client sends them on. Raises StudioError for a file that was not sent."""
        _refuse_files(value)
        for (name,) in filedata_positions:
            if name in value:
                given = value[name]
                sent = [_sent(one) for one in given] if isinstance(given, list) else _sent(given)
                value = {**value, name: sent}
        return value

    def _get_or_create_client(self) -> Client:
        """The client that asks this server itself; it is signed in where a password is set."""
        if not self.blocks.auth:
            return super()._get_or_create_client()
        app = self.blocks.app
        app.tokens[_TOKEN] = self.blocks.auth[0][0]  # each time: signing out ends all sessions of a name
        if self._client_instance is None:
            cookie = f"access-token-unsecure-{app.cookie_id}={_TOKEN}"
            self._client_instance = Client(
                str(self.local_url),
                download_files=False,
                verbose=False,
                analytics_enabled=False,
                ssl_verify=False,
                _skip_components=False,
                headers={"x-gradio-user": "mcp", "cookie": cookie},
            )
        return self._client_instance


def _refuse_files(value: Any) -> None:
    """Raises StudioError when a file is named as Gradio's own clients name one: this machine would open it."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if isinstance(one.get("path"), str) and "meta" in one:
                raise StudioError(f"A file is given as {_HOW}")
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)


def _sent(text: Any) -> dict[str, Any]:
    """What was sent, as a file in Gradio's upload folder."""
    folder = os.path.realpath(get_upload_folder())
    if isinstance(text, str) and text.startswith("data:"):
        try:
            return _file(save_base64_to_cache(text, folder))
        except (binascii.Error, ValueError, IndexError):
            raise StudioError(f"A file can't be read: give {_HOW}") from None
    path = unquote(urlsplit(text).path) if isinstance(text, str) and "://" in text else text
    if isinstance(path, str):
        path = os.path.realpath(path.partition(_SERVED)[2] or path) if "\0" not in path else ""
        if Path(path).is_relative_to(folder) and os.path.isfile(path):
            return _file(path)
    raise StudioError(f"{str(text)[:60]!r} is no file that was sent here: give {_HOW}")


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
