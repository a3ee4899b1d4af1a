"""requirements.txt, pyproject.toml and README's front matter say the same thing."""

import ast
import re
import sys
import tomllib
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
    # In the versions that Gradio and huggingface_hub need; `spaces` is there on a Space alone.
    brought = {"anyio", "gradio-client", "starlette", "tqdm", "spaces"}
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
