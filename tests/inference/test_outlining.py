import numpy as np
import pytest

from app.imaging.preprocessing import CropSpec, sample_crops, sample_stack
from app.imaging.volume import CtVolume, Grid
from app.inference.findings import Candidate
from app.inference.measurements import center_lps_mm, volume_mm3
from app.inference.outlining import outline

CROP = CropSpec(spacing_mm=0.7, size_px=64, window_hu=(-1000.0, 400.0))
TURNED = np.array([[0.0, -0.2588, 0.9659], [0.0, 0.9659, 0.2588], [1.0, 0.0, 0.0]])


def scan_with(balls, *, spacing=(2.0, 0.7, 0.7), shape=(40, 120, 120), direction=None) -> CtVolume:
    """Lung with balls of soft tissue: (index_zyx, diameter_mm)."""
    grid = Grid.from_spacing(shape, spacing, (-30.0, 10.0, 55.0), direction)
    hu = np.full(shape, -850, np.int16)
    for center, diameter in balls:
        z, y, x = (((np.arange(n) - c) * s) ** 2 for n, c, s in zip(shape, center, spacing, strict=True))
        hu[z[:, None, None] + y[:, None] + x <= (diameter / 2) ** 2] = 20
    return CtVolume(hu, grid)


def candidate_at(volume: CtVolume, index_zyx, diameter_mm: float) -> Candidate:
    return Candidate(tuple(volume.grid.to_patient(index_zyx)), diameter_mm, 0.9)


def bright(stack):
    return stack


def blind(stack):
    return np.zeros_like(stack)


@pytest.mark.parametrize("direction", [None, TURNED, -TURNED], ids=["aligned", "turned", "mirrored"])
def test_the_whole_ball_is_outlined_where_it_lies(direction):
    volume = scan_with([((20, 60, 60), 16.0)], direction=direction)
    mask, notices = outline(volume, candidate_at(volume, (20, 60, 60), 14.0), CROP, bright)
    assert notices == ()
    assert volume_mm3(mask) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.05)
    assert center_lps_mm(mask) == pytest.approx(tuple(volume.grid.to_patient((20, 60, 60))), abs=0.2)


def test_a_detector_that_saw_only_a_part_does_not_cut_the_nodule():
    volume = scan_with([((20, 60, 60), 30.0)])
    mask, notices = outline(volume, candidate_at(volume, (21, 61, 60), 5.0), CROP, bright)
    assert notices == ()
    assert volume_mm3(mask) == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.05)


def test_only_the_part_at_the_centre_belongs_to_the_nodule():
    volume = scan_with([((20, 60, 60), 10.0), ((20, 60, 82), 10.0)])
    mask, _ = outline(volume, candidate_at(volume, (20, 60, 60), 10.0), CROP, bright)
    assert volume_mm3(mask) == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.1)
    assert center_lps_mm(mask) == pytest.approx(tuple(volume.grid.to_patient((20, 60, 60))), abs=0.2)


def test_a_centre_just_beside_the_nodule_still_finds_it():
    volume = scan_with([((20, 60, 60), 8.0)])
    mask, notices = outline(volume, candidate_at(volume, (20, 60, 67), 8.0), CROP, bright)
    assert notices == ()
    assert center_lps_mm(mask) == pytest.approx(tuple(volume.grid.to_patient((20, 60, 60))), abs=0.2)


@pytest.mark.parametrize("see", [blind, bright], ids=["nothing seen", "only something far away seen"])
def test_without_an_outline_the_detectors_sphere_stands_in_and_it_is_said(see):
    volume = scan_with([((20, 60, 85), 8.0)])
    mask, (notice,) = outline(volume, candidate_at(volume, (20, 60, 60), 8.0), CROP, see)
    assert notice.code == "outline_from_detector"
    assert volume_mm3(mask) == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.15)
    assert center_lps_mm(mask) == pytest.approx(tuple(volume.grid.to_patient((20, 60, 60))), abs=0.1)


def test_a_sphere_smaller_than_a_voxel_is_one_voxel():
    volume = scan_with([], spacing=(5.0, 0.7, 0.7))
    mask, _ = outline(volume, candidate_at(volume, (20.4, 60, 60), 0.1), CROP, blind)
    assert mask.voxels.sum() == 1


def test_a_nodule_larger_than_its_section_is_reported_as_cut_off():
    volume = scan_with([((20, 60, 60), 60.0)])
    _, (notice,) = outline(volume, candidate_at(volume, (20, 60, 60), 30.0), CROP, bright)
    assert notice.code == "outline_cut_off"
    assert notice.values == {"center_lps_mm": pytest.approx(volume.grid.to_patient((20, 60, 60)), abs=0.06)}


def test_a_nodule_at_the_last_slice_ends_there():
    volume = scan_with([((0, 60, 60), 12.0)])
    mask, (notice,) = outline(volume, candidate_at(volume, (0.4, 60, 60), 12.0), CROP, bright)
    assert notice.code == "outline_cut_off"
    assert volume.grid.to_index(mask.grid.origin_lps_mm)[0] == pytest.approx(0.0)


@pytest.mark.parametrize("z", [0.0, 3.2, 19.5, 39.4])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_stack_is_the_scans_own_slices_on_the_grid_it_names(z, flipped):
    """Every voxel of the stack, looked up where its grid says it lies, has the scan's value there."""
    direction = np.eye(3)[:, ::-1] * (-1.0, 1.0, 1.0) if flipped else None
    volume = scan_with([], spacing=(2.0, 0.7, 0.7), direction=direction)
    shades = np.random.default_rng(0).integers(-900, 300, volume.hu.shape).astype(np.int16)
    volume = CtVolume(shades, volume.grid)
    stack, grid = sample_stack(volume, volume.grid.to_patient((z, 60, 60)), 7.0, CROP)
    index = volume.grid.to_index(grid.to_patient(np.moveaxis(np.indices(grid.shape_zyx), 0, -1)))
    np.testing.assert_allclose(index, np.rint(index), atol=1e-6)
    there = tuple(np.moveaxis(np.rint(index).astype(int), -1, 0))
    np.testing.assert_allclose(stack, (shades[there] + 1000) / 1400, atol=1e-6)
    assert grid.spacing_zyx_mm == pytest.approx((2.0, 0.7, 0.7))


def test_a_stack_reaches_as_far_as_asked_and_no_farther_than_the_scan():
    volume = scan_with([])
    stack, _ = sample_stack(volume, volume.grid.to_patient((20, 60, 60)), 7.0, CROP)
    assert len(stack) == 8  # half a slice rounds up: -3.5 .. 3.5 slices are slices -3 .. 4
    stack, grid = sample_stack(volume, volume.grid.to_patient((38, 60, 60)), 7.0, CROP)
    assert len(stack) == 5
    assert volume.grid.to_index(grid.to_patient((4, 32, 32))) == pytest.approx((39, 60, 60))


def test_a_stack_shows_what_crops_show():
    """One network reads both; the middle slice of a stack is the crop's middle slice to the bit."""
    volume = scan_with([((20, 60, 60), 9.0)], direction=TURNED)
    center = volume.grid.to_patient((20.3, 60.2, 59.9))
    stack, grid = sample_stack(volume, center, 6.0, CROP)
    middle = int(np.floor(grid.to_index(center)[0] + 0.5))
    assert np.array_equal(stack[middle], sample_crops(volume, center, CROP, slice_offsets_mm=(0.0,))[0, 0])
