"""A run goes on under what its settings meant when it began."""

import pytest

from studio.training import changes, config_from
from studio.training.changes import Change, as_begun
from studio.training.provenance import begun_under

PLAIN = config_from({"data.folder": "x"})


def slower(config):
    return config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 1e-6})})


@pytest.fixture(autouse=True)
def changed(monkeypatch):
    monkeypatch.setattr(
        changes,
        "CHANGES",
        (
            Change("0.2.0", "Masks mean something else since 0.2.", concerns=lambda config: config.data.masks),
            Change("0.3.0", "Since 0.3 the rate is another; this run goes on as it began.", slower),
        ),
    )


@pytest.mark.parametrize("version, rate", [("0", 1e-6), ("0.1.0", 1e-6), ("0.2.7", 1e-6), ("0.3.0", 1e-3)])
def test_older_runs_keep_their_meaning_and_say_so(version, rate):
    config, said = as_begun(PLAIN, version)
    assert config.training.learning_rate == rate and len(said) == (rate == 1e-6)


def test_what_has_no_old_meaning_is_said_where_it_concerns():
    masked = config_from({"data.folder": "x", "data.masks": True})
    config, said = as_begun(masked, "0.1.0")
    assert config.data.masks and said[0] == "Masks mean something else since 0.2." and len(said) == 2
    assert as_begun(masked, "10.0") == (masked, [])


def test_the_version_of_a_run_is_read_from_its_folder(tmp_path):
    from studio import __version__

    assert begun_under(tmp_path) == __version__  # it has not begun
    (tmp_path / "checkpoints").mkdir()
    assert begun_under(tmp_path) == "0"
    (tmp_path / "made_of.json").write_text('{"versions": {"studio": "0.1.0"}}', "utf-8")
    assert begun_under(tmp_path) == "0.1.0"
