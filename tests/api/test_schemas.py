"""From findings to what clients see."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from app.api.schemas import result_from_findings
from tests.api.standins import make_findings, make_nodule

millimetres = st.floats(-1000, 1000)


def test_fields_of_the_contract() -> None:
    result = json.loads(result_from_findings(make_findings(make_nodule(1, 0.9))).model_dump_json())
    assert result.keys() == {
        "schema_version", "series", "acceptance", "model", "execution_provider", "operating_point", "timings_s",
        "disclaimer", "nodules", "malignancy_meaning", "precision", "assessment", "comparison",
    }  # fmt: skip
    (nodule,) = result["nodules"]
    assert nodule == {
        "id": "nodule-1",
        "probability": 0.9,
        "malignancy_probability": 0.25,
        "label": "benign",
        "diameter_mm": 7.25,
        "long_axis_mm": 8.0,
        "short_axis_mm": 6.5,
        "volume_mm3": 191.4,
        "mean_hu": -41.3,
        "side": "left",
        "center_lps_mm": [10.0, -20.0, 30.0],
        "center_ras_mm": [-10.0, 20.0, 30.0],
        "bounding_box": {
            "index_zyx": {"min": [3.5, 4.5, 5.5], "max": [6.5, 9.5, 10.5]},
            "lps_mm": {"min": [6.0, -24.0, 26.0], "max": [14.0, -16.0, 34.0]},
        },
        "slices": [
            {
                "sop_instance_uid": "1.2.3.4.5",
                "instance_number": 17,
                "frame_number": None,
                "index_z": 4,
                "box_px": [5.5, 4.5, 10.5, 9.5],
            }
        ],
        "attributes": {"spiculation": 0.5},
        "kind": "part_solid",
        "is_spiculated": True,
        "long_axis_3d_mm": 9.125,
        "volume_interval_mm3": [150.2, 240.8],
        "solid_diameter_mm": 3.5,
        "min_hu": -712.0,
        "max_hu": 88.0,
        "mass_mg": 120.5,
        "signs": ["fat"],
        "location": {
            "lobe": "upper",
            "lobe_confidence": 0.875,
            "distance_to_pleura_mm": 1.5,
            "distance_to_hilum_mm": 61.25,
            "is_juxtapleural": True,
        },
    }


def test_what_was_not_measured_is_null() -> None:
    bare = replace(make_nodule(1, 0.9), kind=None, location=None, volume_interval_mm3=None, signs=(), mass_mg=None)
    (nodule,) = json.loads(result_from_findings(make_findings(bare)).model_dump_json())["nodules"]
    assert (nodule["kind"], nodule["location"], nodule["volume_interval_mm3"], nodule["mass_mg"]) == (None,) * 4
    assert nodule["signs"] == []


def test_what_the_answer_rests_on_goes_with_it() -> None:
    result = result_from_findings(make_findings())
    assert result.disclaimer == "Research use only. Not for diagnosis."
    assert result.series.series_instance_uid == "1.2.3.4"
    assert result.series.shape_zyx == (40, 64, 64)
    assert result.series.spacing_zyx_mm == (2.0, 0.8, 0.8)
    assert result.series.affine_index_zyx_to_lps_mm[2] == [2.0, 0.0, 0.0, -40.0]
    assert [notice.code for notice in result.acceptance.warnings] == ["thick_slices", "partial_coverage"]
    assert result.acceptance.rejected[0].reasons[0].code == "localizer"
    assert result.acceptance.files_ignored[0].values == {"file_index": 40}
    assert result.timings_s == {"read": 0.1235, "detect": 0.5, "total": 0.7}


def test_formats_without_identity_have_none() -> None:
    result = result_from_findings(make_findings(identity=None))
    assert (result.series.study_instance_uid, result.series.frame_of_reference_uid) == (None, None)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_nodules_come_by_falling_probability(probabilities: list[float]) -> None:
    nodules = [make_nodule(n, p) for n, p in enumerate(probabilities)]
    found = [n.probability for n in result_from_findings(make_findings(*nodules)).nodules]
    assert found == sorted(found, reverse=True)


@given(millimetres, millimetres, millimetres)
def test_ras_is_lps_turned_by_half_about_the_long_axis(x: float, y: float, z: float) -> None:
    nodule = replace(make_nodule(1, 0.9), center_lps_mm=(x, y, z))
    text = result_from_findings(make_findings(nodule)).model_dump_json()
    (shown,) = json.loads(text)["nodules"]
    assert [-shown["center_ras_mm"][0], -shown["center_ras_mm"][1]] == shown["center_lps_mm"][:2]
    assert shown["center_ras_mm"][2] == shown["center_lps_mm"][2]
    assert "-0.0," not in text.replace("-0.0e", "")
