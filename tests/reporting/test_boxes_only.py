"""Findings of a model that has a detector only, in every form: what is not known is left out, never made up."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle

from app.api.schemas import AnalysisResult, result_from_findings
from app.imaging.alignment import Alignment, AlignmentQuality, Mapping
from app.imaging.lungs import LungMask
from app.inference.boxed_nodules import NOT_TOLD, boxed_nodules
from app.inference.findings import Candidate
from app.inference.measuring import Chest
from app.reporting.comparison import compare_aligned
from app.reporting.errors import ResultUnavailable
from app.reporting.results import KINDS, dicom_objects, make_result
from tests.reporting.validators import errors_of_dciodvfy
from tests.reporting.worlds import Scan

HALF_VOXELS = np.array((1.2, 2.0, 3.0))


@pytest.fixture(scope="module")
def boxed(classic: Scan) -> Scan:
    """The nodules of the classic scan as boxes along the axes of the oblique scan."""
    volume, grid = classic.originals.volume, classic.findings.grid
    candidates = []
    for nodule in classic.findings.nodules:
        center = grid.to_index(nodule.center_lps_mm)
        corners = tuple(map(tuple, grid.to_patient([center - HALF_VOXELS, center + HALF_VOXELS])))
        candidates.append(Candidate(nodule.center_lps_mm, 9.0, nodule.probability, box_corners_lps_mm=corners))
    lungs = LungMask(np.ones(grid.shape_zyx, np.uint8), grid)
    nodules = boxed_nodules(candidates, 0.5, Chest(volume, lungs))
    findings = dataclasses.replace(classic.findings, nodules=nodules, malignancy_meaning=NOT_TOLD)
    return Scan(classic.folder, findings)


def made(scan: Scan, kind: str) -> bytes:
    return make_result(kind, scan.report, scan.originals).body


def test_the_box_is_the_detectors_own(boxed: Scan) -> None:
    for nodule in boxed.findings.nodules:
        low, high = np.asarray(nodule.box_index_zyx)
        assert high - low == pytest.approx(2 * HALF_VOXELS)
        assert (nodule.long_axis_mm, nodule.short_axis_mm) == pytest.approx((6 * 4.0, 4 * 3.5))
        assert nodule.diameter_mm == pytest.approx((24.0 + 14.0) / 2)
        assert [s.index_z for s in nodule.slices] == list(range(int(np.ceil(low[0])), int(np.floor(high[0])) + 1))
        assert nodule.slices[0].box_px == pytest.approx((low[2], low[1], high[2], high[1]))
        assert nodule.slices[0].sop_instance_uid


def test_the_answer_says_null_and_why(boxed: Scan) -> None:
    answer = json.loads(result_from_findings(boxed.findings).model_dump_json())
    assert AnalysisResult.model_validate(answer)
    for nodule in answer["nodules"]:
        assert (nodule["malignancy_probability"], nodule["label"], nodule["volume_mm3"]) == (None, None, None)
        assert nodule["diameter_mm"] > 0
    assert answer["malignancy_meaning"] == NOT_TOLD


def test_tables_leave_empty_what_is_not_known(boxed: Scan) -> None:
    for row in csv.DictReader(io.StringIO(made(boxed, "csv").decode())):
        assert (row["malignancy_probability"], row["label"], row["volume_mm3"]) == ("", "", "")
        assert float(row["diameter_mm"]) > 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "seg"])
def test_every_other_form_can_be_had(boxed: Scan, kind: str) -> None:
    assert made(boxed, kind)


def test_fhir_has_neither_volume_nor_risk_of_cancer(boxed: Scan) -> None:
    body = made(boxed, "fhir").decode()
    Bundle.model_validate_json(body)
    observed = [e["resource"] for e in json.loads(body)["entry"] if e["resource"]["resourceType"] == "Observation"]
    names = {component["code"]["text"] for o in observed for component in o["component"]}
    assert "Diameter" in names
    assert not {name for name in names if "olume" in name or "cancer" in name}


def test_a_segmentation_is_refused_and_the_others_do_without_it(boxed: Scan, tmp_path: Path) -> None:
    with pytest.raises(ResultUnavailable, match="boxes and no outlines") as refused:
        made(boxed, "seg")
    assert refused.value.code == "boxes_only"
    datasets = dicom_objects(boxed.report, boxed.originals)
    assert "SEG" not in {dataset.Modality for dataset in datasets}
    for dataset in datasets:
        path = tmp_path / f"{dataset.Modality}.dcm"
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        assert errors_of_dciodvfy(path) == []


def test_the_report_has_the_boxes_as_regions_and_no_volume(boxed: Scan) -> None:
    body = made(boxed, "sr")
    assert b"SCOORD" in body
    assert NOT_TOLD.encode() in body
    assert b"Probability of cancer" not in body
    assert b"Volume" not in body.replace(b"Volumetric", b"")


def test_two_scans_with_boxes_are_not_compared(boxed: Scan) -> None:
    grid = boxed.findings.grid
    mapping = Mapping(np.eye(4), np.zeros((*grid.shape_zyx, 3), np.float32), grid)
    alignment = Alignment(mapping, AlignmentQuality(0.97, 1.0, 200, 0.95, 0.8, 2.0), np.zeros((1, 3)), np.ones(1))
    comparison = compare_aligned(boxed.findings, boxed.findings, alignment, 90)
    assert comparison.failure is not None
    assert comparison.failure.code == "no_outlines"
    assert {alone.status for alone in comparison.only_current} == {"not_compared"}
