"""Preprocessing against an independent resampler, and the promises that training and serving rest on."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.imaging.lungs import LEFT, RIGHT, LungMask
from app.imaging.preprocessing import CropSpec, PreprocessingSpec, preprocess, sample_crops, sample_stack
from app.imaging.volume import CtVolume, Grid, canonical
from tests.imaging.grids import directions, rotations

SHAPE_ZYX = (14, 30, 26)
ROUNDING = 2e-6
"""Of a few float32 operations on values of 0..1."""


def ct(spacing_zyx_mm=(2.5, 0.75, 1.25), direction=None, origin=(12.5, -40.0, 7.0), seed: int = 0) -> CtVolume:
    """Smooth random HU over the whole range, so that interpolation and every axis matter."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1100, 900, tuple(n // 2 for n in SHAPE_ZYX))
    hu = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.int16)
    return CtVolume(hu, Grid.from_spacing(SHAPE_ZYX, spacing_zyx_mm, origin, direction))


def mask_of(volume: CtVolume, low=(0.25, 0.25, 0.25), high=(0.75, 0.75, 0.75)) -> LungMask:
    """Two boxes that fill a share of the scan, on a mask grid of every other canonical voxel."""
    hu, grid = canonical(volume)
    shape = tuple(-(-n // 2) for n in hu.shape)
    affine = grid.affine.copy()
    affine[:3, :3] *= 2.0
    labels = np.zeros(shape, np.uint8)
    box = tuple(slice(int(a * n), max(int(a * n) + 1, int(b * n))) for a, b, n in zip(low, high, shape, strict=True))
    labels[box] = RIGHT
    labels[box][:, :, labels[box].shape[2] // 2 :] = LEFT
    return LungMask(labels, Grid(shape, affine))


def resampled_by_simpleitk(volume: CtVolume, grid: Grid, outside: float) -> np.ndarray:
    """Trilinear values of the scan at the voxels of another grid."""
    image = SimpleITK.GetImageFromArray(volume.hu.astype(np.float64))
    image.SetSpacing(volume.grid.spacing_zyx_mm[::-1].tolist())
    image.SetOrigin(volume.grid.origin_lps_mm.tolist())
    image.SetDirection(volume.grid.direction_lps_zyx[:, ::-1].ravel().tolist())
    there = SimpleITK.Resample(
        image,
        grid.shape_zyx[::-1],
        outputOrigin=grid.origin_lps_mm.tolist(),
        outputSpacing=grid.spacing_zyx_mm[::-1].tolist(),
        outputDirection=grid.direction_lps_zyx[:, ::-1].ravel().tolist(),
        defaultPixelValue=outside,
    )
    return SimpleITK.GetArrayFromImage(there)


def windowed(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    return np.clip((hu - window_hu[0]) / (window_hu[1] - window_hu[0]), 0.0, 1.0)


def away_from_the_edge(volume: CtVolume, grid: Grid) -> np.ndarray:
    """Voxels of ``grid`` that do not sit on the scan's outer faces, where two resamplers may round to either side."""
    index = volume.grid.to_index(grid.to_patient(np.indices(grid.shape_zyx).reshape(3, -1).T))
    upper = np.asarray(volume.grid.shape_zyx) - 0.5
    on_edge = (np.abs(index + 0.5) < 1e-6) | (np.abs(index - upper) < 1e-6)
    return ~on_edge.any(axis=1).reshape(grid.shape_zyx)


@settings(max_examples=25)
@given(directions(), st.tuples(*[st.floats(0.6, 3.0)] * 3), st.floats(0.7, 2.0))
def test_values_are_those_of_an_independent_resampler(
    direction: np.ndarray, spacing: tuple[float, float, float], target: float
) -> None:
    volume = ct(spacing, direction)
    spec = PreprocessingSpec(spacing_mm=target, shape_multiple=8)

    prepared = preprocess(volume, mask_of(volume), spec)

    expected = windowed(resampled_by_simpleitk(volume, prepared.grid, outside=-5000.0), spec.window_hu)
    compared = away_from_the_edge(volume, prepared.grid)
    assert np.allclose(prepared.values[compared], expected[compared], rtol=0, atol=1e-4)


@settings(max_examples=25)
@given(directions(max_degrees=30.0), st.floats(0.7, 2.0))
def test_grid_is_isotropic_and_holds_the_lungs_with_their_margin(direction: np.ndarray, target: float) -> None:
    volume = ct(direction=direction)
    lungs = mask_of(volume)
    spec = PreprocessingSpec(spacing_mm=target, lung_margin_mm=3.0)

    prepared = preprocess(volume, lungs, spec)

    assert np.allclose(prepared.grid.spacing_zyx_mm, target)
    assert all(n % spec.shape_multiple == 0 for n in prepared.grid.shape_zyx)
    corners = lungs.box_corners_lps_mm()
    assert prepared.grid.contains_index(prepared.grid.to_index(corners)).all()
    outward = corners - corners.mean(axis=0)
    widened = corners + 3.0 * np.sign(outward @ prepared.grid.direction_lps_zyx) @ prepared.grid.direction_lps_zyx.T
    index = volume.grid.to_index(widened)
    inside_scan = ((index >= 0) & (index <= np.asarray(SHAPE_ZYX) - 1)).all(axis=1)
    assert prepared.grid.contains_index(prepared.grid.to_index(widened))[inside_scan].all()


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    volume = ct()
    one, two, five = (preprocess(volume, mask_of(volume), PreprocessingSpec(), threads=n) for n in (1, 2, 5))

    assert one.values.tobytes() == two.values.tobytes() == five.values.tobytes()


def plainly_resampled(hu: np.ndarray, step: np.ndarray, shape: tuple[int, ...], spec: PreprocessingSpec) -> np.ndarray:
    """Trilinear from voxel (0, 0, 0) on, written for reading: whole arrays, float32, along z, then y, then x."""
    values = hu.astype(np.float32)
    outside = np.zeros(shape, bool)
    for axis in range(3):
        positions = np.arange(shape[axis]) * step[axis]
        clipped = np.clip(positions, 0, hu.shape[axis] - 1)
        lower = np.floor(clipped).astype(int)
        upper = np.minimum(lower + 1, hu.shape[axis] - 1)
        along = [-1 if a == axis else 1 for a in range(3)]
        weight = (clipped - lower).astype(np.float32).reshape(along)
        first, second = values.take(lower, axis), values.take(upper, axis)
        values = first + weight * (second - first)
        outside |= (positions > hu.shape[axis] - 0.5).reshape(along)
    low, high = spec.window_hu
    windowed = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), np.float32(0), np.float32(1))
    return np.where(outside, np.float32(0), windowed)


@settings(max_examples=40)
@given(st.tuples(*[st.floats(0.5, 3.0)] * 3), st.floats(0.5, 3.0), st.integers(1, 9), st.integers(0, 3))
def test_values_are_to_the_last_bit_those_of_a_plain_implementation(
    spacing: tuple[float, float, float], target: float, threads: int, seed: int
) -> None:
    volume = ct(spacing, direction=np.eye(3)[:, ::-1], seed=seed)
    spec = PreprocessingSpec(spacing_mm=target, shape_multiple=4, window_hu=(-1000.0, 333.0))

    prepared = preprocess(volume, mask_of(volume, (0, 0, 0), (1, 1, 1)), spec, threads=threads)

    step = spec.spacing_mm / volume.grid.spacing_zyx_mm
    expected = plainly_resampled(volume.hu, step, prepared.values.shape, spec)
    assert prepared.values.dtype == np.float32
    assert np.array_equal(prepared.values, expected)


@settings(max_examples=25)
@given(rotations(max_degrees=30.0), st.tuples(*[st.floats(-300.0, 300.0)] * 3))
def test_a_rotated_patient_gives_the_same_array(rotation: np.ndarray, origin: tuple[float, float, float]) -> None:
    straight = ct()
    turned = ct(direction=rotation @ np.eye(3)[:, ::-1], origin=origin)

    before = preprocess(straight, mask_of(straight), PreprocessingSpec())
    after = preprocess(turned, mask_of(turned), PreprocessingSpec())

    assert after.values.shape == before.values.shape
    assert np.allclose(after.values, before.values, rtol=0, atol=ROUNDING)
    # The mask is looked up at the nearest voxel of its own grid: ties may fall to either side.
    assert np.mean(after.in_lungs != before.in_lungs) < 0.1
    assert np.allclose(after.grid.direction_lps_zyx, rotation @ before.grid.direction_lps_zyx, atol=1e-9)


@settings(max_examples=40)
@given(rotations(max_degrees=30.0))
def test_the_last_digits_of_an_oblique_affine_do_not_decide_the_shape(rotation: np.ndarray) -> None:
    # Every edge of the lung box is a whole number of steps long, give or take 1e-13.
    spec = PreprocessingSpec(spacing_mm=0.5, lung_margin_mm=1.0, shape_multiple=1)
    spacing = (2.0, 0.5, 1.0)
    straight, turned = ct(spacing), ct(spacing, direction=rotation @ np.eye(3)[:, ::-1])

    shapes = [preprocess(volume, mask_of(volume), spec).values.shape for volume in (straight, turned)]

    assert shapes[0] == shapes[1]


@settings(max_examples=20)
@given(directions(max_degrees=0.0))
def test_a_flipped_or_permuted_scan_of_the_same_patient_gives_the_same_array(direction: np.ndarray) -> None:
    canonical_ct = ct(spacing_zyx_mm=(2.0, 2.0, 2.0))
    order = [int(np.argmax(np.abs(direction[axis]))) for axis in (2, 1, 0)]
    # order[i]: which array axis of the other scan runs along canonical axis i.
    signs = [direction[axis, order[i]] for i, axis in enumerate((2, 1, 0))]
    flips = tuple(slice(None, None, int(s)) for s in signs)
    hu = np.ascontiguousarray(canonical_ct.hu[flips].transpose(np.argsort(order)))
    start = [0 if s > 0 else n - 1 for s, n in zip(signs, SHAPE_ZYX, strict=True)]
    origin = canonical_ct.grid.to_patient(start)
    other = CtVolume(hu, Grid.from_spacing(hu.shape, (2.0, 2.0, 2.0), origin, direction))

    expected = preprocess(canonical_ct, mask_of(canonical_ct), PreprocessingSpec())
    found = preprocess(other, mask_of(other), PreprocessingSpec())

    assert np.allclose(found.grid.affine, expected.grid.affine, rtol=0, atol=1e-9)
    assert np.allclose(found.values, expected.values, rtol=0, atol=ROUNDING)


def test_outside_the_scan_there_is_air() -> None:
    volume = CtVolume(np.full((6, 6, 6), 200, np.int16), Grid.from_spacing((6, 6, 6)))

    prepared = preprocess(volume, mask_of(volume, (0, 0, 0), (1, 1, 1)), PreprocessingSpec(shape_multiple=16))

    assert prepared.values.shape == (16, 16, 16)
    assert (prepared.values[:6, :6, :6] > 0.8).all()
    assert not prepared.values[6:].any()
    assert not prepared.values[:, 6:].any()
    assert not prepared.values[:, :, 6:].any()


def test_the_window_clips_and_scales() -> None:
    hu = np.repeat(np.array([-2048, -1024, -312, 400, 3071], np.int16), 25).reshape(5, 5, 5)
    volume = CtVolume(hu, Grid.from_spacing((5, 5, 5)))

    prepared = preprocess(volume, mask_of(volume, (0, 0, 0), (1, 1, 1)), PreprocessingSpec(shape_multiple=1))

    assert np.allclose(prepared.values[:5, 2, 2], [0.0, 0.0, 0.5, 1.0, 1.0], atol=ROUNDING)


def test_the_prepared_volume_names_its_spec() -> None:
    volume = ct()
    spec, other = PreprocessingSpec(), PreprocessingSpec(lung_margin_mm=7.0)

    assert preprocess(volume, mask_of(volume), spec).spec_digest == spec.digest
    assert spec.digest == PreprocessingSpec().digest
    assert spec.digest != other.digest


@pytest.mark.parametrize(
    "wrong", [{"window_hu": (400.0, -1024.0)}, {"spacing_mm": 0.0}, {"lung_margin_mm": -1.0}, {"spacing": 1.0}]
)
def test_impossible_specs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreprocessingSpec(**wrong)


# Crops

RAMP_WINDOW = (0.0, 1000.0)


def ramp(axis: int, direction: np.ndarray | None = None, spacing=(2.0, 0.8, 1.3)) -> CtVolume:
    """HU that are 10 times the index along one canonical axis."""
    shape = (20, 40, 36)
    straight = Grid.from_spacing(shape, spacing, (5.0, 6.0, 7.0), direction)
    hu = np.broadcast_to((10 * np.arange(shape[axis])).reshape([-1 if a == axis else 1 for a in range(3)]), shape)
    return CtVolume(hu.astype(np.int16), straight)


@settings(max_examples=30)
@given(
    rotations(max_degrees=30.0),
    st.tuples(st.floats(4.0, 15.0), st.floats(10.0, 30.0), st.floats(10.0, 26.0)),
    st.sampled_from([16, 17]),
)
def test_the_point_lies_at_size_half(rotation: np.ndarray, index: tuple[float, float, float], size: int) -> None:
    spec = CropSpec(size_px=size, slice_offsets_mm=(0.0,), window_hu=RAMP_WINDOW)
    for axis in (1, 2):
        volume = ramp(axis, rotation @ np.eye(3)[:, ::-1])

        crop = sample_crops(volume, volume.grid.to_patient(index), spec)[0, 0]

        assert crop[size // 2, size // 2] * 1000.0 == pytest.approx(10.0 * index[axis], abs=1e-2)
        step = spec.spacing_mm / volume.grid.spacing_zyx_mm[axis]
        along = crop[:, size // 2] if axis == 1 else crop[size // 2]
        expected = 10.0 * (index[axis] + (np.arange(size) - size // 2) * step)
        assert np.allclose(along * 1000.0, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("z", "offsets_mm", "slices"),
    [
        (5.0, (-2.0, 0.0, 2.0), (4, 5, 6)),
        (5.4, (0.0,), (5,)),
        (5.6, (0.0,), (6,)),
        (5.0, (-0.9, 0.9), (5, 5)),
        (0.0, (-6.0, 0.0), (0, 0)),
        (19.0, (0.0, 30.0), (19, 19)),
    ],
)
def test_the_nearest_slice_is_taken_and_the_last_one_repeated(
    z: float, offsets_mm: tuple[float, ...], slices: tuple[int, ...]
) -> None:
    volume = ramp(0)
    spec = CropSpec(size_px=8, slice_offsets_mm=offsets_mm, window_hu=RAMP_WINDOW)

    crop = sample_crops(volume, volume.grid.to_patient((z, 20.0, 18.0)), spec)

    assert np.allclose(crop[0, :, 4, 4] * 1000.0, 10.0 * np.asarray(slices), atol=1e-2)


def test_offsets_given_to_the_call_replace_those_of_the_spec() -> None:
    volume = ramp(0)
    spec = CropSpec(size_px=8, window_hu=RAMP_WINDOW)

    crops = sample_crops(volume, volume.grid.to_patient((5, 20, 18)), spec, slice_offsets_mm=(4.0,))

    assert crops.shape == (1, 1, 8, 8)
    assert crops[0, 0, 4, 4] * 1000.0 == pytest.approx(70.0)


def test_a_crop_over_the_edge_is_air_beyond_it() -> None:
    volume = CtVolume(np.full((3, 10, 10), 300, np.int16), Grid.from_spacing((3, 10, 10)))
    spec = CropSpec(spacing_mm=1.0, size_px=8, slice_offsets_mm=(0.0,))

    corner = sample_crops(volume, volume.grid.to_patient((1, 0, 9)), spec)[0, 0]

    inside = np.zeros((8, 8), bool)
    inside[4:, :5] = True
    assert (corner[inside] > 0.9).all()
    assert not corner[~inside].any()


def test_a_point_far_outside_gives_air() -> None:
    volume = CtVolume(np.full((3, 10, 10), 300, np.int16), Grid.from_spacing((3, 10, 10)))

    assert not sample_crops(volume, (500.0, 500.0, 500.0), CropSpec()).any()


def test_every_crop_has_its_own_window_and_every_point_its_own_crop() -> None:
    volume = ramp(1)
    points = volume.grid.to_patient([(5, 12, 18), (5, 25, 18)])

    wide = sample_crops(volume, points, CropSpec(size_px=8, window_hu=(0.0, 1000.0)))
    narrow = sample_crops(volume, points, CropSpec(size_px=8, window_hu=(100.0, 200.0)))

    assert wide.shape == (2, 3, 8, 8)
    assert np.allclose(wide[:, 1, 4, 4], [0.12, 0.25], atol=1e-5)
    assert np.allclose(narrow[:, 1, 4, 4], [0.2, 1.0], atol=1e-5)


def test_crops_of_no_points() -> None:
    assert sample_crops(ct(), np.zeros((0, 3)), CropSpec(size_px=8)).shape == (0, 3, 8, 8)


@settings(max_examples=25)
@given(rotations(max_degrees=30.0), st.tuples(*[st.floats(0.3, 0.7)] * 3))
def test_in_plane_values_are_those_of_an_independent_resampler(
    rotation: np.ndarray, place: tuple[float, float, float]
) -> None:
    volume = ct(direction=rotation @ np.eye(3)[:, ::-1])
    index = np.asarray(place) * (np.asarray(SHAPE_ZYX) - 1)
    index[0] = np.round(index[0])
    spec = CropSpec(size_px=8, slice_offsets_mm=(0.0,))

    crop = sample_crops(volume, volume.grid.to_patient(index), spec)[0, 0]

    step = spec.spacing_mm / volume.grid.spacing_zyx_mm
    affine = volume.grid.affine.copy()
    affine[:3, 1:3] *= step[1:]
    affine[:3, 3] = volume.grid.to_patient(index - (0.0, 4 * step[1], 4 * step[2]))
    expected = resampled_by_simpleitk(volume, Grid((1, 8, 8), affine), outside=-5000.0)[0]
    assert np.allclose(crop, windowed(expected, spec.window_hu), rtol=0, atol=1e-4)


@settings(max_examples=25)
@given(directions(max_degrees=20.0), st.floats(0.0, 12.0))
def test_a_stack_says_where_its_voxels_lie(direction: np.ndarray, half_depth_mm: float) -> None:
    volume = ct(direction=direction)
    center = volume.grid.to_patient((np.asarray(SHAPE_ZYX) - 1) / 2.0 + (0.2, -0.3, 0.4))
    spec = CropSpec(size_px=10)

    values, grid = sample_stack(volume, center, half_depth_mm, spec)

    assert values.shape == grid.shape_zyx
    expected = windowed(resampled_by_simpleitk(volume, grid, outside=-5000.0), spec.window_hu)
    compared = away_from_the_edge(volume, grid)
    assert np.allclose(values[compared], expected[compared], rtol=0, atol=1e-4)


@pytest.mark.parametrize("error_mm", [-1e-12, 0.0, 1e-12])
@pytest.mark.parametrize(("slices", "expected"), [(133, 84), (134, 84), (129, 81), (5, 4)])
def test_a_whole_scan_ends_at_the_nearest_voxel_and_at_the_even_count_of_two(slices, expected, error_mm):
    """(n - 1) * 2.5 / 4 + 1 voxels, rounded as MONAI rounds; 133 slices are those of LIDC-IDRI-0001."""
    grid = Grid.from_spacing((slices, 6, 6), (2.5 + error_mm, 1.0, 1.0))
    volume = CtVolume(np.full((slices, 6, 6), 40, np.int16), grid)
    spec = PreprocessingSpec(spacing_zyx_mm=(4.0, 1.0, 1.0), extent="scan", shape_multiple=1)
    prepared = preprocess(volume, None, spec)
    assert prepared.values.shape == (expected, 6, 6)
    assert prepared.values.min() == prepared.values.max(), "the edge is repeated, not air"
    assert prepared.in_lungs is None


def test_directions_turn_the_array_and_its_grid_together():
    hu = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    volume = CtVolume(hu, Grid.from_spacing(hu.shape, (2.0, 1.0, 1.0)))
    common = {"spacing_zyx_mm": (2.0, 1.0, 1.0), "extent": "scan", "shape_multiple": 1, "window_hu": (0.0, 1000.0)}
    straight = preprocess(volume, None, PreprocessingSpec(**common))
    turned = preprocess(volume, None, PreprocessingSpec(**common, directions_zyx="SAR"))
    assert np.array_equal(turned.values, straight.values[:, ::-1, ::-1])
    assert turned.grid.to_patient((1, 2, 3)) == pytest.approx(straight.grid.to_patient((1, 2, 2)))
    with pytest.raises(ValueError, match="lung mask"):
        preprocess(volume, None, PreprocessingSpec())


def test_what_came_later_does_not_change_the_digest_of_what_was_there():
    """Caches and models in the field are keyed by it."""
    spec = PreprocessingSpec()
    old = {name: getattr(spec, name) for name in ("spacing_mm", "window_hu", "lung_margin_mm", "shape_multiple")}
    assert spec.digest == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    assert spec.digest != PreprocessingSpec(extent="scan").digest
