"""Slices in any order on one grid, and every way in which they may not form one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.dicom_geometry import Stack, stack_slices
from app.imaging.errors import IrregularSeries
from app.imaging.slice_header import SliceHeader
from app.imaging.volume import Grid
from tests.imaging.dicom_worlds import rotation, slice_headers

GRID = Grid.from_spacing((10, 32, 24), (1.25, 0.8, 0.6), (-100.0, -90.0, -300.0))


def never_same(_one: SliceHeader, _other: SliceHeader) -> bool:
    return False


def stacked(headers: Sequence[SliceHeader], *repairs: str, same: Callable[..., bool] = never_same) -> Stack:
    return stack_slices(headers, same, frozenset(repairs))


def refusal(headers: Sequence[SliceHeader], *repairs: str) -> IrregularSeries:
    with pytest.raises(IrregularSeries) as caught:
        stacked(headers, *repairs)
    assert json.dumps(caught.value.values)
    return caught.value


def moved(header: SliceHeader, *offset_lps_mm: float) -> SliceHeader:
    position = np.asarray(header.position_lps_mm) + offset_lps_mm
    return replace(header, position_lps_mm=tuple(position.tolist()))


grids = st.builds(
    lambda axis, degrees, spacing, origin, slices: Grid.from_spacing(
        (slices, 8, 9), spacing, origin, rotation(axis, degrees) @ np.eye(3)[:, ::-1]
    ),
    st.tuples(*[st.floats(0.1, 1.0)] * 3),
    st.floats(-180.0, 180.0),
    st.tuples(st.floats(0.4, 6.0), st.floats(0.3, 2.0), st.floats(0.3, 2.0)),
    st.tuples(*[st.floats(-500.0, 500.0)] * 3),
    st.integers(2, 40),
)


@given(grids, st.randoms(use_true_random=False))
def test_any_oblique_grid_comes_back_from_shuffled_slices(grid: Grid, shuffler: Any) -> None:
    headers = slice_headers(grid)
    shuffler.shuffle(headers)
    stack = stacked(headers)
    assert [header.file.index for header in stack.headers] == list(range(grid.shape_zyx[0]))
    np.testing.assert_allclose(stack.grid.affine, grid.affine, atol=1e-6)
    assert (stack.interpolated, stack.ignored, stack.repairs, stack.warnings) == ((), (), (), ())


@given(grids)
def test_rounded_header_values_are_tolerated(grid: Grid) -> None:
    headers = [
        replace(
            header,
            position_lps_mm=tuple(round(v, 2) for v in header.position_lps_mm or ()),
            orientation_lps=tuple(round(v, 5) for v in header.orientation_lps or ()),
        )
        for header in slice_headers(grid)
    ]
    corners = np.array([(0, 0, 0), np.subtract(grid.shape_zyx, 1)])
    np.testing.assert_allclose(stacked(headers).grid.to_patient(corners), grid.to_patient(corners), atol=0.02)


@given(grids, st.data())
def test_index_to_patient_and_back(grid: Grid, data: st.DataObject) -> None:
    found = stacked(slice_headers(grid)).grid
    index = np.array(data.draw(st.tuples(*[st.floats(-5, 50)] * 3)))
    np.testing.assert_allclose(found.to_index(grid.to_patient(index)), index, atol=1e-4)


@pytest.mark.parametrize("tilt_deg", [-25.0, -2.0, 0.5, 12.0])
def test_gantry_tilt_shears_the_grid_exactly(tilt_deg: float) -> None:
    """The table moves along z while the slices lean: positions, not the normal, say where slices lie."""
    lean = rotation((1, 0, 0), tilt_deg)
    grid = Grid.from_spacing((10, 8, 9), (2.0, 0.7, 0.7), direction_lps_zyx=lean @ np.eye(3)[:, ::-1])
    affine = grid.affine.copy()
    affine[:3, 0] = (0.0, 0.0, 2.0)
    tilted = Grid(grid.shape_zyx, affine)
    stack = stacked(slice_headers(tilted))
    np.testing.assert_allclose(stack.grid.affine, tilted.affine, atol=1e-9)
    (warning,) = stack.warnings
    assert (warning.code, warning.values["tilt_deg"]) == ("gantry_tilt", pytest.approx(abs(tilt_deg), abs=0.01))


def test_tilt_beyond_any_gantry_is_refused() -> None:
    headers = [moved(header, 0, 1.0 * z, 0) for z, header in enumerate(slice_headers(GRID))]
    assert refusal(headers).code == "gantry_tilt"


@pytest.mark.parametrize(("absent", "count"), [([4], 1), ([3, 7], 2), ([5, 6], 2)])
def test_missing_slices_are_named_by_position(absent: list[int], count: int) -> None:
    headers = [header for z, header in enumerate(slice_headers(GRID)) if z not in absent]
    error = refusal(headers)
    first = error.values["gaps"][0]
    assert (error.code, error.values["missing_slices"], error.values["spacing_mm"]) == (
        "nonuniform_spacing",
        count,
        1.25,
    )
    assert first["after_mm"] == pytest.approx(-300.0 + 1.25 * (absent[0] - 1))
    assert f"{first['after_mm']}" in error.message


def test_single_gaps_are_interpolated_when_allowed() -> None:
    headers = [header for z, header in enumerate(slice_headers(GRID)) if z not in (3, 7)]
    stack = stacked(headers, "missing_slices")
    assert stack.interpolated == (3, 7)
    assert [header.file.index for header in stack.headers] == [0, 1, 2, 2, 4, 5, 6, 6, 8, 9]
    np.testing.assert_allclose(stack.grid.affine, GRID.affine, atol=1e-9)
    assert [(each.code, each.values["index_z"]) for each in stack.repairs] == [
        ("missing_slices", 3),
        ("missing_slices", 7),
    ]


def test_wide_gaps_are_never_interpolated() -> None:
    headers = [header for z, header in enumerate(slice_headers(GRID)) if z not in (5, 6)]
    assert refusal(headers, "missing_slices").code == "nonuniform_spacing"


def test_one_displaced_slice_is_refused() -> None:
    headers = slice_headers(GRID)
    headers[5] = moved(headers[5], 0, 0, 0.4)
    error = refusal(headers)
    assert error.code == "nonuniform_spacing"
    assert error.values["largest_mm"] == pytest.approx(1.65)


def test_spacing_that_changes_halfway_is_refused() -> None:
    headers = [moved(header, 0, 0, 0.3 * max(0, z - 5)) for z, header in enumerate(slice_headers(GRID))]
    assert refusal(headers).code == "nonuniform_spacing"


def test_slice_beside_the_others_is_refused() -> None:
    headers = slice_headers(GRID)
    headers[5] = moved(headers[5], 3.0, 0, 0)
    error = refusal(headers)
    assert (error.code, error.values["file"]) == ("irregular_positions", 5)


def test_identical_copies_are_left_out_and_told() -> None:
    headers = slice_headers(GRID)
    copy = replace(headers[4], file=replace(headers[4].file, index=10), sop_instance_uid="1.2.99")
    stack = stacked([copy, *headers], same=lambda *_: True)
    assert [header.file.index for header in stack.headers] == list(range(10))
    assert [(each.code, each.values["file"]) for each in stack.ignored] == [("duplicate_slice", 10)]


def test_different_slices_at_one_position() -> None:
    headers = slice_headers(GRID)
    other = replace(headers[4], file=replace(headers[4].file, index=10), instance_number=99)
    error = refusal([other, *headers])
    assert (error.code, error.values["slices"][0]["file"]) == ("duplicate_slices", 10)
    stack = stacked([other, *headers], "duplicate_slices")
    assert stack.headers[4].instance_number == 5
    assert [(each.code, each.values["file"]) for each in stack.repairs] == [("duplicate_slices", 10)]


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("Rows", {"pixel_format": replace(slice_headers(GRID)[0].pixel_format, rows=64)}),
        ("Columns", {"pixel_format": replace(slice_headers(GRID)[0].pixel_format, columns=64)}),
        ("PixelSpacing", {"pixel_spacing_mm": (0.9, 0.6)}),
        ("FrameOfReferenceUID", {"frame_of_reference_uid": "1.2.10"}),
        ("FrameOfReferenceUID", {"frame_of_reference_uid": None}),
        ("StudyInstanceUID", {"study_instance_uid": "1.2.11"}),
        ("ImageOrientationPatient", {"orientation_lps": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}),
        ("ImageOrientationPatient", {"orientation_lps": (1.0, 0.0, 0.0, 0.0, 0.995, 0.0999)}),
    ],
)
def test_one_odd_slice_is_named(attribute: str, change: dict[str, Any]) -> None:
    headers = slice_headers(GRID)
    headers[6] = replace(headers[6], **change)
    error = refusal(headers)
    assert (error.code, error.values["attribute"], error.values["odd_files"]) == ("mixed_geometry", attribute, [6])


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("ImagePositionPatient", {"position_lps_mm": (0.0, 0.0)}),
        ("ImagePositionPatient", {"position_lps_mm": None}),
        ("ImagePositionPatient", {"position_lps_mm": (0.0, 0.0, 1e30)}),
        ("ImageOrientationPatient", {"orientation_lps": None}),
        ("ImageOrientationPatient", {"orientation_lps": (1.0, 0.0, 0.0)}),
        ("ImageOrientationPatient", {"orientation_lps": (0.0,) * 6}),
        ("ImageOrientationPatient", {"orientation_lps": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)}),
        ("ImageOrientationPatient", {"orientation_lps": (2.0, 0.0, 0.0, 0.0, 2.0, 0.0)}),
        ("PixelSpacing", {"pixel_spacing_mm": (0.0, 0.0)}),
        ("PixelSpacing", {"pixel_spacing_mm": (0.7,)}),
        ("PixelSpacing", {"pixel_spacing_mm": (1e30, 1e30)}),
        ("PixelSpacing", {"pixel_spacing_mm": None}),
    ],
)
def test_geometry_that_means_nothing(attribute: str, change: dict[str, Any]) -> None:
    error = refusal([replace(header, **change) for header in slice_headers(GRID)])
    assert (error.code, error.values["attribute"]) == ("invalid_geometry", attribute)


def test_slices_all_at_one_place() -> None:
    first = slice_headers(GRID)[0]
    copies = [replace(first, file=replace(first.file, index=i)) for i in range(5)]
    with pytest.raises(IrregularSeries) as caught:
        stacked(copies, same=lambda *_: True)
    assert caught.value.code == "single_slice"
