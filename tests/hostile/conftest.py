"""Processes of the jobs' tests, for faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.nursery import Nursery
from tests.jobs.processes import Farm, farm


@pytest.fixture
def stubs(tmp_path: Path, nursery: Nursery) -> Iterator[Farm]:
    """Services and workers whose analysis is a stub that does what the scan says."""
    with farm(tmp_path, nursery) as made:
        yield made
