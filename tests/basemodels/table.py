"""The table of families in README, made by running their tests:

    python -m tests.basemodels.table

A cell is ticked when the tests that show it for that family passed just now; a dash: no test shows it; n/a: there is no
such thing.
"""

import contextlib
import io
import sys
from collections import defaultdict

import pytest

TITLES = {
    "sd1": "SD 1.x",
    "sd2": "SD 2.x",
    "sd2-v": "SD 2.x (v)",
    "sdxl": "SDXL",
    "sd3": "SD 3 / 3.5",
    "flux-dev": "FLUX.1 dev",
    "flux-schnell": "FLUX.1 schnell",
    "z-image": "Z-Image",
}
COLUMNS = {  # what a test shows
    "load": ("test_same_pixels_as_the_familys_own_pipeline",),
    "train": ("test_one_image_is_learned_and_its_adapter_goes_out_into_diffusers",),
    "TE training": ("test_text_encoders_train_and_are_read_by_diffusers",),
    "generate": ("test_same_pixels_as_the_familys_own_pipeline",),
    "kohya layout": ("test_the_kohya_layout_goes_out_and_back",),
    "diffusers layout": ("test_one_image_is_learned_and_its_adapter_goes_out_into_diffusers",),
    "single file": (
        "test_a_single_file_draws_what_its_folder_draws",
        "test_a_denoiser_alone_draws_with_the_rest_from_beside_it",
    ),
    "quantised": ("test_a_base_in_eight_bits_draws_and_trains",),
    "offload": (
        "test_what_is_cached_leaves_the_device",
        "test_an_offloaded_base_draws_the_same",
        "test_an_offloaded_base_gives_the_same_gradients",
    ),
}


NOT_THERE = {  # what a family has not: nobody adapts its language model, and its makers give it as a folder
    ("z-image", "TE training"),
    ("z-image", "single file"),
}


class Results:
    """A plugin of pytest: {test: {family: whether all of it passed}}."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, bool]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report) -> None:
        if report.skipped or report.when != "call" and report.passed:
            return
        name, _, rest = report.nodeid.rpartition("::")[2].partition("[")
        for family in TITLES:
            if f"-{family}-" in f"-{rest.rstrip(']')}-":
                self.found[name][family] = self.found[name].get(family, True) and report.passed


def table(found: dict[str, dict[str, bool]]) -> str:
    """Markdown."""
    rows = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    for family, title in TITLES.items():
        row = [title]
        for column, tests in COLUMNS.items():
            cells = [found[test][family] for test in tests if family in found[test]]
            nothing = "n/a" if (family, column) in NOT_THERE else "–"
            row.append(nothing if not cells else "✓" if all(cells) else "✗")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    results = Results()
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", "tests/basemodels"], plugins=[results])
    print(table(results.found))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
