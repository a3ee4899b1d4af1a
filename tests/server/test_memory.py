"""What is free again is given back to the system."""

import asyncio
import ctypes
import gc

import pytest

from studio.server import memory
from studio.server.permissions import MB
from tests.serving import run_apart

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="not glibc")


def test_memory_that_is_free_between_values_that_stay_is_given_back(monkeypatch):
    """Half of what glibc held was free after an attack, and stayed."""
    library = memory._glibc()
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    monkeypatch.setattr(memory, "LOOK", 0.01)
    monkeypatch.setattr(memory, "WORK", 0)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1)
    before = memory.resident()
    pieces, stay = [], []
    for _ in range(1500):
        pieces.append(library.malloc(60_000))
        ctypes.memset(pieces[-1], 1, 60_000)
        stay.append(library.malloc(5000))
    for one in pieces:
        library.free(one)
    held = memory.resident()

    async def look() -> None:
        task = asyncio.create_task(memory.keep_small())
        await asyncio.sleep(0.3)
        task.cancel()

    run_apart(look())
    after = memory.resident()
    for one in stay:
        library.free(one)
    assert held > before + 60 * MB and after < held - 60 * MB
