"""What an installation needs before anything is taken in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.jobs.installation import open_activations
from app.settings import Settings


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests run as root, whom the system lets write anywhere: what it says of a folder is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path / "data")
    with (
        pytest.raises(PermissionError, match="LUNGNODULE_DATA_DIR"),
        open_activations(Settings(data_dir=tmp_path / "data")),
    ):
        pass
