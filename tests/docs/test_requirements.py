"""requirements.txt, pyproject.toml and README's front matter say the same thing."""

import ast
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ranges() -> dict[str, SpecifierSet]:
    wanted = map(Requirement, project()["dependencies"])
    return {canonicalize_name(r.name): r.specifier for r in wanted}


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            (exact,) = pin.specifier
            assert exact.operator == "==" and "*" not in exact.version, f"{line} is not an exact version"
            found[canonicalize_name(pin.name)] = exact.version
    return found


def front_matter() -> dict[str, str]:
    block = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README must begin with the front matter of a Space"
    return {key.strip(): value.strip().strip('"') for key, value in (x.split(":", 1) for x in block[1].splitlines())}


def test_requirements_and_pyproject_name_the_same_packages():
    assert set(pins()) == set(ranges())


def test_every_package_that_is_imported_is_asked_for():
    extras = [name for group in project()["optional-dependencies"].values() for name in group]
    asked = {canonicalize_name(Requirement(line).name) for line in extras} | set(ranges())
    sold_as = packages_distributions()
    lacking = set()
    # In the versions that Gradio, huggingface_hub and pydantic need; `spaces` is there on a Space alone.
    brought = {"anyio", "gradio-client", "httpx", "starlette", "tqdm", "spaces", "pydantic-core"}
    for file in (ROOT / "studio").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for top in {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "studio"}:
                names_of = {canonicalize_name(name) for name in sold_as.get(top, [top])}
                if not names_of & (asked | brought):
                    lacking.add(f"{file.name}: {top}")
    assert not lacking


def test_every_tested_version_is_inside_its_range():
    outside = {name: version for name, version in pins().items() if not ranges()[name].contains(version)}
    assert not outside


def test_the_front_matter_agrees():
    said = front_matter()
    assert said["sdk"] == "gradio" and said["sdk_version"] == pins()["gradio"]
    assert project()["requires-python"] == f">={said['python_version']}"
    assert (ROOT / said["app_file"]).is_file()
    assert said["license"] == project()["license"].lower()
    assert len(said["short_description"]) <= 60  # what a Space shows


def test_readme_has_the_two_commands_word_for_word():
    readme = (ROOT / "README.md").read_text()
    assert "\npip install -r requirements.txt && python launch.py\n" in readme
    marked = re.search(r"<!-- test command -->(.*?)<!-- end -->", readme, re.DOTALL)
    assert marked and "\npip install -r requirements.txt -e '.[test]' && python -m pytest\n" in marked[1]


def locked() -> dict[str, tuple[str, int]]:
    """{name: (version, number of hashes)} of requirements.lock, of this platform's line where there are several."""
    text, found = (ROOT / "requirements.lock").read_text(), {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        line, *hashes = block.replace("\\", "").split("--hash=")
        wanted = Requirement(line.strip())
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", said.strip()) for said in hashes) and "://" not in block
        if not wanted.marker or wanted.marker.evaluate():
            (exact,) = wanted.specifier
            found[canonicalize_name(wanted.name)] = (exact.version, len(hashes))
    return found


def test_the_lock_holds_the_tested_set_with_hashes():
    lock, anew = locked(), "run: nox -s lock"
    assert all(count for _, count in lock.values()), anew
    assert {name: lock[name][0] for name in pins()} == pins(), anew
    extras = project()["optional-dependencies"]
    wanted = [Requirement(line) for line in [*project()["dependencies"], *extras["test"], *extras["mcp"]]]
    own = [Requirement(line) for r in wanted if r.name == "lora-studio" for extra in r.extras for line in extras[extra]]
    for need in [*wanted, *own]:
        if need.name != "lora-studio":
            assert need.specifier.contains(lock[canonicalize_name(need.name)][0]), f"{need}: {anew}"


def test_the_command_the_types_and_own_extras_are_there():
    module, _, function = project()["scripts"]["lora-studio"].partition(":")
    assert callable(getattr(import_module(module), function))
    assert (ROOT / "studio" / "py.typed").is_file()
    for lines in project()["optional-dependencies"].values():
        own = [r for r in map(Requirement, lines) if r.name in ("studio", project()["name"])]
        assert all(r.name == project()["name"] and r.extras <= set(project()["optional-dependencies"]) for r in own)


def test_the_image_runs_as_a_plain_user_and_holds_what_it_copies():
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] not in ("root", "0")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (.+)", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists() and name in allowed
    version = re.search(r"^ARG PYTHON=(.+)", text, re.MULTILINE)
    assert version and f">={version[1]}" == project()["requires-python"]
