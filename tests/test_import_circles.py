"""No module of a package needs itself, by whichever way its imports lead, those inside functions included."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported(file: Path, package: str, modules: set[str]) -> set[str]:
    """The modules of `package` that a file of it imports; "__init__" stands for the package itself."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module == package:
            found |= {name.name if name.name in modules else "__init__" for name in node.names}
        elif node.module.startswith(f"{package}."):
            found.add(node.module[len(package) + 1 :].split(".")[0])
    return found


@pytest.mark.parametrize("package", ["datasets", "training"])
def test_no_module_imports_itself_through_others(package):
    files = {file.stem: file for file in (ROOT / "studio" / package).glob("*.py")}
    graph = {name: imported(file, f"studio.{package}", set(files)) for name, file in files.items()}
    assert sum(map(len, graph.values())) > 20
    TopologicalSorter(graph).prepare()  # raises CycleError with the way round
