"""One definition serves every face: page, endpoint, MCP tool and command."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from studio.cli.operations import WITHOUT, commands
from studio.errors import ConfigError, NotAllowedError
from studio.schema import settings
from studio.server.permissions import VISITED
from studio.services import operations
from studio.services.operations import all_operations, operation
from studio.workspace import Workspace

ROOT = Path(__file__).parent.parent

# Operations that no handler of the page calls by this name: what it calls instead, below the operation, and why.
NOT_ON_THE_PAGE = {
    "run_scorecard": "the run's view, which holds verdict and scores",
    "compare_rerun": "comparison_of, as a sentence",
    "uncooked": "found_of, as tables with block maps",
    "planned_training": "plan_about, as a table",
    "image_influence": "measured_images, a sentence each",
    "run_words": "words_of, as a table with its sentences",
    "list_datasets": "dataset_choices, with labels",
    "open_dataset": "datasets.view, which reads a large dataset once",
    "import_images": "start_import, in the background",
    "undo": "datasets.turn_back",
    "redo": "datasets.turn_back",
    "dataset_history": "the History view reads all of it",
    "mend_dataset": "datasets.mend",
    "edit_captions": "captions.propose and accept: the page keeps what is proposed",
    "stop_captioning": "jobs.stop_job",
    "stop_masks": "jobs.stop_job",
    "stop_training": "jobs.stop_job",
    "job_status": "the jobs bar watches the jobs themselves",
    "list_captioners": "the form is built of the captioners' own schemas",
    "compare_captioners": "start_comparing, with the captioners' settings",
    "list_adapters": "generation.available_adapters, with labels and the live run",
    "add_adapter": "add_adapter_file",
    "generate": "start_generation, in the background",
    "check_prompt": "prompt_problems, of the base in the form",
    "image_recipe": "generation.restored",
    "inspect_adapter": "start_inspection, in the background",
    "merge_adapters": "export_adapters merges what the form holds",
    "draw_grid": "grids.start_grid, with the form's own axes",
    "grid_result": "the grid is shown as it grows",
    "measure_adapter": "start_measuring, with the encoder's fields",
    "measured": "evaluation.newest",
    "list_images": "gallery.find",
    "delete_image": "gallery.remove",
    "restore_image": "gallery.put_back",
    "list_bases": "base_choices, with labels",
    "describe_base": "card_lines",
    "add_base": "remember, after the card was shown",
    "download_base": "start_download",
    "remove_base": "forget",
    "doctor": "start_report, in the background",
    "check_report": "newest_check",
    "list_runs": "all_runs, filtered and sorted",
    "run_status": "run_view",
    "list_queue": "queue_of",
    "publish_result": "newest_publishing",
    "save_as_plain_lora": "export_adapters of one adapter, with the rank for what is no plain LoRA",
    "delete_run": "throw_away, for several at once",
    "compare_runs": "courses and differences, as chart and table",
}


def test_every_operation_and_every_parameter_is_described():
    for name, one in all_operations().items():
        assert one.summary and one.summary[0].isupper(), name
        assert all(field.description for field in one.fields.values()), name


def test_every_number_has_a_range():
    """A size of a thousand million pixels once took all the machine's memory."""
    for name, one in all_operations().items():
        for parameter in settings(one.model):
            if parameter.kind in (int, float):
                assert parameter.low is not None and parameter.high is not None, (name, parameter.name)


def test_every_text_and_list_has_a_longest_length():
    for name, one in all_operations().items():
        for parameter in settings(one.model):
            if parameter.kind in (str, list) and not parameter.choices:
                assert parameter.max_length is not None, (name, parameter.name)


def test_the_page_calls_the_operation_or_what_stands_below_it():
    called = set()
    for file in (ROOT / "studio" / "web").rglob("*.py"):
        if file.name != "api.py":
            nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
            called |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            called |= {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not {name for name in all_operations() if name not in called and name not in NOT_ON_THE_PAGE}
    assert set(NOT_ON_THE_PAGE) <= set(all_operations())


def test_every_operation_is_a_command_or_says_why_not():
    named = {name.replace("-", "_") for name, _ in commands()}
    assert named | set(WITHOUT) == set(all_operations()) and not named & set(WITHOUT)


def test_services_bring_neither_page_nor_command_line_nor_torch():
    script = """
import sys
from studio.services.operations import all_operations
all_operations()
print([name for name in ("torch", "gradio", "typer", "diffusers", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr[-400:]


@pytest.fixture
def doubled():
    @operation()
    def doubled(workspace, number: Annotated[int, Field(ge=1, le=9, description="A number.")] = 2):
        """Twice the number."""
        return 2 * number

    yield doubled
    del operations.OPERATIONS["doubled"]


def test_arguments_are_checked_wherever_the_call_comes_from(doubled, tmp_path):
    workspace = Workspace.open(tmp_path)
    assert doubled(workspace) == 4 and doubled(workspace, 3) == 6 and doubled(workspace, number=3) == 6
    assert doubled(workspace, None) == 4 and doubled(workspace, "") == 4  # as an empty field of a form
    for wrong in (0, 10, "x", 1e308, float("nan"), [1], "1" * 5000):
        with pytest.raises(ConfigError, match="^number: "):
            doubled(workspace, wrong)
    with pytest.raises(ConfigError, match="is not a setting"):
        doubled(workspace, other=1)


def test_what_this_server_does_not_allow_is_refused(tmp_path):
    workspace = Workspace(Workspace.open(tmp_path).root, VISITED)
    with pytest.raises(NotAllowedError):
        all_operations()["publish_run"](workspace, "x")
