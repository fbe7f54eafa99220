"""BTS 2015 at every threshold from both sides."""

from __future__ import annotations

from typing import Any

import pytest

from app.reporting.answers import GuidelineAnswer
from app.reporting.clinical_context import ClinicalContext
from app.reporting.growth import growth_of
from app.reporting.guidelines.bts import bts
from app.reporting.risk import brock_risks
from tests.reporting.told import context, names, nodule

ADULT = ClinicalContext(age_years=60)
KNOWN = ClinicalContext(age_years=62, sex="male", family_history_lung_cancer=False, emphysema=False)


def asked(base: ClinicalContext = ADULT, **facts: Any) -> GuidelineAnswer:
    one = nodule(**facts)
    return bts(one, base, brock_risks(one, base, 1), growth_of(one))


def rule(base: ClinicalContext = ADULT, **facts: Any) -> str | None:
    answer = asked(base, **facts)
    return answer.rule and answer.rule.id


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"volume_mm3": 79.9}, "bts-small"), ({"volume_mm3": 80}, "bts-solid-medium"),
        ({"volume_mm3": 299.9}, "bts-solid-medium"), ({"long_axis_mm": 4.9}, "bts-small"),
        ({"long_axis_mm": 5.0}, "bts-solid-5-mm"), ({"long_axis_mm": 5.9}, "bts-solid-5-mm"),
        ({"long_axis_mm": 6.0}, "bts-solid-medium"), ({"long_axis_mm": 7.9}, "bts-solid-medium"),
        ({"volume_mm3": 79.9, "long_axis_mm": 9}, "bts-small"),
        ({"volume_mm3": 80, "long_axis_mm": 5}, "bts-solid-medium"),
        ({"kind": "ground_glass", "long_axis_mm": 4.9}, "bts-small"),
        ({"kind": "ground_glass", "long_axis_mm": 5.0}, "bts-subsolid-first"),
        ({"kind": "part_solid", "volume_mm3": 80}, "bts-subsolid-first"),
        ({"kind": "part_solid", "volume_mm3": 80, "change": "new"}, "bts-subsolid-first"),
        ({"kind": "calcified", "volume_mm3": 900}, "bts-benign"), ({"has_fat": True, "volume_mm3": 900}, "bts-benign"),
        ({"volume_mm3": 50, "change": "new"}, "bts-small-new"),
    ],
    ids=str,
)  # fmt: skip
def test_by_size(facts: dict[str, Any], expected: str) -> None:
    assert rule(**facts) == expected


def test_inputs_used_are_those_that_were_told() -> None:
    followed = asked(volume_mm3=200, earlier={"interval_days": 100, "volume_mm3": 100})
    assert followed.inputs_used == {
        "age_years": 60.0, "kind": "solid", "volume_mm3": 200.0, "volume_change_fraction": 1.0, "interval_days": 100.0,
        "doubling_time_days": pytest.approx(100),
    }  # fmt: skip
    by_risk = asked(KNOWN, long_axis_mm=8.0, lobe="lower")
    assert by_risk.inputs_used.keys() == {
        "age_years", "kind", "long_axis_mm", "brock_full_2b_probability", "brock_full_2a_probability",
    }  # fmt: skip


@pytest.mark.parametrize("size", [{"volume_mm3": 300}, {"long_axis_mm": 8.0}], ids=str)
def test_from_8_mm_or_300_mm3_on_the_risk_decides(size: dict[str, Any]) -> None:
    facts = {"long_axis_mm": 8.0, "lobe": "lower", **size}
    assert asked(ADULT, **{**facts, "long_axis_mm": 12.0}).category is None
    assert rule(KNOWN, **facts) == "bts-solid-low-risk"
    assert rule(KNOWN, **{**facts, "long_axis_mm": 25}) == "bts-solid-high-risk"


def test_ten_percent_of_the_brock_model_from_both_sides() -> None:
    rules: dict[str | None, list[float]] = {}
    for tenths in range(80, 300):
        one = nodule(long_axis_mm=tenths / 10, lobe="upper")
        (risk, _) = brock_risks(one, KNOWN, 1)
        assert risk.probability is not None
        rules.setdefault(rule(KNOWN, long_axis_mm=tenths / 10, lobe="upper"), []).append(risk.probability)
    assert rules.keys() == {"bts-solid-low-risk", "bts-solid-high-risk"}
    assert max(rules["bts-solid-low-risk"]) < 0.1 <= min(rules["bts-solid-high-risk"])


def test_missing_inputs_of_the_risk_matter_only_where_they_could_cross_ten_percent() -> None:
    little = ClinicalContext(age_years=62, sex="male")
    sure = asked(little, long_axis_mm=8.0, lobe="lower")
    assert sure.rule is not None
    assert sure.rule.id == "bts-solid-low-risk"
    assert names(sure.inputs_missing) == {"family_history_lung_cancer", "emphysema"}
    assert sure.notes == ["By brock_full_2b, whichever the missing inputs are."]
    unsure = asked(little, long_axis_mm=11.0, lobe="upper")
    assert unsure.category is None
    assert names(unsure.inputs_missing) == {"family_history_lung_cancer", "emphysema"}


def test_without_spiculation_the_other_model_decides() -> None:
    answer = asked(KNOWN, long_axis_mm=10.0, lobe="upper", is_spiculated=None)
    assert answer.notes == ["By brock_full_2a."]
    assert answer.inputs_used.keys() >= {"brock_full_2a_probability"}


def doubling(days: float, interval: float, by: str = "volume_mm3") -> dict[str, Any]:
    factor = 2 ** (interval / days)
    if by == "volume_mm3":
        return {"volume_mm3": 150 * factor, "earlier": {"interval_days": interval, "volume_mm3": 150}}
    mm = 6.6 * factor ** (1 / 3)
    return {"long_axis_mm": mm, "short_axis_mm": mm, "earlier": {"interval_days": interval, "mean_diameter_mm": 6.6}}


@pytest.mark.parametrize("by", ["volume_mm3", "mean_diameter_mm"])
@pytest.mark.parametrize(
    ("days", "interval", "expected"),
    [
        (399.9, 200, "bts-growing-fast"), (400.1, 200, "bts-first-follow-up"), (399.9, 365, "bts-growing-fast"),
        (400.1, 365, "bts-growing"), (599.9, 365, "bts-growing"), (600.1, 365, "bts-growing-slowly"),
        (400.1, 269, "bts-first-follow-up"), (400.1, 270, "bts-growing"),
    ],
)  # fmt: skip
def test_by_doubling_time(by: str, days: float, interval: float, expected: str) -> None:
    assert rule(**doubling(days, interval, by)) == expected


@pytest.mark.parametrize(
    ("now_mm3", "interval", "expected"),
    [
        (187.4, 90, "bts-first-follow-up"), (187.5, 90, "bts-growing-fast"), (187.4, 365, "bts-stable"),
        (100.0, 365, "bts-stable"), (100.0, 90, "bts-first-follow-up"),
    ],
)  # fmt: skip
def test_less_than_a_quarter_is_stable(now_mm3: float, interval: float, expected: str) -> None:
    assert rule(volume_mm3=now_mm3, earlier={"interval_days": interval, "volume_mm3": 150}) == expected


def test_stable_by_diameter_takes_two_years() -> None:
    earlier = {"interval_days": 365, "mean_diameter_mm": 7}
    assert rule(mm=7, earlier=earlier) == "bts-stable-diameter"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"change": "growing"}, "bts-subsolid-growing"),
        ({"change": "stable"}, "bts-subsolid-low-risk"),
        ({"change": "stable", "long_axis_mm": 29, "lobe": "upper", "kind": "part_solid"}, "bts-subsolid-high-risk"),
        ({"volume_mm3": 300, "earlier": {"interval_days": 90, "volume_mm3": 200}}, "bts-subsolid-growing"),
    ],
    ids=str,
)
def test_subsolid_against_an_earlier_ct(facts: dict[str, Any], expected: str) -> None:
    assert rule(KNOWN, **{"kind": "ground_glass", "long_axis_mm": 8, "lobe": "lower", **facts}) == expected


@pytest.mark.parametrize(
    ("base", "facts", "missing"),
    [
        (ADULT, {}, {"volume_mm3", "long_axis_mm"}),
        (ADULT, {"kind": None, "volume_mm3": 100}, {"kind"}),
        (ClinicalContext(), {"volume_mm3": 100}, {"age_years"}),
        (context(ADULT, age_years=17.9), {"volume_mm3": 100}, set()),
        (ADULT, {"lesion": "cyst_thick_walled", "volume_mm3": 100}, set()),
        (ADULT, {"volume_mm3": 100, "change": "growing"}, {"earlier"}),
    ],
)
def test_what_is_missing_is_named(base: ClinicalContext, facts: dict[str, Any], missing: set[str]) -> None:
    answer = asked(base, **facts)
    assert (answer.category, answer.management) == (None, None)
    assert names(answer.inputs_missing) == missing
    assert asked(context(ADULT, age_years=18), volume_mm3=100).category == "surveillance"
