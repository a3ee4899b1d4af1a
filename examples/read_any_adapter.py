"""Read an adapter file of any program: what is in it, what fits a base model, and what does not, with the reason.

    python examples/read_any_adapter.py FILE.safetensors [--base NAME]

NAME is "starter", a diffusers folder, a .safetensors checkpoint, or a downloaded model of the hub.
"""

import argparse

from studio.adapters import attach_file, describe, describe_text, read_adapter
from studio.basemodels import load_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--base", help="also place it on this base model")
    given = parser.parse_args()

    file = read_adapter(given.file)  # no code in it is run; a damaged file raises AdapterError with one sentence
    print(describe_text(describe(file)))
    for key, why in list(file.unknown.items())[:10]:
        print(f"not understood: {key}: {why}")

    if given.base:
        base = load_base(given.base)
        adapter = attach_file(file, base.modules(), strength=0.8)
        print(adapter.report)  # how many layers fit; adapter.report.unused has a line for each that does not
        for key, why in adapter.report.unused[:10]:
            print(f"unused: {key}: {why}")
        adapter.detach()


if __name__ == "__main__":
    main()
