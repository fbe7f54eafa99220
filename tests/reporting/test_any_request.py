"""Whatever is told, the answer is whole: a category with its rule, or the reason why there is none."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.reporting.assessment import Assessment, RiskRequest, assess

sizes = st.floats(0.1, 60) | st.sampled_from([4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0])
volumes = st.floats(1, 1e5)
told = st.booleans()


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


smoking = some(status=st.sampled_from(["never", "former", "current"]), pack_years=st.floats(0, 100))
contexts = some(
    age_years=st.floats(0, 120), sex=st.sampled_from(["female", "male"]), family_history_lung_cancer=told,
    emphysema=told, smoking=smoking, setting=st.sampled_from(["screening", "incidental"]),
    screening_exam=st.sampled_from(["baseline", "follow_up"]), known_cancer=told, immunosuppressed=told,
    incomplete_because=st.sampled_from(["prior_being_located", "lungs_not_evaluable", "suspected_infection"]),
    risk_group=st.sampled_from(["low", "high"]),
)  # fmt: skip
earlier = st.fixed_dictionaries(
    {"interval_days": st.floats(1, 4000)},
    optional={
        "mean_diameter_mm": sizes, "solid_diameter_mm": sizes | st.just(0.0), "volume_mm3": volumes,
        "lung_rads_category": st.sampled_from(["1", "2", "3", "4A", "4B", "4X"]),
    },
)  # fmt: skip
nodules = some(
    kind=st.sampled_from(["solid", "part_solid", "ground_glass", "calcified"]), long_axis_mm=sizes, short_axis_mm=sizes,
    mean_diameter_mm=sizes, solid_diameter_mm=sizes | st.just(0.0), volume_mm3=volumes, is_spiculated=told,
    lobe=st.sampled_from(["upper", "middle", "lower"]), is_smooth=told, is_juxtapleural=told,
    shape=st.sampled_from(["oval", "lentiform", "triangular", "other"]), has_benign_calcification=told, has_fat=told,
    is_proven_benign=told, earlier=earlier,
    lesion=st.sampled_from(["nodule", "airway_subsegmental", "airway_segmental_or_proximal", "cyst_thick_walled"]),
    cyst_change=st.sampled_from(["growing_cystic_part", "growing_wall", "became_multilocular", "denser", "none"]),
    suspicious_features=st.lists(st.sampled_from(["lymphadenopathy", "other"]), max_size=2),
    change=st.sampled_from(["new", "growing", "slowly_growing", "stable", "decreased"]),
    solid_component_change=st.sampled_from(["new", "growing", "stable", "decreased"]),
)  # fmt: skip


@settings(max_examples=200)
@given(contexts, st.lists(nodules, max_size=3), st.none() | st.integers(3, 20))
def test_every_answer_is_whole(context: dict[str, Any], described: list[dict[str, Any]], count: int | None) -> None:
    named = [{**facts, "id": f"n{number}"} for number, facts in enumerate(described)]
    try:
        request = RiskRequest.model_validate({"context": context, "nodules": named, "nodule_count": count})
    except ValidationError:
        return  # contradicts itself
    assessment = assess(request)
    for answer in [assessment.lung_rads, *(one for nodule in assessment.nodules for one in nodule.guidelines)]:
        decided = answer.category is not None
        assert decided == bool(answer.management) == (answer.rule is not None) == (answer.cannot_be_assigned is None)
        assert answer.source
        assert not {item.name for item in answer.inputs_missing} & answer.inputs_used.keys() - {"earlier"}
    for risk in (one for nodule in assessment.nodules for one in nodule.brock):
        assert (risk.probability is None) == (risk.cannot_be_computed is not None)
        low, high = risk.probability_range or (0, 0)
        assert 0 <= low <= high <= 1
        assert not {item.name for item in risk.inputs_missing} & risk.inputs_used.keys()
    assert Assessment.model_validate(json.loads(assessment.model_dump_json())) == assessment
