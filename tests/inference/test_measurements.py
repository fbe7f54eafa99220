from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.preprocessing import CropSpec, sample_stack
from app.imaging.volume import CtVolume, DicomIdentity, Grid, SliceIdentity
from app.inference import measurements
from app.inference.densities import densities, section
from app.inference.findings import NoduleMask

ALIGNED = np.eye(3)[:, ::-1]


def rotation(degrees: float, axis: int) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = np.eye(3)
    first, second = (i for i in range(3) if i != axis)
    turned[first, first], turned[first, second], turned[second, first], turned[second, second] = c, -s, s, c
    return turned


OBLIQUE = rotation(15, 0) @ rotation(-25, 2) @ ALIGNED


def drawn(inside, shape=(15, 64, 64), spacing=(2.0, 0.7, 0.7), direction=ALIGNED) -> NoduleMask:
    """A mask of the points (z, y, x in mm from the middle voxel) for which ``inside`` holds."""
    grid = Grid.from_spacing(shape, spacing, (12.0, -34.0, 56.0), direction)
    z, y, x = ((np.arange(n) - n // 2) * s for n, s in zip(shape, spacing, strict=True))
    return NoduleMask(inside(z[:, None, None], y[None, :, None], x[None, None, :]), grid)


def ellipsoid(long_mm, short_mm, degrees, depth_mm=12.0, **grid):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return drawn(
        lambda z, y, x: (
            ((x * c + y * s) / (long_mm / 2)) ** 2 + ((y * c - x * s) / (short_mm / 2)) ** 2 + (z / (depth_mm / 2)) ** 2
            <= 1
        ),
        **grid,
    )


@given(st.floats(6, 30), st.floats(0.4, 1.0), st.floats(0, 180))
def test_axes_of_an_ellipse_are_found_within_a_pixel(long_mm, ratio, degrees):
    axes = measurements.axes_mm(ellipsoid(long_mm, long_mm * ratio, degrees))
    # The tip of a narrow ellipse may fall short of a pixel's diagonal, 1.0 mm: 0.81 mm at 7.3 mm, 0.4, 134 degrees.
    assert axes.long_mm == pytest.approx(long_mm, abs=1.0)
    assert axes.short_mm == pytest.approx(long_mm * ratio, abs=1.2)


def test_axes_are_neither_shortened_nor_lengthened_on_average():
    """Over many sizes and angles the staircase must not bias the diameter that a guideline's limits are put to."""
    generator = np.random.default_rng(0)
    errors = []
    for diameter, degrees in zip(generator.uniform(5, 20, 60), generator.uniform(0, 180, 60), strict=True):
        axes = measurements.axes_mm(ellipsoid(diameter, diameter * 0.7, degrees))
        errors.append(axes.mean_mm - diameter * 0.85)
    assert abs(np.mean(errors)) < 0.25


@pytest.mark.parametrize("direction", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
def test_one_voxel_is_one_spacing_long(direction):
    mask = drawn(lambda z, y, x: (z == 0) & (y == 0) & (x == 0), spacing=(2.5, 0.5, 0.5), direction=direction)
    axes = measurements.axes_mm(mask)
    assert (axes.long_mm, axes.short_mm) == pytest.approx((0.5, 0.5))
    assert measurements.volume_mm3(mask) == pytest.approx(2.5 * 0.25)


def test_a_bar_is_as_long_as_its_voxels_in_each_direction():
    """1 x 7 voxels of 0.5 x 0.9 mm: 6.3 mm between the outer edges; anisotropic pixels are told apart."""
    mask = drawn(lambda z, y, x: (z == 0) & (y == 0) & (abs(x) <= 2.7), spacing=(2.0, 0.5, 0.9))
    axes = measurements.axes_mm(mask)
    assert axes.long_mm == pytest.approx(6.3)
    assert axes.short_mm == pytest.approx(0.5)


def test_the_short_axis_is_perpendicular_to_the_long_one():
    """In a right triangle the longest perpendicular to the hypotenuse is its height, not its other side."""
    mask = drawn(
        lambda z, y, x: (z == 0) & (x >= 0) & (y >= 0) & (x / 30 + y / 15 <= 1),
        spacing=(2.0, 0.25, 0.25),
        shape=(3, 200, 300),
    )
    axes = measurements.axes_mm(mask)
    assert axes.long_mm == pytest.approx(np.hypot(30, 15), abs=0.4)
    assert axes.short_mm == pytest.approx(30 * 15 / np.hypot(30, 15), abs=0.4)


def test_the_slice_of_largest_area_is_measured():
    mask = drawn(lambda z, y, x: (abs(x) <= np.where(z == 4.0, 6.0, 3.0)) & (abs(y) <= 3.0) & (abs(z) <= 6.0))
    assert measurements.axes_mm(mask).index_z == 9


@pytest.mark.parametrize("direction", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (2.0, 0.7, 0.7)])
def test_volume_and_centre_of_a_ball(direction, spacing):
    shape = (65, 64, 64) if spacing[0] < 1 else (25, 64, 64)
    mask = ellipsoid(20.0, 20.0, 0.0, depth_mm=20.0, shape=shape, spacing=spacing, direction=direction)
    middle = mask.grid.to_patient([n // 2 for n in shape])
    assert measurements.volume_mm3(mask) == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.02)
    assert measurements.center_lps_mm(mask) == pytest.approx(tuple(middle), abs=0.05)


@pytest.mark.parametrize("direction", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
@pytest.mark.parametrize(
    ("inside", "length"),
    [
        (lambda z, y, x: (z == 0) & (y == 0) & (x == 0), 0.7),
        (lambda z, y, x: (z == 0) & (y == 0) & (abs(x) < 7.1), 21 * 0.7),
        (lambda z, y, x: (abs(z) < 6.1) & (y == 0) & (x == 0), np.hypot(12.0, 0.7)),
        # Along the diagonal: 12 mm between the outermost centres up and 14 mm across, and half a pixel at each end.
        (
            lambda z, y, x: (abs(z) < 6.1) & (y == 0) & (np.abs(x - z * 7 / 6) < 0.36),
            np.hypot(12, 14) + 0.7 * 14 / np.hypot(12, 14),
        ),
    ],
    ids=["voxel", "row", "column", "diagonal"],
)
def test_the_longest_extent_is_found_in_any_direction(inside, length, direction):
    mask = drawn(inside, direction=direction)
    assert measurements.long_axis_3d_mm(mask) == pytest.approx(length, rel=0.01)


@given(st.floats(4, 20), st.sampled_from([ALIGNED, OBLIQUE]))
def test_the_longest_extent_of_a_ball_is_its_diameter(diameter, direction):
    mask = ellipsoid(
        diameter, diameter, 0.0, depth_mm=diameter, shape=(41, 64, 64), spacing=(0.8, 0.7, 0.7), direction=direction
    )
    assert diameter - 0.8 <= measurements.long_axis_3d_mm(mask) <= diameter + 0.8


def test_the_patient_box_holds_the_voxels_to_their_corners():
    mask = drawn(lambda z, y, x: (z == 0) & (y == 0) & (x == 0), direction=OBLIQUE)
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) + np.argwhere(mask.voxels)
    low, high = measurements.box_lps_mm(mask)
    assert low == pytest.approx(tuple(mask.grid.to_patient(corners).min(axis=0)))
    assert high == pytest.approx(tuple(mask.grid.to_patient(corners).max(axis=0)))


def scan(order: tuple[int, ...], flips: tuple[bool, ...], direction: np.ndarray) -> tuple[CtVolume, np.ndarray]:
    """A scan whose array axes run along permuted and flipped patient axes, with a bright box; its true voxels.

    Spacing is 2 mm along the patient's z (the axis that crops are stacked along) and 0.5 mm elsewhere.
    """
    patient_shape, patient_spacing = np.array((24, 90, 100)), np.array((2.0, 0.5, 0.5))
    shape, spacing = patient_shape[list(order)], patient_spacing[list(order)]
    signs = np.where(flips, -1.0, 1.0)
    grid = Grid.from_spacing(tuple(shape), spacing, (5.0, -6.0, 70.0), (direction[:, list(order)]) * signs)
    inside = np.zeros((24, 90, 100), bool)
    inside[9:14, 30:48, 60:71] = True
    inside = inside.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    hu = np.where(inside, 50, -850).astype(np.int16)
    slices = tuple(SliceIdentity(f"1.2.{z}", instance_number=100 + z) for z in range(shape[0]))
    return CtVolume(hu, grid, DicomIdentity("1", "2", None, slices)), inside


def outlined(volume: CtVolume, inside: np.ndarray) -> NoduleMask:
    crop = CropSpec(spacing_mm=0.5, size_px=64)
    middle = volume.grid.to_patient(np.argwhere(inside).mean(axis=0))
    # On a pixel of the scan, as a voxel for voxel comparison needs.
    middle = volume.grid.to_patient(np.rint(volume.grid.to_index(middle)))
    stack, grid = sample_stack(volume, middle, 12.0, crop)
    return NoduleMask(stack > 0.6, grid)


orientations = st.tuples(
    st.sampled_from(list(permutations(range(3)))),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from([ALIGNED, OBLIQUE]),
)


@given(orientations)
def test_boxes_are_those_of_the_file_whatever_its_orientation(orientation):
    volume, inside = scan(*orientation)
    mask = outlined(volume, inside)
    index = np.argwhere(inside)
    low, high = measurements.box_index_zyx(mask, volume.grid)
    assert low == pytest.approx(tuple(index.min(axis=0) - 0.5), abs=1e-6)
    assert high == pytest.approx(tuple(index.max(axis=0) + 0.5), abs=1e-6)


@given(orientations)
def test_each_slice_of_the_file_has_its_own_box_and_name(orientation):
    volume, inside = scan(*orientation)
    expected = {}
    for z in np.unique(np.argwhere(inside)[:, 0]):
        rows, columns = np.nonzero(inside[z])
        expected[int(z)] = (columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5)
    found = measurements.slice_boxes(outlined(volume, inside), volume)
    assert [box.index_z for box in found] == sorted(expected)
    for box in found:
        assert box.box_px == pytest.approx(expected[box.index_z], abs=1e-6)
        assert (box.sop_instance_uid, box.instance_number) == (f"1.2.{box.index_z}", 100 + box.index_z)


@given(orientations)
def test_mean_hu_is_that_of_the_nodule_alone(orientation):
    volume, inside = scan(*orientation)
    mask = outlined(volume, inside)
    hu = densities(section(mask, volume))
    assert (hu.mean_hu, hu.min_hu, hu.max_hu) == (50.0, 50.0, 50.0)
    assert hu.mass_mg == pytest.approx(1.05 * measurements.volume_mm3(mask), rel=1e-6)


def test_each_slice_has_the_box_of_its_own_section():
    """A cone: its box must shrink from slice to slice, not be the box of the whole."""
    volume, _ = scan((0, 1, 2), (False,) * 3, ALIGNED)
    mask = drawn(lambda z, y, x: (z >= 0) & (np.hypot(x, y) <= 10 - 2 * z), shape=(9, 64, 64), spacing=(2.0, 0.5, 0.5))
    grid = Grid(mask.grid.shape_zyx, volume.grid.cropped((3, 10, 10), (9, 64, 64)).affine)
    boxes = measurements.slice_boxes(NoduleMask(mask.voxels, grid), volume)
    widths = [box.box_px[2] - box.box_px[0] for box in boxes]
    assert [box.index_z for box in boxes] == [7, 8, 9]
    assert widths == pytest.approx([41, 25, 9])


def test_boxes_end_where_the_scan_ends():
    volume, _ = scan((0, 1, 2), (False,) * 3, ALIGNED)
    grid = volume.grid.cropped((-2, -5, -5), (6, 30, 30))
    mask = NoduleMask(np.ones(grid.shape_zyx, bool), grid)
    assert measurements.box_index_zyx(mask, volume.grid) == ((-0.5, -0.5, -0.5), (3.5, 24.5, 24.5))
    boxes = measurements.slice_boxes(mask, volume)
    assert [box.index_z for box in boxes] == [0, 1, 2, 3]
    assert boxes[0].box_px == (-0.5, -0.5, 24.5, 24.5)


def test_a_scan_without_dicom_identity_has_boxes_without_names():
    volume, inside = scan((0, 1, 2), (False,) * 3, ALIGNED)
    (first, *_) = measurements.slice_boxes(outlined(volume, inside), CtVolume(volume.hu, volume.grid))
    assert (first.sop_instance_uid, first.instance_number) == (None, None)
