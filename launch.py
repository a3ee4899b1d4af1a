"""Opens the studio. `python launch.py --help` lists the flags."""

import sys

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


if __name__ == "__main__":
    sys.exit(main())
