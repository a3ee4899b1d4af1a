"""Where uploads wait, and whose that folder is."""

import os
from pathlib import Path

import pytest

from studio.errors import ConfigError
from studio.server import uploads

pytestmark = pytest.mark.skipif(os.name == "nt", reason="rights are others there")


def test_uploads_wait_in_a_folder_of_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = Path(uploads.usual_folder())
    assert folder.parent == tmp_path and folder.name.endswith(str(os.getuid()))
    uploads.make_private(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    uploads.make_private(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_another_users_folder_or_link_is_refused(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    uploads.make_private(str(tmp_path / "link"))  # one's own link
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(ConfigError, match="GRADIO_TEMP_DIR"):
            uploads.make_private(str(folder))
