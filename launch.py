"""Opens the studio. `python launch.py --help` lists the flags."""

import atexit
import os
import sys
from contextlib import suppress

from studio.errors import StudioError
from studio.server.settings import Settings


def main() -> int:
    try:
        settings = Settings.from_arguments(sys.argv[1:])
        print("Opening LoRA Studio …", flush=True)
        from studio.web.app import serve  # after the flags are read: importing Gradio takes seconds

        serve(settings)
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def end(code: int) -> None:
    """End the process now: threads that still draw inside torch would abort the interpreter's own way out."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed terminal
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())
