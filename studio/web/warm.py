"""The heavy libraries are read once the page can be seen, by one thread; what needs them waits for that.

Two threads that import parts of one package at the same time can each hold what the other needs. Python then hands out
a half-read module, and a call right after the start failed for that.
"""

import logging
import threading

_read = threading.Event()
_read.set()  # unless a thread reads them


def begin() -> None:
    _read.clear()
    threading.Thread(target=_warm, daemon=True, name="warm").start()


def wait() -> None:
    """Until no thread reads them."""
    _read.wait()


def _warm() -> None:
    try:
        import studio.basemodels.stable_diffusion
        import studio.training.trainer  # noqa: F401
    except Exception:  # reported by the first action that needs what is missing
        logging.getLogger(__name__).debug("warming up failed", exc_info=True)
    finally:
        _read.set()
