"""What is free again is given back to the system."""

import json
import subprocess
import sys

import pytest

from studio.server import memory
from studio.server.permissions import MB

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="not glibc")

APART = """
import asyncio, ctypes, gc, json
from studio.server import memory
library = memory._glibc()
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
memory.LOOK, memory.WORK, gc.get_freeze_count = 0.01, 0, lambda: 1
before, pieces, stay = memory.resident(), [], []
for _ in range(1500):
    pieces.append(library.malloc(60_000))
    ctypes.memset(pieces[-1], 1, 60_000)
    stay.append(library.malloc(5000))
for one in pieces:
    library.free(one)
held = memory.resident()

async def look():
    task = asyncio.create_task(memory.keep_small())
    await asyncio.sleep(0.3)
    task.cancel()

asyncio.run(look())
print(json.dumps([before, held, memory.resident()]))
"""


def test_memory_that_is_free_between_values_that_stay_is_given_back():
    """Half of what glibc held was free after an attack, and stayed. In a process of its own, whose heaps are small."""
    done = subprocess.run([sys.executable, "-c", APART], capture_output=True, text=True, check=True)
    before, held, after = json.loads(done.stdout)
    assert held > before + 60 * MB and after < held - 60 * MB
