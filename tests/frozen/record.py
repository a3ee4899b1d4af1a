"""The recording beside the archive: what 0.1 was called by, and what it answered. Part of make.py."""

import argparse
import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tests.frozen.calls import CALLS, COMMANDS
from tests.frozen.fixture import RECORDING, filled, shape, unpack
from tests.frozen.replay import answer_of, client_of, commanded, launched, mcp_tools, places_in


def record(target: Path, code: Path) -> None:
    """target: a folder to unpack the archive in. code: 0.1's."""
    root = unpack(target / "called")
    os.environ["HOME"] = str(root)
    found = {"starter": starter_hash(), "cli": flags(), "launch": launch_flags(), "presets": presets()}
    found |= {"run": run_keys(), "recipe": recipe_keys(), "variables": environment(code)}
    check_flags(found["cli"])
    elsewhere = places_in(unpack(target / "commanded"))
    found["commands"] = [command(line, elsewhere) for line in COMMANDS]
    places = places_in(root)
    with launched(code, root) as url, client_of(url, target / "downloads") as client:
        found["mcp"] = mcp_tools(url)
        described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
        found["endpoints"] = {name: [one["parameter_name"] for one in facts["parameters"]]
                              for name, facts in described.items()}  # fmt: skip
        found["calls"] = [one | {"answer": recorded(client, one, places)} for one in CALLS]
    asked = {f"/{one['endpoint']}" for one in CALLS}
    assert asked == set(found["endpoints"]), asked ^ set(found["endpoints"])
    RECORDING.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(client: Any, call: dict[str, Any], places: dict[str, Any]) -> Any:
    answer = answer_of(client, call, places)
    print(call["endpoint"], str(answer)[:300], file=sys.stderr, flush=True)
    return shape(answer, tuple(call.get("maps", ())))


def command(line: list[str], places: dict[str, Any]) -> dict[str, Any]:
    """Its exit code is 0; what it prints, as JSON where it is."""
    code, printed, said = commanded("--workspace", str(places["ROOT"] / "workspace"), *filled(line, places))
    print(line, printed[:300], file=sys.stderr, flush=True)
    assert code == 0, (line, said)
    return {"line": line, "printed": shape(json.loads(printed), ("energy", "overlap")) if "--json" in line else "text"}


def check_flags(commands: dict[str, list[str]]) -> None:
    """Every flag of every command is in one of COMMANDS."""
    given = {(line[0], word) for line in COMMANDS for word in line}
    missed = [(name, flag) for name, known in commands.items() for flag in known if (name, flag) not in given]
    assert not missed, missed


# Facts of 0.1, by its own functions -----------------------------------------------------------------------------------


def starter_hash() -> dict[str, str]:
    from studio.workspace import ASSETS, sha256_of

    folder = ASSETS / "starter" / "unet"
    return {file.name: sha256_of(file) for file in folder.glob("*.safetensors")}


def flags() -> dict[str, list[str]]:
    """{command: its flags}."""
    from studio.cli import _parser

    (commands,) = [one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction)]
    hidden = ("-h", "--help", "--workspace")
    return {
        name: [flag for action in parser._actions for flag in action.option_strings if flag not in hidden]
        for name, parser in commands.choices.items()
    }


def launch_flags() -> list[str]:
    from studio.settings import _parser

    return [flag for action in _parser()._actions for flag in action.option_strings]


def environment(code: Path) -> list[str]:
    """The variables that --help names."""
    from studio.settings import _parser

    said = io.StringIO()
    with redirect_stdout(said):
        _parser().print_help()
    words = said.getvalue().replace(",", " ").replace(".", " ").replace(":", " ").split()
    return sorted({word for word in words if word.startswith("STUDIO_")})


def presets() -> dict[str, Any]:
    from studio.training.presets import PRESETS

    return PRESETS


def run_keys() -> dict[str, Any]:
    """{key: [default, another value that may stand alone]}"""
    from studio.training.config import RunConfig, config_from, dotted

    plain = dotted(config_from({"data.folder": "x"}))
    fields = {}
    for name, field in RunConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        fields |= {f"{name}.{leaf}": one for leaf, one in inner.items()} if inner else {name: field}
    needs = {"adapter.alpha": 8.0, "training.text_encoder_rate": 1e-5, "training.shift": 2.0, "data.folder": "y"}
    found = {}
    for key, default in plain.items():
        tried = [needs[key]] if key in needs else others(default, fields[key].annotation)
        found[key] = [default, next(one for one in tried if _takes(config_from, {"data.folder": "x", key: one}))]
    return found


def recipe_keys() -> dict[str, Any]:
    """The same for a picture's recipe."""
    from studio.generation import Recipe

    needs = {"source": "a.png", "mask": "b.png", "adapters": [{"file": "a.safetensors", "strength": 0.5}],
             "scheduler": "Euler"}  # fmt: skip
    plain = Recipe(prompt="x").model_dump(mode="json")
    found = {}
    for key, default in plain.items():
        tried = [needs[key]] if key in needs else others(default, Recipe.model_fields[key].annotation)
        found[key] = [default, next(one for one in tried if _takes(Recipe, {"prompt": "x", key: one}))]
    return found


def others(default: Any, kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return [one for one in get_args(kind) if one != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default * 2 or 1, default + 1, 64]
    if isinstance(default, float):
        return [default / 2 or 0.5, default + 1, default + 0.1]
    return [["a fox"]] if isinstance(default, list) else ["other"]


def _takes(make: Any, values: dict[str, Any]) -> bool:
    from studio.errors import StudioError

    try:
        if "prompt" in values:
            make(**values)
        else:
            make(values)
    except StudioError:
        return False
    return True
