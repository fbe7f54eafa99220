"""Two phantom scans of one chest on another place of the table: where a point of one is in the other is known."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from app.api.comparison_schemas import Comparison
from app.imaging.volume import CtVolume
from app.phantom.chest import CENTER_MM
from tests.phantom_pairs import Motion, PhantomPair, phantom_pair
from tests.web.views.worlds import JOB, result

PRIOR_JOB = "3d0c9a52-0000-4000-8000-000000000002"
DIAMETERS_MM = ((9.0, 13.0), (10.0, 10.0), (None, 8.0))
"""(prior, current) of each nodule; the last is new."""


@cache
def pair() -> PhantomPair:
    """Shifted by (6, -9, 21) mm and turned by 3 degrees about the head-foot axis; no breath."""
    c, s = np.cos(np.radians(3.0)), np.sin(np.radians(3.0))
    turned = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    motion = Motion(np.array([6.0, -9.0, 21.0]), turned, np.zeros(3), np.zeros((0, 7)))
    return phantom_pair(5, DIAMETERS_MM, motion=motion, noise_hu=10.0)


def prior_from_current() -> NDArray[np.float64]:
    """4 x 4, LPS mm."""
    motion = pair().motion
    matrix = np.eye(4)
    matrix[:3, :3] = motion.rotation
    matrix[:3, 3] = CENTER_MM - motion.rotation @ CENTER_MM + motion.shift_mm
    return matrix


def volume_of(scan: CtVolume) -> dict[str, Any]:
    """What /volume says of it; of the planes the axial one, rows to the back and columns to the left."""
    shape, spacing = scan.grid.shape_zyx, [float(value) for value in scan.grid.spacing_zyx_mm]
    axial = {
        "count": shape[0], "rows": shape[1], "columns": shape[2], "row_spacing_mm": spacing[1],
        "column_spacing_mm": spacing[2], "slice_spacing_mm": spacing[0], "slice_axis": 0,
        "to_lps_mm": scan.grid.affine.tolist(), "edges": {"left": "R", "right": "L", "top": "A", "bottom": "P"},
    }  # fmt: skip
    slices = [{"index_z": z, "instance_number": shape[0] - z, "sop_instance_uid": None} for z in range(shape[0])]
    windows = [{"name": "lung", "center": -600, "width": 1500}, {"name": "mediastinum", "center": 40, "width": 400}]
    return {
        "shape_zyx": shape,
        "spacing_zyx_mm": spacing,
        "planes": {"axial": axial},
        "slices": slices,
        "windows": windows,
    }


def slab_of(scan: CtVolume, address: str) -> tuple[bytes, dict[str, str]]:
    """Windowed slices, as /volume/slab gives them."""
    asked = {name: float(values[0]) for name, values in parse_qs(urlsplit(address).query).items() if name != "plane"}
    first, count = int(asked["first"]), int(asked["count"])
    lowest = asked["center"] - asked["width"] / 2
    grey = np.clip((scan.hu[first : first + count] - lowest) / asked["width"] * 255, 0, 255).astype(np.uint8)
    return grey.tobytes(), {"X-Slab-Shape": ",".join(map(str, grey.shape))}


def comparison(days: int | None) -> dict[str, Any]:
    """Of the pair, as its schema wants it; figures by hand."""
    nodules = pair().nodules
    before = [
        {"id": f"prior-{k}", "probability": 0.9, "diameter_mm": n.prior_mm, "volume_mm3": np.pi / 6 * n.prior_mm**3,
         "center_lps_mm": n.prior_lps_mm.tolist()}
        for k, n in enumerate(nodules) if n.prior_mm
    ]  # fmt: skip
    stable = {
        "volume_change_percent": 0.0, "volume_change_interval_percent": (-20.0, 25.0), "interval_is_assumed": True,
        "by_volume": "stable", "is_beyond_uncertainty": False, "diameter_change_mm": 0.0, "by_diameter": "stable",
        "doubling_time_days": None, "doubling_time_interval_days": None,
    }  # fmt: skip
    grown = stable | {
        "volume_change_percent": 201.4, "volume_change_interval_percent": (150.0, 260.0), "by_volume": "grown",
        "is_beyond_uncertainty": True, "diameter_change_mm": 4.0, "by_diameter": "growing",
        "doubling_time_days": 75.4, "doubling_time_interval_days": (64.0, 90.6), "interval_is_assumed": False,
    }  # fmt: skip
    matched = [
        {
            "current_id": f"nodule-{k + 1}",
            "prior_id": f"prior-{k}",
            "distance_mm": 0.5,
            "gate_mm": 6.0,
            "growth": growth,
        }
        for k, growth in enumerate((grown, stable))
    ]
    quality = {
        "usable": True, "failure": None, "lung_overlap": 0.96, "covered_share": 1.0, "landmarks": 60, "agreement": 0.9,
        "median_error_mm": 0.9, "error_mm": 2.1,
    }  # fmt: skip
    new = {"nodule_id": "nodule-3", "status": "new", "other_center_lps_mm": None, "faint_probability": None}
    made = {
        "days_between": days, "registration": quality, "prior_nodules": before, "matched": matched,
        "only_current": [new], "only_prior": [], "lung_rads_inputs": [], "notices": [], "missing": [],
        "rule": "By volume.",
    }  # fmt: skip
    return Comparison.model_validate(made).model_dump(mode="json")


def prior_answers(days: int | None = 120) -> dict[str, Any]:
    """The current job's result with its comparison, both volumes and their slabs."""
    scans = {JOB: pair().current, PRIOR_JOB: pair().prior}
    nodules = {
        f"nodule-{k + 1}": (tuple(n.current_lps_mm.tolist()), n.current_mm) for k, n in enumerate(pair().nodules)
    }
    answer = result(nodules) | {"comparison": comparison(days)}
    for nodule in answer["nodules"]:
        nodule["volume_mm3"] = np.pi / 6 * nodule["diameter_mm"] ** 3
    given: dict[str, Any] = {
        f"jobs/{JOB}/result": answer,
        f"jobs/{JOB}/prior": {
            "job_id": PRIOR_JOB,
            "available": True,
            "days_between": days,
            "residual_mm": 0.7,
            "current_to_prior_lps": prior_from_current().tolist(),
            "matches": [],
            "only_current": [],
            "only_prior": [],
        },
    }
    for job, scan in scans.items():
        given[f"jobs/{job}/volume"] = volume_of(scan)
        given[f"jobs/{job}/volume/slab"] = lambda address, scan=scan: slab_of(scan, address)
    return given
