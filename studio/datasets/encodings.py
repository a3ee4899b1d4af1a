"""Text in the encodings that people's editors write: decoded where that is as good as certain, else refused."""

import codecs
import re

_BOMS = (  # longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_MARKS = frozenset("‘’‚“”„«»–—…•·€£§°©®™")
_HIGH = re.compile(r"[^\x00-\x7f]+")
_LETTERS = [  # what one language writes: a text of another code page mixes them
    set("àâæçéèêëîïôœùûüÿ"), set("äöüßé"), set("áéíñóúü"), set("áâãàçéêíóôõú"), set("àèéìíòóùú"), set("åäöæøé"),
    set("éëïèöüóá"),
]  # fmt: skip
_PAIRS = frozenset(("éé", "öß", "üß", "äß", "çã", "çõ"))
_ENDS = frozenset("ìòù")  # stand at the end of a word alone, in Italian and in "où"
_WORDS = frozenset("àéèóá")  # are words by themselves


def decode(data: bytes, complete: bool = True) -> tuple[str | None, bool]:
    """(text, whether its encoding was guessed); None where it can't be known.

    UTF-8, UTF-16 and UTF-32 are certain. Windows-1252 is guessed where the accented letters are those of one Western
    language and stand singly in words of plain letters: in Windows-1251 or GBK whole words are made of them.
    complete: False where the end was cut off, perhaps within a character.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _strict(data, encoding, complete), False
    if data.count(0) > len(data) // 4:  # UTF-16 without a mark, of mostly Latin letters
        little = data[1::2].count(0) >= data[::2].count(0)
        return _strict(data, "utf-16-le" if little else "utf-16-be", complete), False
    text = _strict(data, "utf-8", complete)
    if text is not None:
        return text, False
    text = _strict(data, "cp1252", complete)
    return (text, True) if text is not None and _is_western(text) else (None, False)


def _strict(data: bytes, encoding: str, complete: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, final=complete)
    except UnicodeDecodeError:
        return None


def _is_western(text: str) -> bool:
    used: set[str] = set()
    for found in _HIGH.finditer(text):
        run = "".join(letter for letter in found[0] if letter not in _MARKS).lower()
        before, after = _is_letter(text[: found.start()][-1:]), _is_letter(text[found.end() :][:1])
        if len(run) > 1 and run not in _PAIRS:
            return False
        if run and not (before or after or run in _WORDS) or (after and run in _ENDS):
            return False
        used |= set(run)
    return any(used <= letters for letters in _LETTERS)


def _is_letter(text: str) -> bool:
    return text.isascii() and text.isalpha()
