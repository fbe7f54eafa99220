from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.reporting.material import Material, Report
from app.reporting.summary_page import summary_page
from tests.reporting.worlds import MADE_AT, Scan


@pytest.mark.parametrize("words", [1, 120])
def test_all_that_a_probability_means_is_on_the_page(without_nodules: Scan, words: int) -> None:
    findings = dataclasses.replace(without_nodules.findings, malignancy_meaning="meaning " * words)
    page = summary_page(Material(Report(findings, MADE_AT), without_nodules.originals))
    short = summary_page(Material(without_nodules.report, without_nodules.originals))
    # Longer text makes the page longer; nothing is cut at an edge.
    assert (page.shape[0] > short.shape[0]) == (words > 1)
    assert not np.any(page[:, -20:])
    assert not np.any(page[-8:])
