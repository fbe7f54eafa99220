"""Requests for an assessment, as the API's description and `lungnodule risk --example` show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCREENING: dict[str, Any] = {
    "context": {
        "age_years": 66, "sex": "female", "family_history_lung_cancer": False, "emphysema": True,
        "smoking": {"status": "former", "pack_years": 35, "quit_years": 6},
        "setting": "screening", "screening_exam": "baseline",
    },
    "nodules": [
        {
            "id": "nodule-1", "kind": "solid", "long_axis_mm": 9.1, "short_axis_mm": 7.4, "volume_mm3": 291.0,
            "lobe": "upper", "is_spiculated": False,
        },
        {
            "id": "nodule-2", "kind": "part_solid", "long_axis_mm": 8.2, "short_axis_mm": 7.0, "solid_diameter_mm": 3.5,
            "lobe": "lower", "is_spiculated": False,
        },
    ],
}  # fmt: skip
_INCIDENTAL: dict[str, Any] = {
    "context": {
        "age_years": 52, "sex": "male", "setting": "incidental", "known_cancer": False, "immunosuppressed": False,
        "risk_group": "low",
    },
    "nodules": [{"kind": "solid", "long_axis_mm": 7.4, "short_axis_mm": 6.2}],
}  # fmt: skip
_GROWN: dict[str, Any] = {
    "context": {"age_years": 61, "setting": "screening", "screening_exam": "follow_up"},
    "nodules": [
        {
            "kind": "solid", "long_axis_mm": 8.6, "short_axis_mm": 8.0, "volume_mm3": 301.0,
            "volume_interval_mm3": [271.0, 331.0], "is_spiculated": False,
            "earlier": {
                "interval_days": 180, "mean_diameter_mm": 6.4, "volume_mm3": 137.0,
                "volume_interval_mm3": [120.0, 154.0], "lung_rads_category": "3",
            },
        }
    ],
}  # fmt: skip

RISK_EXAMPLES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "screening": ("Two nodules of a baseline screening CT", _SCREENING),
    "incidental": ("A nodule found by chance, with inputs missing for the Brock model", _INCIDENTAL),
    "grown": ("A nodule that was measured before: growth, doubling time, Lung-RADS with the earlier CT", _GROWN),
}
