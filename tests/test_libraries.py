"""Threads that ask the large libraries for their first pieces at the same time, as a page and a job do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOGETHER = """
import sys, threading
import studio.basemodels.family
sys.setswitchinterval(1e-5)  # seconds: the threads take turns often
begin, failed = threading.Barrier(2), []

def count_tokens():
    from studio.basemodels.tokens import token_counter
    token_counter("starter")

def load_a_captioner():
    import studio.captioning.starter

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


@pytest.mark.parametrize("pair", [("count_tokens", "load_a_captioner"), ("count_tokens", "draw")], ids="+".join)
def test_two_threads_that_need_a_library_first_both_get_it(pair):
    done = subprocess.run([sys.executable, "-c", TOGETHER, *pair], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]


def test_only_studio_libraries_asks_transformers_and_diffusers_for_names():
    lazy = {"transformers", "diffusers"}
    elsewhere = []
    for file in sorted((ROOT / "studio").rglob("*.py")):
        if file.parent.name == "libraries":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            asked = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            asked += [node.module] if isinstance(node, ast.ImportFrom) else []
            elsewhere += [f"{file.name}: {name}" for name in asked if name in lazy]
    assert not elsewhere
