"""What README says of the code as a whole: which way imports point, what a part needs, how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parent.parent
TOGETHER = """
import sys, threading
import studio.adapters, studio.captioning, studio.datasets, studio.generation, studio.training  # as web/warm.py does
assert not {"diffusers", "transformers"} & set(sys.modules)
sys.setswitchinterval(1e-5)  # seconds: the threads take turns often
begin, failed = threading.Barrier(2), []

def count_tokens():
    from studio.basemodels.tokens import token_counter
    token_counter("starter")

def load_a_captioner():
    import studio.captioning.starter

def count_numbers():
    from studio.training import config_from
    from studio.training.parameter_count import parameter_line
    parameter_line(config_from({"data.folder": "-"}).adapter, "starter")

def draw():
    from studio.generation import Recipe, generate
    generate(Recipe(prompt="x", steps=1, width=64, height=64))

def run(work):
    begin.wait()
    try:
        work()
    except Exception as error:
        failed.append(f"{work.__name__}: {error!r}")

threads = [threading.Thread(target=run, args=(globals()[name],)) for name in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("; ".join(failed) or 0)
"""


@pytest.mark.full
@pytest.mark.parametrize(
    "pair",
    [["count_tokens", "load_a_captioner"], ["load_a_captioner", "count_numbers"], ["count_numbers", "draw"]],
    ids="+".join,
)
def test_two_threads_that_need_a_library_first_both_get_it(pair):
    done = subprocess.run([sys.executable, "-c", TOGETHER, *pair], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]


LAYERS = (  # from the top; what stands together may import each other
    {"web", "cli", "__main__"},
    {"services"},
    {"training"},
    {"generation"},
    {"captioning"},
    {"datasets"},
    {"basemodels"},
    {"adapters"},
    {"devices"},
    {"server", "workspace"},
    {"building", "hub", "schema", "libraries", "errors", "text"},
)


def imports():
    """(file, module) of every import in studio, wherever it stands in its file."""
    for file in sorted((ROOT / "studio").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((file, f"{node.module}.{name.name}") for name in node.names)


def test_every_import_points_down():
    height = {name: place for place, layer in enumerate(reversed(LAYERS)) for name in layer}
    found, up = set(), []
    for file, module in imports():
        names = module.split(".")
        if names[0] != "studio" or names[1] not in height:
            continue
        mine = file.relative_to(ROOT / "studio").parts[0].removesuffix(".py")
        found |= {mine, names[1]}
        if mine in height and height[names[1]] > height[mine]:
            up.append(f"{file.relative_to(ROOT)} imports {module}")
    assert not up and found >= set(height) - {"__main__"}


def test_only_the_libraries_folder_imports_transformers_and_diffusers():
    lazy = {"transformers", "diffusers"}
    found = [
        f"{file.name}: {module}"
        for file, module in imports()
        if file.parent.name != "libraries" and module.split(".")[0] in lazy
    ]
    assert not found


def test_adapters_need_torch_and_safetensors_alone():
    """Every other package that the studio installs is out of reach."""
    script = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"platformdirs", "pydantic", "gradio", "diffusers", "transformers", "PIL", "psutil"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
import torch
from studio.adapters import AdapterSpec, attach, attach_file, read_adapter
model = torch.nn.Sequential(torch.nn.Linear(4, 4))
adapter = attach(model, AdapterSpec(rank=2))
adapter.save(sys.argv[1])
adapter.detach()
print(attach_file(read_adapter(sys.argv[1]), {"unet": model}).report)
"""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-c", script, f"{folder}/a.safetensors"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "1 of 1 layers applied", done.stderr[-400:]


@pytest.mark.parametrize("folder", ["studio", "tests"])
def test_no_file_is_longer_than_a_reader_bears(folder):
    long = {
        file.name: count
        for file in (ROOT / folder).rglob("*.py")
        if (count := len(file.read_text("utf-8").splitlines())) >= 500
    }
    assert not long


def test_no_function_is_longer_than_80_lines():
    long = {
        f"{file.relative_to(ROOT)}: {node.name}": node.end_lineno - node.lineno + 1
        for file in (ROOT / "studio").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 80
    }
    assert not long


def test_every_part_of_the_page_is_built_from_its_context():
    """`build(context)` stands in every file of a tab that builds components, and builders have no other shape."""
    wrong = []
    for file in (ROOT / "studio" / "web").rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        builds = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build"]
        names = [one.arg for node in builds for one in node.args.args]
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        wires = any(isinstance(one, ast.FunctionDef) and one.name == "wire" for node in classes for one in node.body)
        if builds and file.name != "app.py" and names not in (["context"], ["context", "prefix"]):
            wrong.append(f"{file.name}: build({', '.join(names)})")
        if wires and not builds:
            wrong.append(f"{file.name} has no build(context)")
    assert not wrong
