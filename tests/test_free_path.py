"""Names for new files keep what makes them found again: their suffix, and room for a number."""

import pytest

from studio.workspace import free_path


@pytest.mark.parametrize(
    "name",
    ["a" * 120 + ".safetensors", "水彩画風の猫が窓辺で眠っている静かな午後の風景と花" * 3 + ".png", "b" * 80, "v1.5"],
)
def test_a_long_name_keeps_its_suffix_and_takes_a_number(tmp_path, name):
    suffix = name[name.rfind(".") :] if name.endswith((".safetensors", ".png")) else ""
    first = free_path(tmp_path, name)
    first.touch()
    second = free_path(tmp_path, name)
    assert first != second and first.name.endswith(suffix) and second.name.endswith(f"-2{suffix}")
    assert all(len(path.name.encode()) <= 80 for path in (first, second))
