"""The heavy libraries are read once the page can be seen, by one thread; what needs them waits for that.

Two threads that import parts of one package at the same time can each hold what the other needs. Python then hands out
a half-read module, and a call right after the start failed for that.

On a Hugging Face Space all is read before the page can be seen: there Gradio starts the hot reload of the package
`spaces`, whose import hook looks for modules while Python's global import lock is held, and two threads that import
then wait for each other for ever.
"""

import importlib
import logging
import pkgutil
import threading
from pathlib import Path

from studio.server.memory import settle

_read = threading.Event()
_read.set()  # unless a thread reads them


def begin() -> None:
    _read.clear()
    threading.Thread(target=_warm, daemon=True, name="warm").start()


def wait() -> None:
    """Until no thread reads them."""
    _read.wait()


def read_everything() -> None:
    """All modules of the studio and what they import; what an extra would bring is left out."""
    for name in modules():
        try:
            importlib.import_module(name)
        except Exception:  # reported by the first action that needs what is missing
            logging.getLogger(__name__).debug("%s can't be read", name, exc_info=True)


def modules() -> list[str]:
    """The names of the studio's modules, but for those of the command line."""
    found = (one.name for one in pkgutil.walk_packages([str(Path(__file__).parents[1])], "studio."))
    return [name for name in found if not name.startswith("studio.cli") and not name.endswith("__main__")]


def _warm() -> None:
    try:
        import studio.basemodels.stable_diffusion
        import studio.training.trainer  # noqa: F401
    except Exception:  # reported by the first action that needs what is missing
        logging.getLogger(__name__).debug("warming up failed", exc_info=True)
    finally:
        settle()
        _read.set()
