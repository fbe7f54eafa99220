"""Fleischner 2017 at every threshold from both sides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reporting.guidelines.fleischner import fleischner, size_class
from app.reporting.nodule_facts import NoduleFacts, mean_diameter_whole_mm
from tests.reporting.told import INCIDENTAL, SCREENING, context, names, nodule

LOW, HIGH = context(INCIDENTAL, risk_group="low"), context(INCIDENTAL, risk_group="high")
ORDER = ("below_6_mm", "6_to_8_mm", "above_8_mm")


@pytest.mark.parametrize(
    ("mm", "count", "low", "high"),
    [
        (5.49, 1, "No routine", "12 months is optional"),
        (5.5, 1, "6 to 12 months; then consider CT at 18 to 24", "6 to 12 months; then CT at 18 to 24"),
        (8.49, 1, "6 to 12 months; then consider CT at 18 to 24", "6 to 12 months; then CT at 18 to 24"),
        (8.5, 1, "3 months, PET/CT or tissue", "3 months, PET/CT or tissue"),
        (5.49, 2, "No routine", "12 months is optional"),
        (5.5, 2, "3 to 6 months; then consider CT at 18 to 24", "3 to 6 months; then CT at 18 to 24"),
        (8.5, 2, "3 to 6 months; then consider CT at 18 to 24", "3 to 6 months; then CT at 18 to 24"),
    ],
)
def test_solid(mm: float, count: int, low: str, high: str) -> None:
    answers = [fleischner(nodule(mm=mm), group, count) for group in (LOW, HIGH)]
    for answer, expected in zip(answers, (low, high), strict=True):
        assert expected in (answer.management or "")
        assert answer.inputs_missing == []
    assert answers[0].category == answers[1].category
    both = fleischner(nodule(mm=mm), INCIDENTAL, count)
    assert low in (both.management or "")
    assert high in (both.management or "")
    assert names(both.inputs_missing) == (set() if low == high else {"risk_group"})


@pytest.mark.parametrize(
    ("kind", "mm", "count", "expected", "category"),
    [
        ("ground_glass", 5.49, 1, "No routine", "ground_glass_single_below_6_mm"),
        (
            "ground_glass",
            5.5,
            1,
            "6 to 12 months to see whether it stays; then CT every 2 years up to 5",
            "ground_glass_single_6_mm_or_more",
        ),
        ("part_solid", 5.49, 1, "No routine", "part_solid_single_below_6_mm"),
        ("part_solid", 5.5, 1, "3 to 6 months", "part_solid_single_6_mm_or_more"),
        ("ground_glass", 5.49, 2, "2 and 4 years", "subsolid_multiple_below_6_mm"),
        ("part_solid", 5.49, 2, "2 and 4 years", "subsolid_multiple_below_6_mm"),
        ("ground_glass", 5.5, 2, "most suspicious", "subsolid_multiple_6_mm_or_more"),
        ("part_solid", 5.5, 2, "most suspicious", "subsolid_multiple_6_mm_or_more"),
    ],
)
def test_subsolid(kind: str, mm: float, count: int, expected: str, category: str) -> None:
    answer = fleischner(nodule(kind=kind, mm=mm, solid_diameter_mm=2), INCIDENTAL, count)
    assert expected in (answer.management or "")
    assert answer.category == category


@pytest.mark.parametrize(
    ("solid_mm", "yearly", "missing"), [(5.49, True, set()), (5.5, False, set()), (None, True, {"solid_diameter_mm"})]
)
def test_the_solid_component_decides_what_follows(solid_mm: float | None, yearly: bool, missing: set[str]) -> None:
    answer = fleischner(nodule(kind="part_solid", mm=12, solid_diameter_mm=solid_mm), INCIDENTAL, 1)
    assert ("every year for 5 years" in (answer.management or "")) == yearly
    assert "biopsy or resection" in (answer.management or "")
    assert names(answer.inputs_missing) == missing


@pytest.mark.parametrize(("mm3", "expected"), [(99.9, ORDER[0]), (100, ORDER[1]), (250, ORDER[1]), (250.1, ORDER[2])])
def test_volumes_where_no_diameter_is_told(mm3: float, expected: str) -> None:
    assert size_class(nodule(volume_mm3=mm3)) == expected
    assert size_class(nodule(volume_mm3=mm3, mm=5)) == ORDER[0]


@pytest.mark.parametrize(
    ("long_mm", "short_mm", "expected"), [(6.5, 4.5, 6), (6.5, 4.4, 5), (5.4, 5.4, 5), (9.0, 8.0, 9), (9.0, 7.9, 8)]
)
def test_the_mean_diameter_is_whole(long_mm: float, short_mm: float, expected: int) -> None:
    assert mean_diameter_whole_mm(NoduleFacts(long_axis_mm=long_mm, short_axis_mm=short_mm)) == expected
    assert mean_diameter_whole_mm(NoduleFacts(mean_diameter_mm=(long_mm + short_mm) / 2)) == expected


@given(st.floats(0.1, 50), st.floats(0, 10))
def test_a_larger_nodule_is_never_in_a_smaller_class(mm: float, more: float) -> None:
    small, large = (ORDER.index(size_class(nodule(mm=size)) or "") for size in (mm, mm + more))
    assert small <= large


@pytest.mark.parametrize(
    ("changes", "applies"),
    [
        ({"age_years": 34.9}, False), ({"age_years": 35}, True), ({"known_cancer": True}, False),
        ({"immunosuppressed": True}, False), ({"setting": "screening"}, False), ({}, True),
    ],
)  # fmt: skip
def test_to_whom_it_applies(changes: dict[str, Any], applies: bool) -> None:
    answer = fleischner(nodule(mm=7), context(INCIDENTAL, **changes), 1)
    assert (answer.category is not None) == applies
    assert (answer.cannot_be_assigned or "").startswith("" if applies else "Does not apply")


@pytest.mark.parametrize("facts", [{"has_fat": True}, {"kind": "calcified"}, {"lesion": "cyst_multilocular"}], ids=str)
def test_to_which_nodules_it_does_not_apply(facts: dict[str, Any]) -> None:
    assert fleischner(nodule(mm=7, **facts), INCIDENTAL, 1).category is None


@pytest.mark.parametrize("name", ["age_years", "known_cancer", "immunosuppressed", "setting"])
def test_whether_it_applies_is_not_guessed(name: str) -> None:
    answer = fleischner(nodule(mm=7), context(INCIDENTAL, **{name: None}), 1)
    assert (answer.category, names(answer.inputs_missing)) == (None, {name})


def test_what_excludes_is_said_even_where_something_is_missing() -> None:
    answer = fleischner(nodule(mm=7), context(SCREENING), 1)
    assert answer.cannot_be_assigned == "Does not apply: it is not for screening."


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({}, {"long_axis_mm", "short_axis_mm"}),
        ({"kind": None, "mm": 7}, {"kind"}),
        ({"long_axis_mm": 7}, {"short_axis_mm"}),
    ],
)
def test_size_and_kind_are_needed(facts: dict[str, Any], missing: set[str]) -> None:
    answer = fleischner(nodule(**facts), INCIDENTAL, 1)
    assert answer.category is None
    assert names(answer.inputs_missing) == missing


def test_inputs_used_are_those_that_were_told() -> None:
    assert fleischner(nodule(mm=7.4), INCIDENTAL, 2).inputs_used == {
        "setting": "incidental", "age_years": 60.0, "known_cancer": False, "immunosuppressed": False, "kind": "solid",
        "long_axis_mm": 7.4, "short_axis_mm": 7.4, "nodules_of_its_family": 2, "mean_diameter_mm": 7,
    }  # fmt: skip


def test_told_risk_factors_are_listed_and_not_weighed() -> None:
    known = context(INCIDENTAL, emphysema=True, smoking={"status": "current"}, family_history_lung_cancer=False)
    answer = fleischner(nodule(mm=7, lobe="upper"), known, 1)
    assert answer.notes == ["Told, and counting towards high risk: smoking, emphysema, upper lobe."]
    assert names(answer.inputs_missing) == {"risk_group"}
