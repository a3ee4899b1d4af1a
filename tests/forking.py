"""The command line, or another program of ours, in a process of its own without another import of torch (seconds).

The processes are forks of one that has read the libraries and done nothing else: the one that runs the tests has
threads, and torch refuses to compute gradients in a fork of a process whose threads did.
"""

import multiprocessing
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["studio.training.trainer", "studio.cli.main", "studio.basemodels.stable_diffusion"])


class Forked:
    """`main` of a module, `lora-studio` where none is named, called with these arguments.

    It has the variables of this process and `more`; stdout and stderr go to the file `log`.
    """

    def __init__(self, log: Path, *arguments: str, module: str = "studio.cli.main", **more: str):
        self.log = log
        log.touch()
        self.process = _context.Process(target=_run, args=(log, os.getcwd(), os.environ | more, module, arguments))
        self.process.start()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def ended(self) -> bool:
        return self.process.exitcode is not None

    def wait(self) -> int | None:
        """Its exit status, or minus the signal that ended it."""
        self.process.join()
        return self.process.exitcode


def _run(log: Path, folder: str, environ: dict[str, str], module: str, arguments: tuple[str, ...]) -> None:
    main = import_module(module).main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ |= environ
    with open(log, "a", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        sys.exit(main(list(arguments)))
