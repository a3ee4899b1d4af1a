"""The documentation: how long README is, whether links resolve, commands exist and generated parts are current."""

import ast
import functools
import re
import shlex
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    ROOT / "tests" / "benchmarks" / "README.md",
]
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and Material make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@functools.cache
def generator():
    """docs/generate.py as a module."""
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    broken = []
    for link in _LINK.findall(prose(page)):
        if link.startswith(("https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
        elif DOCS in page.parents and DOCS not in target.parents:
            broken.append(f"{link} (outside docs/: the site cannot follow it)")
    assert not broken


def test_every_page_is_in_the_site_and_every_image_on_a_page():
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    listed |= {f"dev/{link}" for link in _LINK.findall(prose(DOCS / "dev" / "decisions.md")) if "decisions/" in link}
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    shown = {Path(link).name for page in PAGES for link in _LINK.findall(prose(page))}
    assert {image.name for image in (DOCS / "images").iterdir()} <= shown


@pytest.mark.parametrize("page", generator().pages())
def test_generated_parts_are_current(page):
    assert generator().fresh(page) == (DOCS / page).read_text("utf-8"), "run: python docs/generate.py"


def commands() -> list[list[str]]:
    """Every command of a shell block in the documentation, as words; continued lines are joined."""
    found = []
    for page in PAGES:
        for language, block in _FENCE.findall(page.read_text("utf-8")):
            if language == "sh":
                for line in block.replace("\\\n", " ").splitlines():
                    found += [shlex.split(part, comments=True) for part in line.split("&&")]
    return [words for words in found if words]


def test_commands_name_flags_and_modules_that_exist():
    help_of, wrong = generator().help_text, []
    for words in commands():
        if words[:2] == ["python", "-m"] and words[2].startswith("tests."):
            module = ROOT.joinpath(*words[2].split("."))
            if not (module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()):
                wrong.append(" ".join(words))
            continue
        if "studio" in words and "-m" in words:  # also under accelerate launch
            given = words[words.index("studio") + 1 :]
            if given[:1] == ["--workspace"]:
                given = given[2:]
            text = help_of(given[0]) + help_of()
        elif words[:2] == ["python", "launch.py"]:
            given, text = words[2:], help_of("launch.py")
        else:
            continue
        flags = [word.partition("=")[0] for word in given if word.startswith("--")]
        wrong += [f"{' '.join(words)}: {flag}" for flag in flags if not re.search(rf"{flag}\b", text)]
    assert not wrong


def test_files_that_are_named_exist():
    named = {
        path
        for page in PAGES
        for path in re.findall(r"(?<![\w/-])(?:tests|assets|studio|examples)/[\w./-]+\b", page.read_text("utf-8"))
    }
    assert not [path for path in named if not (ROOT / path.rstrip("./")).exists()]


def test_the_reading_order_names_modules_that_exist():
    rows = re.findall(
        r"^\| [^|]+ \| `(studio/\w+/)` \| (.+) \|$", prose(DOCS / "dev" / "architecture.md"), re.MULTILINE
    )
    assert rows
    missing = [f"{folder}{name}" for folder, text in rows for name in re.findall(r"`(\w+)`", text)]
    assert not [name for name in missing if not (ROOT / f"{name}.py").is_file()]


def test_the_walks_name_functions_that_exist():
    steps = re.findall(r"`(studio/[\w/]+\.py):([\w.]+)`", prose(DOCS / "dev" / "architecture.md"))
    assert len(steps) > 20
    lacking = []
    for file, name in steps:
        tree = ast.parse((ROOT / file).read_text("utf-8")) if (ROOT / file).is_file() else ast.Module([], [])
        for part in name.split("."):  # Class.method, or a function wherever it stands in the file
            kinds = (ast.FunctionDef, ast.ClassDef)
            tree = next((node for node in ast.walk(tree) if isinstance(node, kinds) and node.name == part), None)
            if tree is None:
                lacking.append(f"{file}:{name}")
                break
    assert not lacking


def test_settings_in_commands_exist():
    from studio.training.config import config_from

    for words in commands():
        if "train" in words:
            given = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
            config_from({"data.folder": "-"} | dict(change.split("=", 1) for change in given))


def test_the_site_is_built(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]
    assert (tmp_path / "index.html").is_file() and not (tmp_path / "generate.py").exists()
