"""Issue forms, workflows, hooks and the site's configuration: they parse, and run what exists."""

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FORMS = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]


def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


def commands(flow: dict) -> str:
    return "\n".join(step.get("run", "") for job in flow["jobs"].values() for step in job["steps"])


def test_issue_forms_have_what_github_asks_for():
    assert {path.stem for path in FORMS} == {"bug", "feature"}
    for path in FORMS:
        form = yaml.safe_load(path.read_text("utf-8"))
        assert form["name"] and form["description"]
        asked = [field for field in form["body"] if field["type"] != "markdown"]
        names = [field["id"] for field in asked]
        assert len(set(names)) == len(names)
        assert all(field["attributes"].get("label") for field in asked)
        assert all(len(set(f["attributes"]["options"])) > 1 for f in asked if f["type"] == "dropdown")


def test_ci_runs_the_script_of_the_repository():
    flow = workflow("ci.yml")
    assert "bash .ci/run" in commands(flow) and (ROOT / ".ci" / "run").is_file()
    assert flow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 90 for job in flow["jobs"].values())


def test_the_pinned_versions_are_audited_on_a_schedule():
    flow = workflow("audit.yml")
    assert flow[True]["schedule"]  # YAML reads the key `on` as true
    assert "pip-audit" in commands(flow)
    files = [entry["file"] for entry in flow["jobs"]["audit"]["strategy"]["matrix"]["include"]]
    assert set(files) == {"requirements.txt", "requirements.lock"} and all((ROOT / name).is_file() for name in files)


def test_hooks_run_what_exists():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    for hook in hooks:
        words = shlex.split(hook["entry"])
        paths = [word for word in words if "/" in word]
        assert all((ROOT / path).exists() for path in paths)
        re.compile(hook.get("files", ""))
