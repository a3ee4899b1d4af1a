"""Write the generated parts of the documentation from the code.

    python docs/generate.py            # rewrite what is stale
    python docs/generate.py --check    # name what is stale, exit 1

A generated part stands in a page between `<!-- generated: NAME -->` and `<!-- end generated -->`; everything around it
is written by hand. `BLOCKS` says which function makes which part.
"""

import argparse
import contextlib
import functools
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end generated -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0])]
    lines += [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# schemas


def fields(schema: Mapping[str, Any], start: str = "") -> Iterable[tuple[str, Mapping[str, Any], bool]]:
    """(dotted name, JSON schema of one field, whether it is required) for every field of a pydantic JSON schema."""
    root = schema

    def walk(node: Mapping[str, Any], start: str):
        for name, field in node.get("properties", {}).items():
            target = root.get("$defs", {}).get(str(field.get("$ref", "")).rpartition("/")[2])
            if target and "properties" in target and "description" not in field:
                yield from walk(target, f"{start}{name}.")
            else:
                yield f"{start}{name}", {**(target or {}), **field}, name in node.get("required", ())

    return walk(schema, start)


def _plain(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field without its "or null"."""
    options = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    return {**field, **options[0]} if len(options) == 1 else field


def _values(field: Mapping[str, Any]) -> str:
    """What the field takes: choices, a range, or the kind of value."""
    field = _plain(field)
    if "enum" in field:
        return ", ".join(f"`{choice}`" if choice else "empty" for choice in field["enum"])
    kind = {
        "boolean": "`true`, `false`",
        "string": "text",
        "array": "list",
        "integer": "whole number",
        "object": "table",
    }
    words = kind.get(field.get("type", ""), "number" if field.get("type") == "number" else "")
    low = f"from {_big(field['minimum'])}" if "minimum" in field else ""
    low = low or (f"above {_big(field['exclusiveMinimum'])}" if "exclusiveMinimum" in field else "")
    high = f"to {_big(field['maximum'])}" if "maximum" in field else ""
    high = high or (f"below {_big(field['exclusiveMaximum'])}" if "exclusiveMaximum" in field else "")
    if field.get("type") == "string" and "maxLength" in field:
        high = f"of at most {field['maxLength']:,} characters"
    if field.get("type") == "array" and "maxItems" in field:
        high = f"of at most {field['maxItems']:,}"
    return " ".join(filter(None, (words, low, high)))


def _big(number: float) -> str:
    powers = {2**31: "2^31", 2**32: "2^32", 2**63: "2^63", 2**64: "2^64"}
    return powers.get(int(number)) or (f"{int(number):,}" if number == int(number) else f"{number:g}")


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = field.get("default")
    if value in (None, "", []):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "<br>".join(f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def schema_rows(model: Any, section: str | None = None) -> list[tuple[str, ...]]:
    """A row for every field of a pydantic model; of one section ("" for what stands in none), or of all."""
    return [
        (f"`{key}`", _default(field, required), _values(field), _sentence(field.get("description", "")))
        for key, field, required in fields(model.model_json_schema())
        if section is None or _section(key) == section
    ]


def _section(key: str) -> str:
    return key.partition(".")[0] if "." in key else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def settings() -> str:
    """RunConfig, section by section."""
    from studio.training.config import RunConfig

    sections = dict.fromkeys(_section(key) for key, _, _ in fields(RunConfig.model_json_schema()))
    titles = {section: f"#### `{section}`" if section else "#### The run itself" for section in sections}
    head = ("setting", "default", "values", "what it does")
    return "\n".join(f"{titles[section]}\n\n" + table(head, schema_rows(RunConfig, section)) for section in sections)


def other_names() -> str:
    """Settings under the names of other programs: what they become, and what is refused with a translation."""
    from studio.training.aliases import ALIASES, REFUSED

    by_key: dict[str, list[str]] = {}
    for name, alias in ALIASES.items():
        by_key.setdefault(alias.key, []).append(f"`{name}`")
    accepted = table(
        ("accepted name", "setting here"), [(", ".join(names), f"`{key}`") for key, names in by_key.items()]
    )
    rows = [(f"`{name}`", _sentence(why("…"))) for name, why in REFUSED.items()]
    return f"{accepted}\n{table(('refused name', 'why, and what to write'), rows)}"


def recipe() -> str:
    from studio.generation.recipe import Recipe

    return table(("field", "default", "values", "what it does"), schema_rows(Recipe))


def base_options() -> str:
    from studio.basemodels.choice import BaseChoice

    return table(("option", "default", "values", "what it does"), schema_rows(BaseChoice))


def schedulers() -> str:
    from studio.generation.schedulers import NAMES

    return ", ".join(f"`{name}`" for name in NAMES) + "\n"


def base_defaults() -> str:
    """Each base's own settings, where they are not the schema's."""
    from studio.basemodels.defaults import VARIANTS

    rows = [(variant.title, _said(variant.settings) or "the defaults") for variant in VARIANTS]
    return table(("base", "settings where nothing is said"), rows)


def taken(*titles: str) -> str:
    """What a run takes of these bases where nothing is said; of the second on, what differs from the first."""
    from studio.basemodels.defaults import VARIANTS

    known = {variant.title: variant.settings for variant in VARIANTS}
    first = known[titles[0]]
    lines = [f"**{titles[0]}** takes {_said(first)}."]
    for title in titles[1:]:
        other = {key: value for key, value in known[title].items() if first.get(key) != value}
        lines.append(f"**{title}**: the same, but {_said(other)}." if other else f"**{title}**: the same.")
    return "\n\n".join(["", *lines, ""])


TAKEN = {  # of the page of worked examples
    "sd": ("SD 1.5",),
    "sdxl": ("SDXL",),
    "tagged": ("Illustrious", "NoobAI", "NoobAI v-prediction", "Pony"),
    "three": ("SD 3.5",),
    "flux": ("FLUX.1 dev", "FLUX.1 schnell"),
    "z": ("Z-Image", "Z-Image Turbo"),
}


def presets() -> str:
    """What each purpose changes, and for which bases something else."""
    from studio.basemodels.defaults import PURPOSES, VARIANTS

    rows = []
    for purpose, values in PURPOSES.items():
        rows.append((purpose, "every other base", _said(values)))
        own = [(variant.title, variant.purposes[purpose]) for variant in VARIANTS if purpose in variant.purposes]
        rows += [(purpose, title, _said(values) or "nothing") for title, values in own]
    return table(("preset", "for", "settings that it changes"), rows)


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={_shown(value)}`" for key, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def captioners() -> str:
    """What each captioner is, and its settings."""
    from studio.captioning import list_captioners

    rows = []
    for name, kind in list_captioners().items():
        said = [
            f"`{key}` ({_default(field, required)}): {_sentence(field.get('description', ''))}"
            for key, field, required in fields(kind.settings.model_json_schema())
        ]
        rows.append((f"`{name}`", kind.about, "<br>".join(said) or "none"))
    return table(("captioner", "what it is", "settings (default)"), rows)


# the adapter library


def adapters_api() -> str:
    """The public names of `studio.adapters`, with signatures and the first paragraph of their docstrings."""
    import studio.adapters

    rows = []
    for name in studio.adapters.__all__:
        thing = getattr(studio.adapters, name)
        if not callable(thing):
            rows.append((f"`{name}`", ", ".join(f"`{key}`" for key in thing)))
            continue
        if not inspect.isclass(thing):
            rows.append((f"`{name}({_arguments(thing)})`", _first(thing)))
            continue
        rows.append((f"`{name}`", _first(thing)))
        for key, member in vars(thing).items():
            if key.startswith("_") or not inspect.getdoc(member):
                continue
            if isinstance(member, property):
                rows.append((f"`{name}.{key}`", _first(member)))
            elif inspect.isfunction(member):
                rows.append((f"`{name}.{key}({_arguments(member)})`", _first(member)))
    spec = inspect.getdoc(studio.adapters.AdapterSpec)
    return table(("name", "what it does"), rows) + f"\n### AdapterSpec\n\n```text\n{spec}\n```\n"


def _arguments(function: Callable) -> str:
    """The names of a function's arguments with their defaults; hints are left out."""
    parameters = inspect.signature(function).parameters.values()
    return ", ".join(
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in parameters
        if parameter.name != "self"
    )


def _first(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


# programs


@functools.cache
def help_text(*words: str) -> str:
    """What a command prints with --help at 100 columns: `help_text("train")` of the command line; "launch.py" apart."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONPATH": str(ROOT)}
    if words == ("launch.py",):
        command = [sys.executable, "launch.py", "--help"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        text = done.stdout
    else:
        from studio.__main__ import main

        out, before = io.StringIO(), dict(os.environ)
        os.environ.update(environment)
        try:
            with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
                main([*words, "--help"])
        finally:
            os.environ.clear()
            os.environ.update(before)
        text = out.getvalue()
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```\n"


def launch() -> str:
    return help_text("launch.py")


def commands() -> str:
    """The commands of the command line: those with a page of their own, then those made from operations."""
    import typer

    from studio.cli import operations
    from studio.cli.main import make_app

    made = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
    plain = {name for name, _ in operations.commands()}
    parts = [_command(name, command) for name, command in made.items() if name not in plain]
    rows = [_row(name, made[name]) for name in sorted(plain)]
    head = ("command", "flags", "what it does")
    return "\n".join([*parts, "### Commands on the workspace\n", OPERATIONS, table(head, rows)])


OPERATIONS = """\
Every operation of the page is a command too. Lists and tables are given as JSON, answers are printed as JSON, and a job
is waited for. Parameters have the same names, ranges and meaning as in the [API](api.md#endpoints).
"""
SETTINGS = "Every setting of a run is a flag too, `--section.key VALUE`: see [all settings](training.md#all-settings)."


def _visible(command: Any) -> list[Any]:
    return [param for param in command.params if not getattr(param, "hidden", False)]


def _name(param: Any) -> str:
    """`--data FOLDER`, `RUN.toml`"""
    if param.param_type_name == "argument":
        return f"`{(param.metavar or param.name).strip('[]')}`"
    value = "" if getattr(param, "is_flag", False) else f" {param.metavar or param.type.name.upper()}"
    return ", ".join(f"`{flag}{value}`" for flag in sorted(param.opts, key=len))


def _command(name: str, command: Any) -> str:
    """A command with a page of its own. Flags that are settings of a run are listed where they have a short name."""
    params = [
        param
        for param in _visible(command)
        if not (name == "train" and param.opts[0].count(".") and len(param.opts) == 1)
    ]
    rows = [(_name(param), _sentence(param.help or "")) for param in params]
    words = [param.metavar or param.name for param in params if param.param_type_name == "argument"]
    usage = f"```text\npython -m studio {' '.join([name, *words, '[flags]'])}\n```\n"
    more = [SETTINGS + "\n"] if name == "train" else []
    return "\n".join(
        [
            f"### {name}\n",
            " ".join((command.help or "").split()) + "\n",
            usage,
            table(("argument or flag", "what it does"), rows),
            *more,
        ]
    )


def _row(name: str, command: Any) -> tuple[str, str, str]:
    """A command that is made from an operation, in one line."""
    params = _visible(command)
    words = [(param.metavar or param.name) for param in params if param.param_type_name == "argument"]
    flags = ", ".join(f"`{flag}`" for param in params if param.param_type_name == "option" for flag in param.opts)
    return f"`{' '.join([name, *words])}`", flags, " ".join((command.help or "").split())


def endpoints() -> str:
    """Every operation: what it does, its parameters, and what the caller has to know."""
    from studio.services.operations import all_operations

    parts = []
    for name, operation in sorted(all_operations().items()):
        lines = [f"### {name}", "", " ".join(operation.summary.partition("\n\n")[0].split()), ""]
        if operation.fields:
            rows = schema_rows(operation.model)
            lines += [table(("parameter", "default", "values", "what it is"), rows)]
        notes = [f"needs the permission *{operation.needs}*"] * bool(operation.needs)
        notes += ["uses the device, one call at a time"] * operation.device
        notes += [f"`{operation.upload}` takes uploaded files"] * bool(operation.upload)
        notes += [f"answers a file ({operation.file})"] * bool(operation.file)
        if notes:
            lines += [f"{_sentence('; '.join(notes))}.", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def limits() -> str:
    """What a visitor may use in public mode."""
    from studio.server.callers import MANY, SHARE
    from studio.server.permissions import GB, MB, VISITED

    rows = [(f"`{key}`", f"at most {most:,g}" if most else "off") for key, most in VISITED.most]
    rows += [
        ("a run, or any other job", f"at most {VISITED.longest / 60:.0f} minutes"),
        ("an image", f"at most {VISITED.side} pixels a side, {VISITED.count} at once, {VISITED.steps} steps"),
        (
            "the images of one call",
            f"at most {VISITED.drawing / 60:.0f} minutes on the device, {VISITED.shared} seconds while others wait, "
            f"{VISITED.shared / SHARE:.0f} while more than {MANY} do",
        ),
        ("calls that draw", f"one at a time, and {VISITED.line - 1} that waits"),
        ("calls that wait, of any kind", f"at most {VISITED.calls}"),
        ("an upload", f"at most {VISITED.upload / MB:.0f} MB"),
        ("a workspace", f"at most {VISITED.room / GB:g} GB"),
    ]
    rows += [(what, "not allowed") for what, key in FORBIDDEN.items() if not getattr(VISITED, key)]
    return table(("what", "limit for a visitor"), rows)


FORBIDDEN = {  # what it is called: the permission
    "paths of the machine": "folders",
    "base models and captioners that are not built in": "models",
    "publishing to the hub": "publish",
}

BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {  # name: (page, what makes it)
    "settings": ("training.md", settings),
    "base-defaults": ("training.md", base_defaults),
    "presets": ("training.md", presets),
    "other-names": ("training.md", other_names),
    "captioners": ("captioning.md", captioners),
    "recipe": ("generation.md", recipe),
    "schedulers": ("generation.md", schedulers),
    "base-options": ("base-models.md", base_options),
    "adapters-api": ("adapters-library.md", adapters_api),
    "endpoints": ("api.md", endpoints),
    "commands": ("cli.md", commands),
    "limits": ("deployment-and-security.md", limits),
    "launch": ("deployment-and-security.md", launch),
    **{f"taken-{name}": ("worked-examples.md", partial(taken, *titles)) for name, titles in TAKEN.items()},
}


def fresh(page: str) -> str:
    """The page's text with every generated part as the code makes it now. Raises ValueError for an unknown part."""

    def fill(found: re.Match) -> str:
        name = found[2]
        if BLOCKS.get(name, ("", None))[0] != page:
            raise ValueError(f"{page}: no part is called {name}")
        return f"{found[1]}\n{BLOCKS[name][1]()}\n{found[4]}"

    text = (DOCS / page).read_text("utf-8")
    missing = [name for name, (home, _) in BLOCKS.items() if home == page and f"<!-- generated: {name} -->" not in text]
    if missing:
        raise ValueError(f"{page}: it lacks the part {', '.join(missing)}")
    return _BLOCK.sub(fill, text)


def pages() -> list[str]:
    """The pages that hold generated parts."""
    return sorted({page for page, _ in BLOCKS.values()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="name what is stale and exit 1, write nothing")
    check = parser.parse_args().check
    stale = [page for page in pages() if fresh(page) != (DOCS / page).read_text("utf-8")]
    for page in stale:
        print(f"docs/{page} {'is stale: run python docs/generate.py' if check else 'written'}")
        if not check:
            (DOCS / page).write_text(fresh(page), "utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
