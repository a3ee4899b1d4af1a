"""What contributors run, as sessions in environments of their own: `nox -l` lists them, `nox -s check` runs one.

With --no-venv they run in the environment that is active, without installing anything.
"""

import nox

nox.options.sessions = ["check", "test"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, extra: str = "test") -> None:
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
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The short benchmarks; a name after -- runs one: nox -s bench -- drawing --rounds 3."""
    install(session)
    name, *options = session.posargs or ["adapter_speed", "--small"]
    session.run("python", "-m", f"tests.benchmarks.{name}", *options)
