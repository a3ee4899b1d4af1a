"""Sweeps, measures and grids stand in the gallery as one cell each."""

import pytest
from PIL import Image

from studio.errors import WorkspaceError
from studio.generation import Recipe, save_image
from studio.services import image_groups
from studio.services.gallery import find
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace.open(tmp_path)
    image = Image.new("RGB", (16, 16), "teal")
    save_image(image, Recipe(prompt="apple", seed=1), workspace.outputs)
    group = image_groups.new_group("sweep")
    for place in range(7):
        recipe = Recipe(prompt="bear", seed=2)
        save_image(image, recipe, workspace.outputs, image_groups.member_name(group, place, recipe))
    save_image(image, Recipe(prompt="rocket", seed=3), workspace.outputs, "rocket-3.png")  # a contact sheet
    folder = workspace.outputs / "grids" / "rocket-3"
    folder.mkdir(parents=True)
    for number in range(4):
        save_image(image, Recipe(prompt="rocket", seed=number), folder, f"{number}.png")
    return workspace


def test_a_group_is_one_cell_with_its_count(workspace):
    found = image_groups.find_cells(workspace)
    counts = {image_groups.title_of(cell.group) if cell.group else "": cell.count for cell in found.cells}
    assert counts == {"": 1, "Strength sweep": 7, "Grid": 4} and found.count == 3 and found.images == found.total == 9
    assert find(workspace).count == 9  # the operation still lists each


def test_a_group_opens_in_order_and_is_gone_through(workspace):
    cells = image_groups.find_cells(workspace).cells
    groups = {image_groups.title_of(cell.group): cell.group for cell in cells if cell.group}
    sweep = [cell.entry.name for cell in image_groups.find_cells(workspace, group=groups["Strength sweep"]).cells]
    assert len(sweep) == 7 and sweep == sorted(sweep)
    assert image_groups.neighbour(workspace, "", groups["Strength sweep"], sweep[0], 1) == sweep[1]
    grid = [cell.entry.name for cell in image_groups.find_cells(workspace, group=groups["Grid"]).cells]
    assert grid == ["rocket-3.png", *(f"grids/rocket-3/{number}.png" for number in range(4))]
    assert image_groups.file_of(workspace, grid[1]).is_file()


def test_a_search_keeps_groups_together(workspace):
    found = image_groups.find_cells(workspace, "bear")
    assert [cell.count for cell in found.cells] == [7] and found.images == 7


def test_earlier_images_are_those_of_no_group(workspace):
    assert image_groups.singles(workspace, 16) == ["apple-1.png"]


@pytest.mark.parametrize("name", ["../secret", "grid:../..", "sweep-x", "", "grid:"])
def test_a_group_that_is_none_opens_nothing(workspace, name):
    if image_groups.is_group(name):
        with pytest.raises(WorkspaceError):
            image_groups.find_cells(workspace, group=name)
