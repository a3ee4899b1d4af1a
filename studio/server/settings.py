"""One Settings object, from flags and STUDIO_* variables. Imports nothing heavy, so that --help answers at once."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from studio.errors import ConfigError
from studio.server.caption_server import caption_server
from studio.server.permissions import OWN, REACHED, VISITED, Capabilities

HOME = ("127.0.0.1", "localhost", "::1")  # addresses that only this machine reaches
_YES, _NO = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}
_VARIABLES = (
    "Each flag can also be set by a variable: STUDIO_HOST, STUDIO_PORT, STUDIO_SHARE, STUDIO_AUTH, STUDIO_AUTH_FILE, "
    "STUDIO_WORKSPACE, STUDIO_NO_BROWSER, STUDIO_PUBLIC, STUDIO_OPEN, STUDIO_MCP, STUDIO_CAPTION_SERVER. "
    "A flag wins over its variable. STUDIO_HOSTS: more names that the page may be called by, with commas between. "
    "STUDIO_CAPTION_KEY: the key of the caption server. STUDIO_MERGED_MB: megabytes that weights with merged adapters "
    "may take beside the base's own."
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, raised as ConfigError, instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


@dataclass(frozen=True)
class Settings:
    """How the studio is opened."""

    host: str = "127.0.0.1"
    port: int | None = None  # None: the first free one from 7860 on
    share: bool = False  # ask Gradio for a public link
    auth: tuple[str, str] | None = None  # user, password
    workspace: Path | None = None  # None: Workspace.open decides
    browser: bool = True  # open the page in a browser
    on_space: bool = False  # running as a Hugging Face Space
    space: str = ""  # its name there, owner/name
    public: bool = False  # everyone who comes has a small workspace of their own
    open: bool = False  # everything is allowed, whoever can open the page
    mcp: bool = False  # the named endpoints also as tools of the Model Context Protocol
    hosts: tuple[str, ...] = ()  # more names that the page may be called by, as behind a proxy
    caption_server: str = ""  # an OpenAI-compatible server that may be asked for captions
    caption_key: str = field(default="", repr=False)  # of its API

    @classmethod
    def from_arguments(cls, arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> "Settings":
        """Flags, then STUDIO_* variables, then defaults. A Space listens on every interface, with no browser, and is
        public unless its owner sets STUDIO_OPEN=1.

        Raises ConfigError for an unknown flag or a value that can't be used; --help prints and exits.
        """
        given = _parser().parse_args(arguments)
        on_space = bool(environ.get("SPACE_ID")) or environ.get("SYSTEM") == "spaces"
        port = given.port or environ.get("STUDIO_PORT") or (environ.get("GRADIO_SERVER_PORT") if on_space else None)
        workspace = given.workspace or environ.get("STUDIO_WORKSPACE")
        opened = given.unrestricted or _flag(environ, "STUDIO_OPEN")
        settings = cls(
            host=given.host or environ.get("STUDIO_HOST") or ("0.0.0.0" if on_space else cls.host),
            port=_port(port) if port else None,
            share=given.share or _flag(environ, "STUDIO_SHARE"),
            auth=_login(given.auth, given.auth_file, environ),
            workspace=Path(workspace) if workspace else None,
            browser=not (given.no_browser or on_space or _flag(environ, "STUDIO_NO_BROWSER")),
            on_space=on_space,
            space=environ.get("SPACE_ID", ""),
            public=given.public or _flag(environ, "STUDIO_PUBLIC") or (on_space and not opened),
            open=opened,
            mcp=given.mcp or _flag(environ, "STUDIO_MCP"),
            hosts=_hosts(environ),
            **caption_server(environ, given.caption_server),
        )
        if settings.public and settings.open:
            raise ConfigError("--public limits what --unrestricted (--open) allows: choose one of them.")
        if settings.public and settings.mcp:
            raise ConfigError("--mcp hands the studio to programs of one person: leave it out with --public.")
        if settings.public and settings.caption_server:
            raise ConfigError("--caption-server is not for strangers: leave it out with --public.")
        return settings

    @property
    def home(self) -> bool:
        """Whether only this machine reaches the page."""
        return self.host in HOME and not self.share

    @property
    def allows(self) -> Capabilities:
        """What whoever opens the page may do."""
        if self.public:
            return VISITED
        allowed = OWN if self.open or self.home else REACHED
        return replace(allowed, caption_server=self.caption_server, caption_key=self.caption_key)

    @property
    def warning(self) -> str:
        """One sentence when nothing keeps strangers from a studio that is not public; else empty."""
        if self.home or self.public or self.auth:
            return ""
        what = "do everything here, and read folders of this machine" if self.open else "use and change everything here"
        return f"Anyone who reaches this page can {what}: add --auth-file FILE, or --public."


def _parser() -> Parser:
    parser = Parser(prog="launch.py", description="Open LoRA Studio in the browser.", epilog=_VARIABLES)
    parser.add_argument("--host", metavar="H", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", metavar="P", help="port to listen on (the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link")
    parser.add_argument("--auth", metavar="USER:PASS", help="ask visitors for this name and password")
    parser.add_argument(
        "--auth-file", metavar="FILE", help="the same, from a file: the list of processes doesn't show it"
    )
    parser.add_argument("--workspace", metavar="DIR", help="where datasets, runs and images are kept")
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")
    parser.add_argument(
        "--public", action="store_true", help="for strangers: everyone has a small workspace, for some hours"
    )
    parser.add_argument("--unrestricted", action="store_true", help="allow everything to everyone who opens the page")
    parser.add_argument("--open", dest="unrestricted", action="store_true", help=argparse.SUPPRESS)  # its older name
    parser.add_argument("--mcp", action="store_true", help="also serve the endpoints as MCP tools")
    parser.add_argument(
        "--caption-server", metavar="URL", help="a server like Ollama or vLLM that may be asked for captions"
    )
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ConfigError(f"The port must be a number from 1 to 65535 (you gave {text!r}).")
    return int(text)


def _auth(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise ConfigError("Give --auth, or its file, a name and a password with a colon between them: USER:PASS.")
    return user, password


def _login(text: str | None, file: str | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """(user, password) of --auth or --auth-file, else of their variables; None where no password is set."""
    for given, path in ((text, file), (environ.get("STUDIO_AUTH"), environ.get("STUDIO_AUTH_FILE"))):
        if given and path:
            raise ConfigError("A password is given twice, itself and by a file: choose --auth or --auth-file.")
        if given or path:
            return _auth(given or _in_file(Path(str(path))))
    return None


def _in_file(path: Path) -> str:
    """USER:PASS from a file of one line."""
    try:
        with open(path.expanduser(), encoding="utf-8") as stream:
            lines = stream.read(4096).split("\n")
    except (OSError, RuntimeError, ValueError):
        raise ConfigError(f"The file of --auth-file can't be read: {str(path)[:200]}.") from None
    if any(line.strip() for line in lines[1:]):
        raise ConfigError("The file of --auth-file must hold one line: USER:PASS.")
    return lines[0].rstrip("\r")


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value not in _YES | _NO:
        raise ConfigError(f"{name} must be 1 or 0 (you gave {environ[name]!r}).")
    return value in _YES


def _hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names from STUDIO_HOSTS, and what a Space tells of its own."""
    names = [*environ.get("STUDIO_HOSTS", "").split(","), *environ.get("SPACE_HOST", "").split(",")]
    return tuple(name.strip().lower() for name in names if name.strip())
