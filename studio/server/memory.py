"""Memory that is free again is given back to the system.

glibc keeps what was freed in a heap for every few threads, where one small value that stays holds a large piece: after
minutes with many visitors and attackers more than half of what the heaps held was free. And Python looks for values
that hold each other only once a quarter as many as the libraries brought have come, each of which may be the whole of a
request.
"""

import asyncio
import ctypes
import gc
import os
import sys
import time

from studio.server.permissions import MB

HEAPS = 2  # that threads share; glibc makes eight for each core
M_ARENA_MAX = -8  # the name of that number in malloc.h
LOOK, GROWN = 5, 32 * MB  # seconds between two looks, and bytes of growth that are given back at once
EVERY, WORK = 15, 1.0  # otherwise seconds between two, where the process has worked for so many meanwhile


def settle() -> None:
    """Once all libraries are read: what is there stays, so that looking for what may go is quick."""
    gc.collect()
    gc.freeze()


def few_heaps() -> None:
    """Before threads are started."""
    if library := _glibc():
        library.mallopt(M_ARENA_MAX, HEAPS)


async def keep_small() -> None:
    """Give back what is free, soon where the process has grown and at times where it has worked."""
    library, held, when, worked = _glibc(), 0, 0.0, 0.0
    while library:
        await asyncio.sleep(LOOK)
        if not gc.get_freeze_count() or time.process_time() - worked < WORK:  # it is being read, or was idle
            continue
        if resident() > held + GROWN or time.monotonic() - when > EVERY:
            gc.collect()
            await asyncio.to_thread(library.malloc_trim, 0)
            held, when, worked = resident(), time.monotonic(), time.process_time()


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as line:
        return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
