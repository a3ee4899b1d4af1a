"""Another process without a second import of torch, which costs seconds: a fork of this one."""

import os
import sys
from collections.abc import Callable
from pathlib import Path


class Forked:
    """`run()` in a child of this process, whose exit status is what it returns. stderr and stdout go to `log`."""

    def __init__(self, run: Callable[[], int | None], log: Path, **environ: str):
        self.log = log
        log.touch()
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                os.environ |= environ
                file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                status = run() or 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)  # nothing of the parent's is undone

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
