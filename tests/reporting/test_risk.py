"""The Brock models on published figures, and what they say when something is missing."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reporting.clinical_context import ClinicalContext
from app.reporting.nodule_facts import NoduleFacts
from app.reporting.risk import BROCK_2A, BROCK_2B, BrockModel, BrockRisk, brock, brock_risks
from tests.reporting.told import names

BOTH = pytest.mark.parametrize("model", [BROCK_2A, BROCK_2B], ids=lambda model: model.name)
NEUTRAL = {
    "age_years": 62, "sex": "male", "family_history_lung_cancer": False, "emphysema": False, "long_axis_mm": 4.0,
    "kind": "solid", "lobe": "lower", "nodule_count": 4, "is_spiculated": False,
}  # fmt: skip
OF_CONTEXT = ("age_years", "sex", "family_history_lung_cancer", "emphysema")
YES_OR_NO: dict[str, tuple[Any, ...]] = {
    "sex": ("male", "female"), "family_history_lung_cancer": (False, True), "emphysema": (False, True),
    "kind": ("solid", "part_solid", "ground_glass"), "lobe": ("upper", "middle", "lower"),
    "is_spiculated": (False, True),
}  # fmt: skip


def risk(model: BrockModel, **changes: Any) -> BrockRisk:
    told = {**NEUTRAL, **changes}
    count = told.pop("nodule_count")
    context = ClinicalContext.model_validate({name: told.pop(name) for name in OF_CONTEXT})
    return brock(model, NoduleFacts.model_validate(told), context, count)


def probability(model: BrockModel, **changes: Any) -> float:
    found = risk(model, **changes).probability
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("told", "with_spiculation", "without"),
    [
        ({}, 0.001125, 0.001105),
        ({"long_axis_mm": 10, "nodule_count": 1}, 0.03191, 0.03656),
        (
            {
                "age_years": 65, "sex": "female", "family_history_lung_cancer": True, "emphysema": True,
                "long_axis_mm": 12, "kind": "part_solid", "lobe": "upper", "nodule_count": 1, "is_spiculated": True,
            },
            0.53581, 0.39671,
        ),
        (
            {
                "age_years": 70, "emphysema": True, "long_axis_mm": 8, "kind": "ground_glass", "lobe": "upper",
                "nodule_count": 3,
            },
            0.04080, 0.04343,
        ),
    ],
)  # fmt: skip
def test_known_figures(told: dict[str, Any], with_spiculation: float, without: float) -> None:
    assert probability(BROCK_2B, **told) == pytest.approx(with_spiculation, rel=5e-4)
    assert probability(BROCK_2A, **told) == pytest.approx(without, rel=5e-4)


@BOTH
@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"sex": "male"}, {"sex": "female"}),
        ({"emphysema": False}, {"emphysema": True}),
        ({"family_history_lung_cancer": False}, {"family_history_lung_cancer": True}),
        ({"kind": "ground_glass"}, {"kind": "solid"}),
        ({"kind": "solid"}, {"kind": "part_solid"}),
        ({"lobe": "middle"}, {"lobe": "upper"}),
        ({"nodule_count": 5}, {"nodule_count": 4}),
        ({"age_years": 62}, {"age_years": 63}),
    ],
)
def test_what_raises_the_risk(model: BrockModel, less: dict[str, Any], more: dict[str, Any]) -> None:
    assert probability(model, **less) < probability(model, **more)


def test_only_2b_counts_spiculation() -> None:
    assert probability(BROCK_2B, is_spiculated=True) > probability(BROCK_2B)
    assert probability(BROCK_2A, is_spiculated=True) == probability(BROCK_2A)
    assert risk(BROCK_2A, is_spiculated=None).inputs_missing == []


@BOTH
@given(size=st.floats(0.001, 299), more=st.floats(1e-3, 1), age=st.floats(0, 120))
def test_the_risk_grows_with_the_diameter_and_is_a_probability(
    model: BrockModel, size: float, more: float, age: float
) -> None:
    small, large = (probability(model, long_axis_mm=mm, age_years=age) for mm in (size, size + more))
    assert 0 <= small <= large <= 1


@BOTH
@pytest.mark.parametrize("name", NEUTRAL)
def test_a_missing_input_is_named_and_not_invented(model: BrockModel, name: str) -> None:
    if model is BROCK_2A and name == "is_spiculated":
        return
    found = risk(model, **{name: None})
    assert found.probability is None
    assert name in (found.cannot_be_computed or "")
    (missing,) = found.inputs_missing
    assert (missing.name, name in found.inputs_used) == (name, False)
    # What is named as the reference is where the term is zero.
    reference = "lower" if name == "lobe" else missing.formula_reference
    assert probability(model, **{name: reference}) == probability(model)


@BOTH
@given(st.sets(st.sampled_from(sorted(YES_OR_NO)), min_size=1), st.floats(1, 30))
def test_the_range_is_that_of_all_that_could_be_told(model: BrockModel, open_names: set[str], size: float) -> None:
    found = risk(model, long_axis_mm=size, **dict.fromkeys(open_names))
    if model is BROCK_2A:
        open_names = open_names - {"is_spiculated"}
    every = [
        probability(model, long_axis_mm=size, **dict(zip(sorted(open_names), choice, strict=True)))
        for choice in product(*(YES_OR_NO[name] for name in sorted(open_names)))
    ]
    if not open_names:
        assert found.probability_range is None
    else:
        assert found.probability_range == pytest.approx((min(every), max(every)))


@BOTH
@pytest.mark.parametrize("name", ["age_years", "long_axis_mm", "nodule_count"])
def test_what_has_no_ends_gives_no_range(model: BrockModel, name: str) -> None:
    assert risk(model, **{name: None}).probability_range is None


@BOTH
@pytest.mark.parametrize(
    "facts",
    [{"kind": "calcified"}, {"has_fat": True}, {"has_benign_calcification": True}, {"lesion": "cyst_thick_walled"}],
)
def test_not_for_what_it_was_not_made_for(model: BrockModel, facts: dict[str, Any]) -> None:
    found = risk(model, **facts)
    assert (found.probability, found.probability_range) == (None, None)
    assert "model is for" in (found.cannot_be_computed or "")


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"age_years": 50}, 0), ({"age_years": 49.9}, 1), ({"age_years": 75}, 0), ({"age_years": 75.1}, 1),
        ({"long_axis_mm": 30}, 0), ({"long_axis_mm": 30.1}, 1),
    ],
)  # fmt: skip
def test_outside_of_the_study_it_says_so(changes: dict[str, Any], notes: int) -> None:
    assert len(risk(BROCK_2B, **changes).notes) == notes


def test_every_probability_says_what_it_means() -> None:
    for found in brock_risks(NoduleFacts(), ClinicalContext(), None):
        assert "lung cancer" in found.means
        assert names(found.inputs_missing) >= {"age_years", "sex", "long_axis_mm", "kind", "lobe", "nodule_count"}
