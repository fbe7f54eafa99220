"""Fixtures that every part of the test suite shares."""

from __future__ import annotations

from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real CTs and annotations, beside the repository; tests that read it are skipped without it."""
    folder = _ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real CT data not there: ../shared/data beside the repository's folder is missing")
    return folder
