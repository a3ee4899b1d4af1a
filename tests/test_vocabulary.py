"""Code, texts and docs use the words that people from diffusers, kohya's scripts, A1111 or ComfyUI search for.

A word of BANNED comes back in no identifier, comment, text, page or file name. Old names that are still read stand in
OLD_NAMES; words of the language itself, which captions hold, in LANGUAGE.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = {  # whole words, in one or both numbers: what to write
    "picture": "image",
    "codec": "VAE",
    "learnt": "learned",
    "certificate": "export check",
    "shelf": "adapter library",
    "film": "timeline",
    "ladder": "checkpoint sweep",
    "rack": "adapter cache",
    "beat": "poller",
    "hung": "attached",
    "lent": "on ZeroGPU",
    "thrown": "in the trash",
    "binned": "in the trash",
    "memorising": "memorization",
    "memorise": "memorize",
}
PHRASES = {  # in texts and comments, not in identifiers
    "by heart": "memorized",
    "set aside": "moved to the trash",
    "numbers that are no numbers": "NaN / inf",
    "numbers are trained": "trainable parameters",
    "has in mind": "what it is",
    "look inside": "inspect",
    "prior images": "regularization images",
    "held-out look": "validation",
}
CODE = {  # identifiers: what to write
    "write_whole": "atomic_write",
    "is_whole": "is_valid_unicode",
    "look_at": "inspect",
    "look_inside": "inspect",
    "use_of": "applied_fields",
    "Learner": "TrainStep",
    "Pieces": "MicroBatcher",
    "Drawn": "NoisedBatch",
    "throw_away": "move_to_trash",
    "bring_back": "restore",
    "put_last": "enqueue",
    "take_out": "dequeue",
    "in_words": "user_message",
    "plainly": "show_errors",
}
OLD_NAMES = {  # read or answered as release 0.1 called them, each as a text of its own
    "pictures", "pictures.json", "shelf.json", "certificate", "looks", "learner", "set the files aside",
    "import_pictures", "list_pictures", "remove_pictures", "delete_picture", "restore_picture", "picture_recipe",
    "picture",
}  # fmt: skip
LANGUAGE = {  # words of captions and prompts, not of the studio
    "studio/basemodels/vocabulary.py": "words that any base may be told",
    "studio/datasets/encodings.py": "codecs of text, as Python calls them",
    "studio/captioning/triggers.py": "common words, which are no triggers",
}
_WORD = re.compile("|".join(rf"\b{word}s?\b" for word in BANNED) + "|" + "|".join(PHRASES), re.IGNORECASE)
_MAYBE = re.compile(  # most files have none of them and need no closer reading
    "(?<![a-z])(?:" + "|".join(BANNED) + ")|(?i:" + "|".join(PHRASES) + ")|"
    + "|".join([*CODE, *map(str.capitalize, BANNED), *map(str.upper, BANNED)])
)  # fmt: skip
_QUOTED = re.compile(r'"[^"\n]*"|`[^`\n]*`')  # an old name that a comment or a page speaks of


def words_of(name: str) -> set[str]:
    """The words of an identifier in small letters, without a plural's s."""
    return {part.lower().removesuffix("s") for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def wrong_in(source: str) -> list[str]:
    """Banned words of a Python source, with their lines."""
    if not _MAYBE.search(source):
        return []
    found, banned = [], {word.removesuffix("s") for word in BANNED}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text, wrong = token.string, ""
        if token.type == tokenize.NAME:
            wrong = text if text in CODE or words_of(text) & banned else ""
        elif token.type == tokenize.COMMENT or text.startswith(('"""', 'r"""')):
            wrong = " ".join(_WORD.findall(_QUOTED.sub("", text.replace('"""', ""))))
        elif token.type == tokenize.STRING and text.strip("frb").strip("\"'") not in OLD_NAMES:
            wrong = " ".join(_WORD.findall(text.replace("_", " ")))
        if wrong:
            found.append(f"{token.start[0]}: {wrong}")
    return found


@pytest.mark.parametrize("folder", ["studio", "docs", "examples", "tests"])
def test_no_banned_word_comes_back_in_code(folder):
    wrong = [
        f"{place}:{line}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        if (place := file.relative_to(ROOT).as_posix()) not in LANGUAGE
        and not place.startswith(("tests/frozen/", "tests/interop/test_frozen.py", "tests/test_vocabulary.py"))
        for line in wrong_in(file.read_text("utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_banned_word_comes_back_in_pages_and_styles():
    files = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "studio").rglob("*.css")]
    files += (ROOT / "studio").rglob("*.js")
    wrong = [
        f"{file.relative_to(ROOT)}:{number}: {found}"
        for file in files
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        for found in _WORD.findall(_QUOTED.sub("", line))
    ]
    assert not wrong, "\n".join(wrong)


def test_old_names_and_exceptions_are_still_needed():
    code = "\n".join(file.read_text("utf-8") for file in (ROOT / "studio").rglob("*.py"))
    assert not [name for name in OLD_NAMES if f'"{name}"' not in code]
    assert not [place for place in LANGUAGE if not _WORD.search((ROOT / place).read_text("utf-8"))]


@pytest.mark.parametrize(
    "source",
    [
        "pictures = 1",
        "class PictureBox: pass",
        "x = 'Drawing a picture'",
        "# a codec",
        '"""Learnt by heart."""',
        "is_whole(x)",
    ],
)
def test_a_banned_word_is_found(source):
    assert wrong_in(source)
    assert not wrong_in('images = 1  # of "pictures.json"\n')
