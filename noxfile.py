"""What contributors run, as sessions in environments of their own: `nox -l` lists them, `nox -s check` runs one.

With --no-venv they run in the environment that is active, without installing anything.
"""

from pathlib import Path

import nox
from nox.virtualenv import PassthroughEnv

nox.options.sessions = ["check", "test"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, extra: str = "test") -> None:
    """What README's test command installs; nothing under --no-venv."""
    if not isinstance(session.virtualenv, PassthroughEnv):
        session.install("-r", "requirements.txt", "-e", f".[{extra}]")


@nox.session
def check(session: nox.Session) -> None:
    """Linters, types, and whether the generated documentation is current."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "docs/generate.py", "--check")


@nox.session
def test(session: nox.Session) -> None:
    """The default tests; arguments after -- go to pytest."""
    install(session)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """The rest of each cross product."""
    install(session)
    session.run("python", "-m", "pytest", "-m", "full", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in site/."""
    if not isinstance(session.virtualenv, PassthroughEnv):
        session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The short benchmarks; a name after -- runs one: nox -s bench -- drawing --rounds 3."""
    install(session)
    name, *options = session.posargs or ["adapter_speed", "--small"]
    session.run("python", "-m", f"tests.benchmarks.{name}", *options)


LOCK_HEADER = """\
# The whole tested set, indirect dependencies and test tools included, with the SHA-256 of every file, for Linux, macOS
# and Windows. Install with: pip install --require-hashes -r requirements.lock && pip install --no-deps -e .
#
# Made by `nox -s lock`: requirements.txt and the extra test are installed in a new environment, and uv
# pins what was installed there. torch is the exception: an environment may hold a CPU or ROCm build (2.13.0+cpu), whose
# files are not those of the default index, so its build tag is dropped and the default package of the same version is
# pinned, with the CUDA packages that it needs on Linux. For another build of torch use requirements.txt.
"""


@nox.session
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew from what requirements.txt installs today."""
    install(session, "test")
    session.install("uv>=0.9")
    tested = Path(session.create_tmp()) / "tested.txt"
    frozen = session.run("pip", "freeze", "--exclude-editable", "--exclude", "torch", "--exclude", "uv", silent=True)
    tested.write_text(frozen or "", "utf-8")
    write_lock(session, tested)


def write_lock(session: nox.Session, tested: Path) -> None:
    """tested: the versions to pin, as `pip freeze` prints them."""
    options = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    files = ["-c", "requirements.txt", "-c", str(tested), "pyproject.toml", "-o", "requirements.lock"]
    Path("requirements.lock").unlink(missing_ok=True)
    session.run("uv", "pip", "compile", "--python-version", "3.11", *options, "--extra", "test", *files)
    lock = Path("requirements.lock")
    lock.write_text(LOCK_HEADER + lock.read_text("utf-8"), "utf-8")
