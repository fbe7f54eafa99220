"""A tiny LUNA16 in the published layout, and the published files themselves where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from app.evaluation.reference import (
    Annotation,
    Luna16Error,
    published_file,
    read_annotations,
    read_reference,
    read_series_uids,
)
from training.luna16 import find_cases, official_folds, patients_across_folds, read_candidates

PATIENTS = {f"1.{i}": f"P{i}" for i in range(10)} | {"1.10": "P3"}


def write_mhd(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))


@pytest.fixture
def luna(tmp_path):
    """Ten subsets with one scan each; 1.10 lies in subset3 beside 1.3, the other scan of its patient."""
    for uid, patient in PATIENTS.items():
        write_mhd(tmp_path / f"subset{patient[1:]}" / f"{uid}.mhd")
        write_mhd(tmp_path / "seg-lungs-LUNA16" / f"{uid}.mhd")
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.3,-1.5,2,3e1,6.25\n")
    (tmp_path / "annotations_excluded.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.3,5,6,7,-1\n1.4,0,0,0,3.5\n"
    )
    (tmp_path / "candidates_V2.csv").write_text("seriesuid,coordX,coordY,coordZ,class\n1.3,-1,2,30,1\n1.3,9,9,9,0\n")
    (tmp_path / "seriesuids.csv").write_text("".join(f"{uid}\n" for uid in PATIENTS))
    return tmp_path


def test_a_case_has_all_that_is_published_about_it(luna):
    cases = {case.series_uid: case for case in find_cases(luna, PATIENTS)}
    case = cases["1.3"]
    assert len(cases) == 11
    assert (case.patient_id, case.fold) == ("P3", 3)
    assert case.nodules == (Annotation("1.3", (-1.5, 2.0, 30.0), 6.25),)
    assert [finding.diameter_mm for finding in case.irrelevant] == [-1.0]
    assert [candidate.is_nodule for candidate in case.candidates] == [True, False]
    assert SimpleITK.ReadImage(str(case.image_path)).GetSize() == (4, 3, 2)
    assert case.lungs_path == luna / "seg-lungs-LUNA16" / "1.3.mhd"


def test_a_scan_without_findings_or_lung_mask_is_still_a_case(luna):
    (luna / "seg-lungs-LUNA16" / "1.7.mhd").unlink()
    case = next(case for case in find_cases(luna, PATIENTS) if case.series_uid == "1.7")
    assert (case.lungs_path, case.nodules, case.irrelevant, case.candidates) == (None, (), (), ())


def test_folds_are_the_subset_folders_and_nesting_by_unpacking_is_tolerated(luna):
    (luna / "subset5").rename(luna / "unpacked")
    (luna / "subset5").mkdir()
    (luna / "unpacked").rename(luna / "subset5" / "subset5")
    assert official_folds(luna) == {uid: int(patient[1:]) for uid, patient in PATIENTS.items()}


def test_cases_are_sorted_by_fold_whatever_the_file_system_says(luna):
    assert [case.fold for case in find_cases(luna, PATIENTS)] == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]


def test_a_missing_subset_is_refused_unless_only_others_are_asked_for(luna):
    (luna / "subset8" / "1.8.mhd").unlink()
    with pytest.raises(Luna16Error, match="subset8"):
        find_cases(luna, PATIENTS)
    assert {case.fold for case in find_cases(luna, PATIENTS, folds=(0, 3))} == {0, 3}


def test_a_series_in_two_folds_is_refused(luna):
    write_mhd(luna / "subset1" / "1.3.mhd")
    with pytest.raises(Luna16Error, match="subset1 and in subset3"):
        official_folds(luna)


def test_a_series_without_patient_is_refused(luna):
    with pytest.raises(Luna16Error, match=r"1 series have no patient.*1\.6"):
        find_cases(luna, {uid: patient for uid, patient in PATIENTS.items() if uid != "1.6"})


@pytest.mark.parametrize("folder", ["evaluationScript/annotations", "CSVFILES", "annotations_excluded"])
def test_csv_files_are_found_where_the_archives_unpack_them(luna, folder):
    (luna / folder).mkdir(parents=True)
    (luna / "annotations_excluded.csv").rename(luna / folder / "annotations_excluded.csv")
    assert published_file(luna, "annotations_excluded.csv") == luna / folder / "annotations_excluded.csv"


def test_an_absent_csv_is_named(luna):
    (luna / "candidates_V2.csv").unlink()
    with pytest.raises(Luna16Error, match=r"candidates_V2\.csv is not in"):
        find_cases(luna, PATIENTS)


def test_patients_over_several_folds_are_found():
    assert patients_across_folds({"a": 0, "b": 1, "c": 1}, {"a": "P1", "b": "P1", "c": "P2"}) == {"P1": (0, 1)}


def test_columns_are_found_by_name_with_bom_and_windows_line_ends(tmp_path):
    path = tmp_path / "annotations.csv"
    path.write_bytes("\ufeffdiameter_mm, coordZ,coordY,coordX,seriesuid\r\n5,3,2,1,1.1\r\n\r\n".encode())
    assert read_annotations(path) == (Annotation("1.1", (1.0, 2.0, 3.0), 5.0),)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf"])
def test_a_value_that_is_no_finite_number_is_named_by_line_and_column(tmp_path, value):
    path = tmp_path / "annotations.csv"
    path.write_text(f"seriesuid,coordX,coordY,coordZ,diameter_mm\n1.1,1,2,3,4\n1.1,1,{value},3,4\n")
    with pytest.raises(Luna16Error, match="line 3: coordY"):
        read_annotations(path)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "candidates_V2.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    with pytest.raises(Luna16Error, match="no column class"):
        read_candidates(path)


def test_series_listed_twice_are_refused_and_a_header_is_tolerated(tmp_path):
    path = tmp_path / "seriesuids.csv"
    path.write_text("seriesuid\n1.1\n\n1.2\n")
    assert read_series_uids(path) == ("1.1", "1.2")
    path.write_text("1.1\n1.2\n1.1\n")
    with pytest.raises(Luna16Error, match=r"more than once, first 1\.1"):
        read_series_uids(path)


@given(st.floats(min_value=-1, max_value=60, allow_nan=False))
def test_hit_radius_is_half_the_diameter_or_5_mm(diameter_mm):
    radius = Annotation("1", (0.0, 0.0, 0.0), diameter_mm).hit_radius_mm
    assert radius == (5.0 if diameter_mm < 0 else diameter_mm / 2)


def test_findings_in_series_not_counted_are_left_out(luna):
    (luna / "seriesuids.csv").write_text("1.4\n")
    reference = read_reference(luna / "annotations.csv", luna / "annotations_excluded.csv", luna / "seriesuids.csv")
    assert reference.n_nodules == 0
    assert set(reference.irrelevant) == {"1.4"}


def test_the_published_files_have_their_published_counts(shared_data: Path):
    folder = shared_data / "luna16"
    reference = read_reference(
        folder / "annotations.csv", folder / "annotations_excluded.csv", folder / "seriesuids.csv"
    )
    irrelevant = [finding for found in reference.irrelevant.values() for finding in found]
    assert len(reference.series_uids) == 888
    assert (reference.n_nodules, len(reference.nodules), len(irrelevant)) == (1186, 601, 35192)
    assert sum(finding.diameter_mm < 0 for finding in irrelevant) == 30513
