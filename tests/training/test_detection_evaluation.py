"""Figures of detection from marks and truths, by LUNA16's rule."""

import pytest

from app.evaluation.froc import Mark
from training.detection_evaluation import ScanTrial, false_positives_at, found_at
from training.inserted_scans import TrueNodule
from training.lung_background import Finding


def truth(x, diameter=8.0, kind="solid"):
    return TrueNodule((float(x), 0.0, 0.0), diameter, kind, "free", float("nan"))


def mark(name, x, probability):
    return Mark(name, (float(x), 0.0, 0.0), probability)


def two_trials():
    first = ScanTrial(
        "a",
        (truth(0), truth(50, 5.0, "ground-glass")),
        (Finding((100.0, 0.0, 0.0), 10.0),),
        (mark("a", 1, 0.9), mark("a", 52, 0.3), mark("a", 101, 0.8), mark("a", 200, 0.6)),
    )
    return [first, ScanTrial("b", (truth(0, 20.0),), (), (mark("b", 9, 0.7), mark("b", 10.5, 0.95)))]


def test_found_by_size_and_kind_at_a_threshold():
    figures = found_at(two_trials(), 0.5)
    assert (figures["sensitivity"].value, figures["sensitivity"].n) == (pytest.approx(2 / 3), 3)
    assert figures["sensitivity_solid"].value == 1
    assert figures["sensitivity_ground-glass"].value == 0
    assert figures["sensitivity_4_to_6_mm"].n == 1
    assert figures["sensitivity_15_to_40_mm"].value == 1
    assert found_at(two_trials(), 0.2)["sensitivity"].value == 1


def test_irrelevant_findings_are_no_false_positives_and_the_radius_is_strict():
    assert false_positives_at(two_trials(), 0.5) == [1, 1]
    assert false_positives_at(two_trials(), 0.9) == [0, 1]


def test_a_scan_without_nodules_has_false_marks_all_the_same():
    """Two of the four real scans have none; false marks in them are what is asked about."""
    alone = ScanTrial("c", (), (Finding((0.0, 0.0, 0.0), 10.0),), (mark("c", 1, 0.9), mark("c", 30, 0.7)))
    assert false_positives_at([alone], 0.5) == [1]
    assert false_positives_at([alone], 0.8) == [0]
    assert found_at([alone], 0.5)["sensitivity"].n == 0
