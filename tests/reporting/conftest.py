"""Scans that are written once for each process."""

from __future__ import annotations

import dataclasses

import pytest

from tests.reporting.judged import judged
from tests.reporting.worlds import Scan, phantom_scan


@pytest.fixture(scope="session")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return phantom_scan(tmp_path_factory.mktemp("classic"))


@pytest.fixture(scope="session")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return phantom_scan(tmp_path_factory.mktemp("enhanced"), enhanced=True)


@pytest.fixture(scope="session")
def without_nodules(classic: Scan) -> Scan:
    return Scan(classic.folder, dataclasses.replace(classic.findings, nodules=()))


@pytest.fixture(scope="session")
def compared(classic: Scan) -> Scan:
    return judged(classic)
