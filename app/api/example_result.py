"""One answer, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Any


def example_result() -> dict[str, Any]:
    """A nodule in a series of 133 slices; a test holds it to the schema and to its own geometry."""
    summary = {
        "series_instance_uid": "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192",
        "modality": "CT",
        "slice_count": 133,
        "rows": 512,
        "columns": 512,
        "spacing_zyx_mm": [2.5, 0.703125, 0.703125],
        "slice_thickness_mm": 2.5,
        "convolution_kernel": "STANDARD",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    }
    return {
        "schema_version": "1.0",
        "disclaimer": "Research use only. Not for diagnosis.",
        "series": {
            "study_instance_uid": "1.3.6.1.4.1.14519.5.2.1.6279.6001.298806137288633453246975630178",
            "series_instance_uid": summary["series_instance_uid"],
            "frame_of_reference_uid": "1.3.6.1.4.1.14519.5.2.1.6279.6001.229925374658226729607867499499",
            "shape_zyx": [133, 512, 512],
            "spacing_zyx_mm": [2.5, 0.703125, 0.703125],
            "affine_index_zyx_to_lps_mm": [
                [0.0, 0.0, 0.703125, -166.0],
                [0.0, 0.703125, 0.0, -171.699997],
                [2.5, 0.0, 0.0, -340.0],
                [0.0, 0.0, 0.0, 1.0],
            ],
        },
        "acceptance": {
            "source_format": "dicom",
            "files_received": 134,
            "files_ignored": [
                {"code": "not_an_image", "message": "File 133 is no CT image.", "values": {"file_index": 133}}
            ],
            "chosen": summary,
            "rejected": [],
            "repairs": [],
            "warnings": [],
        },
        "model": {
            "name": "lungnodule",
            "version": "0.1.0",
            "sha256": "6b1f0a7f4b1f0e7c0a5d9d2b8f3c4e5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4",
        },
        "execution_provider": "CPUExecutionProvider",
        "operating_point": {"name": "balanced", "threshold": 0.4},
        "malignancy_meaning": "A reader's rating of 4 or 5 on the LIDC scale of 1 to 5; not pathology.",
        "timings_s": {
            "read": 0.21,
            "lungs": 0.11,
            "prepare": 0.05,
            "detect": 0.83,
            "characterise": 0.06,
            "measure": 0.01,
            "total": 1.27,
        },
        "nodules": [_nodule()],
    }


def _nodule() -> dict[str, Any]:
    return {
        "id": "nodule-1",
        "probability": 0.93,
        "malignancy_probability": 0.71,
        "label": "malignant",
        "diameter_mm": 19.3,
        "long_axis_mm": 22.1,
        "short_axis_mm": 16.5,
        "volume_mm3": 3120.5,
        "mean_hu": -42.0,
        "side": "left",
        "center_lps_mm": [53.531, 49.082, -122.5],
        "center_ras_mm": [-53.531, -49.082, -122.5],
        "bounding_box": {
            "index_zyx": {"min": [82.5, 298.5, 296.5], "max": [91.5, 329.5, 327.5]},
            "lps_mm": {"min": [42.477, 38.183, -133.75], "max": [64.273, 59.98, -111.25]},
        },
        "slices": [
            {
                "sop_instance_uid": "1.3.6.1.4.1.14519.5.2.1.6279.6001.262721256650280657946440242654",
                "instance_number": 46,
                "frame_number": None,
                "index_z": 87,
                "box_px": [296.5, 298.5, 327.5, 329.5],
            }
        ],
        "attributes": {"spiculation": 0.42, "texture_solid": 0.97},
    }
