"""The page in other languages: a language is one file, `languages/CODE.json`.

    {"name": "Deutsch", "same": ["LoRA+"], "texts": {"Training steps": "Trainingsschritte"}}

Its keys are the page's English texts, so that no part of the page knows of it; what a file lacks stays English. Where a
browser asks for English, it receives what it always did. For another language the texts of the configuration are
replaced as it is sent, and the file goes along as Gradio's own `i18n_translations`, for what handlers send later
(`scripts/translate.js`).

python -m studio.web.i18n --missing de        texts of the page that the file lacks
python -m studio.web.i18n --unused de         texts of the file that the page does not have at its start
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from html import escape, unescape
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple

from starlette.datastructures import Headers

FOLDER = Path(__file__).parent / "languages"
SCRIPT = Path(__file__).parent / "scripts" / "translate.js"
ENGLISH, COOKIE = "en", "studio_language"
Say = Callable[[str, bool], str]  # (English text, whether it must have a translation) -> the text to show

_TEXTS = ("label", "info", "placeholder", "title")  # props that are texts
_VALUES = ("button", "downloadbutton", "uploadbutton")  # components whose value is one
_RANGE = re.compile(r" \(from ([^()]+?)(?: to ([^()]+?))?\)(\.?)$")  # behind the description of a setting
_TAG = re.compile(r"(<[^>]*>)")
_SPOKEN = re.compile(r'(?<= )(aria-label|title|placeholder)="([^"]*)"')
_MARK = re.compile(r"^(#+ |- )?(.*)$")
_CODE = ("code", "pre", "script", "style", "kbd")  # not language
_PATHS = ("/", "~", "\\")
_OWN = re.compile(r"LoRA Studio( |$)")  # the name, and the version behind it
_WORD = re.compile(r"[A-Za-z]{2}")


class Language(NamedTuple):
    """name: in the language itself; same: English texts that read the same in it; texts: by English text."""

    name: str
    same: frozenset[str]
    texts: dict[str, str]


@cache
def languages() -> dict[str, Language]:
    """{code: language} of the files that are there, without English."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        held = json.loads(path.read_text("utf-8"))
        found[path.stem] = Language(held["name"], frozenset(held.get("same", ())), held["texts"])
    return found


# Which ---------------------------------------------------------------------------------------------------------------

_asked: ContextVar[str] = ContextVar("language", default=ENGLISH)


def asked() -> str:
    """The language of the page that is sent now."""
    return _asked.get()


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """What is sent inside is in this language."""
    token = _asked.set(code)
    try:
        yield
    finally:
        _asked.reset(token)


def wanted(headers: Mapping[str, str]) -> str:
    """The language that a request asks for: the one chosen on the page, else the browser's first that there is."""
    chosen = SimpleCookie()
    try:
        chosen.load(headers.get("cookie", ""))
    except CookieError:
        chosen.clear()
    there = {ENGLISH, *languages()}
    if COOKIE in chosen and chosen[COOKIE].value in there:
        return chosen[COOKIE].value
    ranked = []
    for place, part in enumerate(headers.get("accept-language", "")[:1000].split(",")):
        name, _, quality = part.strip().partition(";q=")
        try:
            ranked.append((-float(quality or 1), place, name.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    return next((code for _, _, code in sorted(ranked) if code in there), ENGLISH)


class Speaks:
    """ASGI middleware: the page and its configuration are sent in the language that the browser asks for."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/", "/config"):
            return await self.app(scope, receive, send)
        with speaking(wanted(Headers(scope=scope))):
            await self.app(scope, receive, send)


# The texts of a page -------------------------------------------------------------------------------------------------


def translated(config: Any, code: str) -> Any:
    """The page's configuration in a language; `config` is left as it is."""
    language = languages()[code]

    def say(text: str, needed: bool) -> str:
        return language.texts.get(text, text)

    spoken = [{**one, "props": said(one["type"], one["props"], say)} for one in config["components"]]
    script = SCRIPT.read_text("utf-8").replace("LANGUAGE", json.dumps(code))
    js = f"() => {{ ({config['js'] or '() => {}'})(); ({script})(); }}"
    return {**config, "components": spoken, "i18n_translations": {code: language.texts}, "js": js}


def said(kind: str, props: dict[str, Any], say: Say) -> dict[str, Any]:
    """The props of a component of this kind, with every text of theirs as `say` has it."""
    found = dict(props)
    for name in _TEXTS:
        if isinstance(props.get(name), str):
            found[name] = _line(props[name], say)
    value = props.get("value")
    if isinstance(value, str) and value:
        if kind in _VALUES:
            found["value"] = _line(value, say)
        elif kind == "html":
            found["value"] = _html(value, say)
        elif kind == "markdown":
            found["value"] = "\n".join(_marked(line, say) for line in value.split("\n"))
    if isinstance(props.get("choices"), list | tuple):
        found["choices"] = [_choice(one, say) for one in props["choices"]]
    return found


def _line(text: str, say: Say, needed: bool = True) -> str:
    """A description of a setting ends with its range, which is a text of its own."""
    stripped = text.strip()
    if not _WORD.search(stripped) or stripped.startswith(_PATHS) or _OWN.match(stripped):
        return text
    reach = _RANGE.search(stripped)
    if reach is None:
        return text.replace(stripped, say(stripped, needed))
    low, high, stop = reach.groups()
    around = " (from {} to {})" if high else " (from {})"
    core = stripped[: reach.start()] + stop
    spoken = say(core, needed)
    end = stop if stop and spoken.endswith(stop) else ""
    return spoken.removesuffix(end) + say(around, needed).format(low, high) + end


def _choice(choice: Any, say: Say) -> Any:
    """(name, value): a name that is its own value may be translated and need not be: it is the setting's word."""
    if not isinstance(choice, list | tuple) or len(choice) != 2 or not isinstance(choice[0], str):
        return choice
    pair = (_line(choice[0], say, choice[0] != choice[1]), choice[1])
    return list(pair) if isinstance(choice, list) else pair


def _marked(line: str, say: Say) -> str:
    mark, text = _MARK.fullmatch(line).groups()  # type: ignore[union-attr]
    return (mark or "") + _line(text, say)


def _html(text: str, say: Say) -> str:
    """What is read or read out of it; tags stay, and so does code."""
    parts, inside = _TAG.split(text), ""
    for at, part in enumerate(parts):
        if at % 2 == 0:
            plain = unescape(part)
            spoken = plain if inside else _line(plain, say)
            parts[at] = part if spoken == plain else escape(spoken, quote=False)
            continue
        name = part.strip("</>").partition(" ")[0].lower()
        if inside:
            inside = "" if part.startswith("</") and name == inside else inside
        elif name in _CODE and not part.startswith("</"):
            inside = name
        parts[at] = _SPOKEN.sub(lambda hit: f'{hit[1]}="{escape(_line(unescape(hit[2]), say))}"', part)
    return "".join(parts)


def texts(config: Any) -> dict[str, bool]:
    """{text of the page: whether a language must have it}, in the page's order."""
    found: dict[str, bool] = {}

    def say(text: str, needed: bool) -> str:
        found[text] = needed or found.get(text, False)
        return text

    sent = set(config["page"][""]["components"])
    for one in config["components"]:
        if one["id"] in sent:
            said(one["type"], one["props"], say)
    return found


def missing(there: Mapping[str, bool], code: str) -> list[str]:
    """Of the texts of a page, as `texts` finds them, those that the language must have and has not."""
    language = languages()[code]
    known = {*language.texts, *language.same}
    return [text for text, needed in there.items() if needed and text not in known]


def _page_texts() -> dict[str, bool]:
    """Of the page as its owner sees it, and as a visitor of a public studio does."""
    from tempfile import TemporaryDirectory

    from studio.server.settings import Settings
    from studio.web.app import build

    found: dict[str, bool] = {}
    with TemporaryDirectory() as folder:
        for public in (False, True):
            settings = Settings(workspace=Path(folder), browser=False, public=public)
            found.update(texts(build(settings).get_config_file()))
    return found


def main() -> int:
    from argparse import ArgumentParser

    parser = ArgumentParser(prog="python -m studio.web.i18n", description="What a language lacks.")
    parser.add_argument("--missing", metavar="CODE", choices=list(languages()), help="texts that its file lacks")
    parser.add_argument("--unused", metavar="CODE", choices=list(languages()), help="texts that the page lacks")
    given = parser.parse_args()
    if not (given.missing or given.unused):
        parser.error("give --missing or --unused")
    there = _page_texts()
    if given.missing:
        lacks = missing(there, given.missing)
    else:
        language = languages()[given.unused]
        lacks = [text for text in (*language.texts, *language.same) if text not in there]
    for text in lacks:
        print(json.dumps(text, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
