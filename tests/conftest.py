"""Two workers for a whole run, one process for a part of it; and where the default tests stand against their budget."""

import gc
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a worker a core, and children as well
BUDGET = Path(__file__).parents[1] / "docs" / "dev" / "testing.md"
FIRST = ("browser", "chaos")  # tests of many seconds, which should not be the last of one worker alone
FORKING = (
    "chaos/test_killed",
    "chaos/test_starved",
    "cli/test_cli",
    "server/test_space",
)  # whose default tests use tests/forking.py
REST = "the rest"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Starting two workers costs two imports of torch: that pays for all the tests, and not for a file or a folder."""
    return min(2, os.cpu_count() or 1) if runs_everything(config) else 0


def runs_everything(config: pytest.Config) -> bool:
    """Whether all tests run: no file or folder was named."""
    return config.args_source is config.ArgsSource.TESTPATHS and not config.option.collectonly


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What collecting has imported is never looked at again: 600,000 objects, a third of a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> LoadScopeScheduling:
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):
    """A worker takes a file at a time, whose fixtures are then made once.

    One worker takes all of the browser: two pages at once starve each other; and one what forks, so that a single
    process reads the libraries for that. Groups of `loadgroup` would be written into the names of tests, of which
    `--last-failed` in one process then finds none again.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if folder_of(nodeid) == "browser":
            return "browser"
        return "forking" if file.removeprefix("tests/").removesuffix(".py") in FORKING else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"full", "slow"} <= {mark.name for mark in item.iter_markers()}:
            raise pytest.UsageError(f"{item.nodeid} is marked full and slow: choose one.")
    items.sort(key=lambda item: folder_of(item.nodeid) not in FIRST)  # stable: else in their order


def folder_of(nodeid: str) -> str:
    """The folder: "browser" for "tests/browser/test_runs.py::test_x", "" for a file of tests itself."""
    return ([""] + nodeid.partition("::")[0].split("/")[1:-1])[-1]


def budget() -> dict[str, tuple[set[str], float]]:
    """{name: (folders, seconds)} as docs/dev/testing.md says."""
    table = BUDGET.read_text("utf-8").partition("## Budget")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`(]+?) (?:\((.*)\) )?\| (\d+) \|$", table, re.MULTILINE)
    return {name: (set(re.findall(r"`(\w+)`", folders)), float(seconds)) for name, folders, seconds in rows}


@pytest.fixture(scope="session")
def quick_export_check() -> Iterator[None]:
    """The export check draws one step, in a clean base that is read once.

    It takes more than half of the time of a run of a few steps.
    """
    from studio.training import export_check

    bases: dict = {}
    attached: list = []

    def load_base(name: str, **options):
        while attached:
            attached.pop().detach()
        key = (name, *options.items())
        base = bases[key] = bases.get(key) or LOAD(name, **options)
        return base

    def attach_file(*given):
        attached.append(ATTACH(*given))
        return attached[-1]

    LOAD, ATTACH = export_check.load_base, export_check.attach_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_check, "STEPS", 1)
        patch.setattr(export_check, "load_base", load_base)
        patch.setattr(export_check, "attach_file", attach_file)
        yield


@pytest.fixture(scope="session")
def small_starter_folder(tmp_path_factory) -> Path:
    from tests import small_starter

    return small_starter.make(tmp_path_factory.mktemp("starter") / "starter")


@pytest.fixture(scope="module")
def small_starter(small_starter_folder) -> Iterator[Path]:
    """For a file of tests, the starter is one whose steps take a tenth of the time."""
    from tests import small_starter

    with small_starter.instead(small_starter_folder) as folder:
        yield folder


class Budget:
    """Adds up the seconds of setup, call and teardown of each group of folders, in this process or in the workers."""

    def __init__(self) -> None:
        self.groups, self.spent = budget(), Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = folder_of(report.nodeid)
        self.spent[next((name for name, (own, _) in self.groups.items() if folder in own), REST)] += report.duration

    def pytest_terminal_summary(self, terminalreporter, config: pytest.Config) -> None:
        workers = config.getoption("numprocesses", None) or 1
        terminalreporter.section("seconds of the default tests: spent of the budget")
        for name, (_, seconds) in self.groups.items():
            spent = self.spent[name] / workers
            over = "  OVER: mark some `full`, see docs/dev/testing.md" if spent > seconds else ""
            terminalreporter.write_line(f"{name:24} {spent:5.0f} of {seconds:3.0f}{over}")


class NotReached:
    """Names what a run of all tests did not come to: it was interrupted, or its time was over (`.ci/run`)."""

    def __init__(self) -> None:
        self.collected: set[str] = set()
        self.finished: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.finished.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.INTERRUPTED:
            return
        of = Counter(nodeid.partition("::")[0] for nodeid in self.collected)
        left = Counter(nodeid.partition("::")[0] for nodeid in self.collected - self.finished)
        terminalreporter.section("not reached")
        for file, count in sorted(left.items()):
            terminalreporter.write_line(f"{file}  {count} of {of[file]}")


def pytest_configure(config: pytest.Config) -> None:
    if runs_everything(config) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NotReached())
    default = config.option.markexpr == config.getini("addopts")[1]
    if default and runs_everything(config) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budget())
