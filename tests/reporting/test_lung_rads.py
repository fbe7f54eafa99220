"""Lung-RADS v2022 at every threshold from both sides, by baseline rules and against an earlier CT."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reporting.answers import GuidelineAnswer
from app.reporting.guidelines.lung_rads import lung_rads
from app.reporting.guidelines.lung_rads_categories import ALL_THRESHOLDS, RANK
from app.reporting.guidelines.lung_rads_exam import lung_rads_of_exam
from app.reporting.nodule_facts import NoduleFacts, half_up, mean_diameter_0_1mm
from tests.reporting.told import FOLLOW_UP, INCIDENTAL, SCREENING, context, names, nodule

PART, GLASS = "part_solid", "ground_glass"


def category(*, base: Any = SCREENING, **facts: Any) -> str | None:
    answer = lung_rads(nodule(**facts), base)
    assert answer.rule is None or answer.rule.id.startswith(f"lr-{(answer.category or '').lower()}-")
    return answer.category


def followed(change: str, **facts: Any) -> GuidelineAnswer:
    answer = lung_rads(nodule(change=change, **facts), FOLLOW_UP)
    assert answer.rule is None or answer.rule.id.startswith(f"lr-{(answer.category or '').lower()}-")
    return answer


@pytest.mark.parametrize(
    ("kind", "mm", "solid_mm", "expected"),
    [
        ("solid", 5.9, None, "2"), ("solid", 6.0, None, "3"), ("solid", 7.9, None, "3"), ("solid", 8.0, None, "4A"),
        ("solid", 14.9, None, "4A"), ("solid", 15.0, None, "4B"),
        (PART, 5.9, None, "2"), (PART, 6.0, 5.9, "3"), (PART, 6.0, 0.0, "3"), (PART, 6.0, 6.0, "4A"),
        (PART, 20.0, 7.9, "4A"), (PART, 20.0, 8.0, "4B"),
        (GLASS, 29.9, None, "2"), (GLASS, 30.0, None, "3"),
    ],
)  # fmt: skip
def test_baseline(kind: str, mm: float, solid_mm: float | None, expected: str) -> None:
    answer = lung_rads(nodule(kind=kind, mm=mm, solid_diameter_mm=solid_mm), SCREENING)
    assert (answer.category, answer.cannot_be_assigned, answer.inputs_missing) == (expected, None, [])
    assert answer.rule is not None
    assert answer.rule.id.startswith(f"lr-{expected.lower()}-")


@pytest.mark.parametrize(
    ("kind", "mm3", "expected"),
    [
        ("solid", 112, "2"), ("solid", 112.5, "3"), ("solid", 267, "3"), ("solid", 268, "4A"), ("solid", 1766, "4A"),
        ("solid", 1767, "4B"), (PART, 112, "2"), (GLASS, 14136, "2"), (GLASS, 14137, "3"),
    ],
)  # fmt: skip
def test_baseline_by_volume_where_no_diameter_is_told(kind: str, mm3: float, expected: str) -> None:
    assert category(kind=kind, volume_mm3=mm3, is_spiculated=False) == expected


def test_the_volumes_are_those_of_spheres() -> None:
    for threshold in ALL_THRESHOLDS:
        assert threshold.mm3 == half_up(3.141592653589793 / 6 * threshold.mm**3, 0)


@pytest.mark.parametrize(
    ("change", "mm", "expected"),
    [
        ("new", 3.9, "2"), ("new", 4.0, "3"), ("new", 5.9, "3"), ("new", 6.0, "4A"), ("new", 7.9, "4A"),
        ("new", 8.0, "4B"), ("growing", 3.0, "4A"), ("growing", 7.9, "4A"), ("growing", 8.0, "4B"),
        ("slowly_growing", 5.0, "4B"), ("slowly_growing", 9.0, "4B"), ("stable", 5.9, "2"), ("decreased", 5.9, "2"),
    ],
)  # fmt: skip
def test_solid_against_an_earlier_ct(change: str, mm: float, expected: str) -> None:
    assert followed(change, mm=mm).category == expected


@pytest.mark.parametrize(
    ("change", "mm", "solid_mm", "solid_change", "expected"),
    [
        ("new", 5.9, None, None, "3"), ("new", 6.0, 3.9, None, "4A"), ("new", 6.0, 4.0, None, "4B"),
        ("growing", 9.0, 3.9, "growing", "4A"), ("growing", 9.0, 4.0, "growing", "4B"),
        ("stable", 9.0, 3.9, "new", "4A"), ("stable", 9.0, 4.0, "new", "4B"),
        ("growing", 9.0, 5.9, "stable", "3"), ("slowly_growing", 9.0, 5.0, "stable", "4B"),
        ("stable", 5.9, 2.0, "stable", "2"),
    ],
)  # fmt: skip
def test_part_solid_against_an_earlier_ct(
    change: str, mm: float, solid_mm: float | None, solid_change: str | None, expected: str
) -> None:
    answer = followed(change, kind=PART, mm=mm, solid_diameter_mm=solid_mm, solid_component_change=solid_change)
    assert answer.category == expected


@pytest.mark.parametrize(
    ("change", "mm", "expected"),
    [
        ("new", 29.9, "2"), ("new", 30.0, "3"), ("growing", 29.9, "2"), ("slowly_growing", 30.0, "2"),
        ("stable", 30.0, "2"), ("decreased", 30.0, "2"), ("growing", 30.0, None),
    ],
)  # fmt: skip
def test_ground_glass_against_an_earlier_ct(change: str, mm: float, expected: str | None) -> None:
    assert followed(change, kind=GLASS, mm=mm).category == expected


@pytest.mark.parametrize(
    ("now_mm", "before_mm", "days", "rule"),
    [
        (7.9, 6.4, 365, "lr-3-solid-baseline"),  # 1.5 mm: stable, was 3 already by size; no earlier category needed
        (8.0, 6.4, 365, "lr-4b-solid-growing"),
        (8.4, 6.9, 365, "lr-4a-solid-baseline"),  # stable, but has reached 8 mm
        (7.9, 6.3, 365, "lr-4a-solid-growing"),
        (8.0, 6.4, 390, "lr-4b-slow-growth"),  # 1.6 mm in more than a year
        (5.9, 4.4, 365, "lr-2-solid-baseline"),
    ],
)
def test_growth_by_diameters(now_mm: float, before_mm: float, days: float, rule: str) -> None:
    earlier = {"interval_days": days, "mean_diameter_mm": before_mm, "lung_rads_category": "2"}
    answer = lung_rads(nodule(mm=now_mm, earlier=earlier), FOLLOW_UP)
    assert answer.rule is not None
    assert answer.rule.id == rule


@pytest.mark.parametrize(
    ("mm", "before", "days", "expected"),
    [
        (7.0, "3", 150, "2"), (7.0, "3", 149, None), (9.0, "4A", 75, "3"), (9.0, "4A", 74, None),
        (16.0, "4B", 365, None), (9.0, "4X", 365, None), (7.0, None, 365, None), (5.9, None, 10, "2"),
    ],
)  # fmt: skip
def test_a_step_down(mm: float, before: str | None, days: float, expected: str | None) -> None:
    earlier = {"interval_days": days, "mean_diameter_mm": mm, "lung_rads_category": before}
    answer = lung_rads(nodule(mm=mm, earlier=earlier), FOLLOW_UP)
    assert answer.category == expected
    assert (answer.cannot_be_assigned is None) == (expected is not None)


def test_a_new_solid_component_is_read_from_the_measurements() -> None:
    def seen(now_mm: float, before_mm: float) -> str | None:
        earlier = {"interval_days": 365, "mean_diameter_mm": 10, "solid_diameter_mm": before_mm}
        return category(base=FOLLOW_UP, kind=PART, mm=10, solid_diameter_mm=now_mm, earlier=earlier)

    assert seen(3.9, 0) == "4A"
    assert seen(4.0, 0) == "4B"
    assert seen(1.0, 0) == "4A"  # new, though it is less than growth
    assert seen(5.0, 3.4) == "4B"
    assert seen(5.0, 3.5) is None  # grows by 1.5 mm, so not: then the earlier category decides


def test_a_ground_glass_nodule_that_reaches_30_mm_is_classed_anew() -> None:
    earlier = {"interval_days": 180, "mean_diameter_mm": 27}
    assert category(base=FOLLOW_UP, kind=GLASS, mm=30, earlier=earlier) == "3"
    assert category(base=FOLLOW_UP, kind=GLASS, mm=33, earlier={**earlier, "mean_diameter_mm": 30}) is None


@pytest.mark.parametrize("kind", ["solid", PART, GLASS])
@given(small=st.integers(10, 400), more=st.integers(0, 50), solid=st.integers(0, 100))
def test_a_larger_nodule_is_never_less_suspicious(kind: str, small: int, more: int, solid: int) -> None:
    ranks = [RANK[category(kind=kind, mm=mm / 10, solid_diameter_mm=solid / 10) or ""] for mm in (small, small + more)]
    assert ranks[0] <= ranks[1]


@given(st.integers(10, 400), st.integers(0, 30))
def test_a_larger_solid_component_is_never_less_suspicious(solid: int, more: int) -> None:
    ranks = [RANK[category(kind=PART, mm=40, solid_diameter_mm=s / 10) or ""] for s in (solid, solid + more)]
    assert ranks[0] <= ranks[1]


@pytest.mark.parametrize("change", ["new", "growing"])
@given(st.integers(10, 300))
def test_new_or_growing_is_at_least_as_suspicious_as_baseline(change: str, tenths: int) -> None:
    before, after = category(mm=tenths / 10), followed(change, mm=tenths / 10).category
    assert RANK[before or ""] <= RANK[after or ""]


@pytest.mark.parametrize(
    ("long_mm", "short_mm", "expected"),
    [
        (8.0, 7.9, 8.0),
        (7.95, 7.95, 8.0),
        (7.94, 7.94, 7.9),
        (6.05, 5.85, 6.0),
        (6.04, 5.84, 5.9),
        (9.1, 7.4, 8.3),
        (8.0, 7.85, 8.0),
        (7.95, 7.9, 8.0),
    ],
)
def test_the_mean_diameter_is_rounded_as_the_guideline_asks(long_mm: float, short_mm: float, expected: float) -> None:
    assert mean_diameter_0_1mm(NoduleFacts(long_axis_mm=long_mm, short_axis_mm=short_mm)) == expected
    # One axis alone gives no mean.
    assert mean_diameter_0_1mm(NoduleFacts(long_axis_mm=long_mm, mean_diameter_mm=expected)) == expected
    assert mean_diameter_0_1mm(NoduleFacts(long_axis_mm=long_mm)) is None


@pytest.mark.parametrize(
    "facts", [{"has_benign_calcification": True}, {"has_fat": True}, {"kind": "calcified"}], ids=str
)
def test_benign_features(facts: dict[str, Any]) -> None:
    assert category(mm=20, **facts) == "1"


def test_proven_benign() -> None:
    assert category(mm=20, is_proven_benign=True, is_spiculated=True) == "2"
    assert category(mm=20, is_proven_benign=False) == "4B"


JUXTAPLEURAL = {"is_juxtapleural": True, "is_smooth": True, "shape": "lentiform"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mm": 9.9}, "2"), ({"mm": 10.0}, "4A"), ({"shape": "oval"}, "2"), ({"shape": "triangular"}, "2"),
        ({"shape": "other"}, "4A"), ({"is_smooth": False}, "4A"), ({"is_juxtapleural": False}, "4A"),
        ({"is_spiculated": True}, "4X"), ({"kind": PART, "solid_diameter_mm": 6.0}, "4A"),
        ({"change": "growing"}, "4B"), ({"change": "new"}, "2"),
    ],
)  # fmt: skip
def test_juxtapleural(changes: dict[str, Any], expected: str) -> None:
    assert category(**{"mm": 9.0, **JUXTAPLEURAL, **changes}) == expected


def test_what_would_make_a_juxtapleural_nodule_benign_is_named() -> None:
    answer = lung_rads(nodule(mm=9, is_juxtapleural=True), SCREENING)
    assert answer.category == "4A"
    assert names(answer.inputs_missing) == {"is_smooth", "shape"}
    assert names(lung_rads(nodule(mm=9, is_juxtapleural=True, shape="other"), SCREENING).inputs_missing) == set()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"lesion": "airway_subsegmental"}, "2"),
        ({"lesion": "airway_segmental_or_proximal"}, "4A"),
        ({"lesion": "airway_segmental_or_proximal", "change": "new"}, "4A"),
        ({"lesion": "airway_segmental_or_proximal", "change": "stable"}, "4B"),
        ({"lesion": "airway_segmental_or_proximal", "change": "growing"}, "4B"),
        ({"lesion": "airway_segmental_or_proximal", "change": "decreased"}, None),
        ({"lesion": "cyst_thick_walled"}, "4A"),
        ({"lesion": "cyst_multilocular"}, "4A"),
        ({"lesion": "cyst_multilocular", "cyst_change": "became_multilocular"}, "4A"),
        ({"lesion": "cyst_multilocular", "cyst_change": "growing"}, "4B"),
        ({"lesion": "cyst_multilocular", "cyst_change": "denser"}, "4B"),
        ({"lesion": "cyst_thick_walled", "cyst_change": "growing_wall"}, "4B"),
        ({"lesion": "cyst_thick_walled", "cyst_change": "growing_cystic_part"}, "3"),
        ({"lesion": "cyst_thick_walled", "cyst_change": "denser"}, None),
        ({"lesion": "cyst_thick_walled", "cyst_change": "none"}, None),
    ],
    ids=str,
)
def test_airways_and_cysts(facts: dict[str, Any], expected: str | None) -> None:
    assert category(**facts) == expected


@pytest.mark.parametrize(
    ("mm", "facts", "expected"),
    [
        (5.9, {"is_spiculated": True}, "2"), (6.0, {"is_spiculated": True}, "4X"), (8.0, {"is_spiculated": True}, "4X"),
        (15.0, {"suspicious_features": ["lymphadenopathy"]}, "4X"),
        (6.0, {"suspicious_features": ["metastasis"]}, "4X"), (6.0, {}, "3"),
    ],
)  # fmt: skip
def test_4x(mm: float, facts: dict[str, Any], expected: str) -> None:
    assert category(mm=mm, **facts) == expected


def test_spiculation_that_is_not_told_is_missing_only_where_it_matters() -> None:
    assert names(lung_rads(nodule(mm=9, is_spiculated=None), SCREENING).inputs_missing) == {"is_spiculated"}
    assert lung_rads(nodule(mm=5, is_spiculated=None), SCREENING).inputs_missing == []


@pytest.mark.parametrize(
    ("facts", "has_pet"),
    [
        ({"mm": 14.9}, True), ({"mm": 7.9, "change": "growing"}, False),
        ({"kind": PART, "mm": 20, "solid_diameter_mm": 7.9}, False),
    ],
)  # fmt: skip
def test_pet_is_named_from_8_mm_of_solid_tissue_on(facts: dict[str, Any], has_pet: bool) -> None:
    answer = lung_rads(nodule(**facts), SCREENING)
    assert answer.category == "4A"
    assert ("PET/CT" in (answer.management or "")) == has_pet


def test_without_the_kind_none_is_assigned_but_each_is_said() -> None:
    answer = lung_rads(nodule(kind=None, mm=8, is_spiculated=None), SCREENING)
    assert (answer.category, answer.management, answer.rule) == (None, None, None)
    assert answer.cannot_be_assigned is not None
    assert answer.notes == ["As solid it would be 4A.", "As ground-glass it would be 2."]
    assert names(answer.inputs_missing) == {"kind", "solid_diameter_mm"}


@pytest.mark.parametrize(
    ("facts", "base", "missing"),
    [
        ({}, SCREENING, {"long_axis_mm", "short_axis_mm"}),
        ({"kind": PART, "mm": 6.0}, SCREENING, {"solid_diameter_mm"}),
        ({"mm": 9}, FOLLOW_UP, {"change", "earlier"}),
        ({"mm": 9, "earlier": {"interval_days": 90}}, FOLLOW_UP, {"change"}),
        ({"kind": PART, "mm": 9, "change": "growing", "solid_diameter_mm": 4}, FOLLOW_UP, {"solid_component_change"}),
        ({"kind": PART, "mm": 9, "change": "new"}, FOLLOW_UP, {"solid_diameter_mm"}),
        ({"mm": 16, "change": "stable", "earlier": {"interval_days": 90, "lung_rads_category": "4B"}}, FOLLOW_UP,
         {"is_proven_benign"}),
        ({"mm": 9, "change": "stable"}, FOLLOW_UP, {"earlier"}),
        ({"mm": 9}, context(SCREENING, setting=None), {"setting"}),
        ({"mm": 9}, INCIDENTAL, set()),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_and_nothing_assigned(facts: dict[str, Any], base: Any, missing: set[str]) -> None:
    answer = lung_rads(nodule(**facts), base)
    assert (answer.category, answer.management, answer.rule) == (None, None, None)
    assert answer.cannot_be_assigned is not None
    assert names(answer.inputs_missing) == missing


def test_an_exam_that_may_have_a_prior_is_judged_by_baseline_rules_and_says_so() -> None:
    answer = lung_rads(nodule(mm=9), context(SCREENING, screening_exam=None))
    assert answer.category == "4A"
    assert names(answer.inputs_missing) == {"screening_exam"}
    assert any("Baseline rules" in note for note in answer.notes)


def test_inputs_used_are_those_that_were_told() -> None:
    answer = lung_rads(nodule(mm=9.04, earlier={"interval_days": 100, "mean_diameter_mm": 5}), FOLLOW_UP)
    assert answer.inputs_used == {
        "setting": "screening", "screening_exam": "follow_up", "kind": "solid", "long_axis_mm": 9.04,
        "short_axis_mm": 9.04, "is_spiculated": False, "mean_diameter_mm": 9.0, "change": "growing",
        "earlier": {"interval_days": 100.0, "mean_diameter_mm": 5.0},
    }  # fmt: skip


@pytest.mark.parametrize(("now", "before", "expected"), [(268, 267, "4A"), (268, 267.5, None), (267, 250, None)])
def test_a_threshold_that_is_reached_by_volume(now: float, before: float, expected: str | None) -> None:
    earlier = {"interval_days": 365, "volume_mm3": before}
    assert category(base=FOLLOW_UP, volume_mm3=now, change="stable", earlier=earlier) == expected


@pytest.mark.parametrize(
    ("facts", "phrase"),
    [
        ({"mm": 5}, "in 12 months"), ({"mm": 20, "has_fat": True}, "in 12 months"), ({"mm": 7}, "in 6 months"),
        ({"mm": 9}, "in 3 months"), ({"mm": 15}, "Work-up"), ({"mm": 9, "is_spiculated": True}, "Work-up"),
    ],
)  # fmt: skip
def test_the_next_step(facts: dict[str, Any], phrase: str) -> None:
    answer = lung_rads(nodule(**facts), SCREENING)
    assert phrase in (answer.management or "")
    assert any("turn out malignant" in note for note in answer.notes)


def exam(*sizes_mm: float, base: Any = SCREENING, **facts: Any) -> GuidelineAnswer:
    nodules = [nodule(id=f"n{number}", mm=mm, **facts) for number, mm in enumerate(sizes_mm)]
    return lung_rads_of_exam([(one.id, lung_rads(one, base)) for one in nodules], base)


def test_the_most_suspicious_nodule_is_the_exams() -> None:
    answer = exam(5.0, 9.0, 7.0)
    assert answer.category == "4A"
    assert answer.rule is not None
    assert "n1, by lr-4a-solid-baseline" in answer.rule.sentence
    assert answer.management == lung_rads(nodule(mm=9.0), SCREENING).management
    assert exam().category == "1"


@pytest.mark.parametrize(
    "pair", [(("1", 0), ("2", 5)), (("2", 5), ("3", 7)), (("3", 7), ("4A", 9)), (("4A", 9), ("4B", 15))]
)
def test_each_category_outweighs_the_one_before(pair: Any) -> None:
    def of(name: str, mm: float) -> tuple[str, GuidelineAnswer]:
        return name, lung_rads(nodule(mm=mm or 20, has_fat=None if mm else True), SCREENING)

    (low, high) = (of(*one) for one in pair)
    assert (low[1].category, high[1].category) == (low[0], high[0])
    for order in ([low, high], [high, low]):
        assert lung_rads_of_exam(order, SCREENING).category == high[0]
    worst = ("4X", lung_rads(nodule(mm=9, is_spiculated=True), SCREENING))
    assert lung_rads_of_exam([high, worst, low], SCREENING).category == "4X"


def test_an_open_nodule_leaves_the_exam_open_unless_nothing_can_be_worse() -> None:
    open_nodule = ("n9", lung_rads(nodule(kind=None, mm=9), SCREENING))
    known = ("n1", lung_rads(nodule(mm=9), SCREENING))
    answer = lung_rads_of_exam([known, open_nodule], SCREENING)
    assert (answer.category, answer.notes) == (None, ["It is at least 4A, by n1."])
    assert "n9" in (answer.cannot_be_assigned or "")
    worst = ("n2", lung_rads(nodule(mm=9, is_spiculated=True), SCREENING))
    assert lung_rads_of_exam([worst, open_nodule], SCREENING).category == "4X"


@pytest.mark.parametrize("why", ["prior_being_located", "lungs_not_evaluable", "suspected_infection"])
def test_an_incomplete_exam_is_0(why: str) -> None:
    assert exam(9.0, base=context(SCREENING, incomplete_because=why)).category == "0"
    rule = exam(base=context(SCREENING, incomplete_because=why)).rule
    assert rule is not None
    assert rule.id == "lr-0-incomplete"


def test_an_exam_outside_of_screening_has_no_category() -> None:
    assert exam(base=INCIDENTAL).category is None
    assert names(exam(base=context(SCREENING, setting=None)).inputs_missing) == {"setting"}


def test_4x_says_how_often_4x_is_malignant_and_not_the_category_below() -> None:
    answer = lung_rads(nodule(mm=6.5, is_spiculated=True), SCREENING)
    assert answer.category == "4X"
    assert [note for note in answer.notes if "malignant" in note] == [
        "Among screened people, over 15 % of this category turn out malignant."
    ]
