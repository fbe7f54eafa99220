"""Where a nodule lies: in boxes of lung whose edges are known, and in the phantom."""

import numpy as np
import pytest

from app.imaging.lungs import LEFT, RIGHT, LungMask, segment_lungs
from app.imaging.volume import Grid
from app.inference.findings import NoduleMask
from app.inference.location import JUXTAPLEURAL_MM, LEAST_LOBE_CONFIDENCE, estimate_lobe, locate, lung_surface
from app.phantom.anatomy import HILUM_MM
from app.phantom.chest import CENTER_MM, phantom_ct

ALIGNED = np.eye(3)[:, ::-1]


def turned() -> np.ndarray:
    c, s = np.cos(0.3), np.sin(0.3)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ ALIGNED


@pytest.fixture(params=[ALIGNED, turned()], ids=["aligned", "turned"])
def lungs(request) -> LungMask:
    """Two boxes, 60 mm of mediastinum between them: right x 20..100 mm, left x 160..240, y 20..160, z 20..260."""
    labels = np.zeros((70, 45, 65), np.uint8)
    labels[5:65, 5:40, 5:25], labels[5:65, 5:40, 40:60] = RIGHT, LEFT
    return LungMask(labels, Grid.from_spacing(labels.shape, (4.0, 4.0, 4.0), (7.0, -9.0, 2.0), request.param))


def ball(lungs: LungMask, center_zyx_mm: tuple[float, float, float], radius_mm: float):
    """Mask and centre of a ball at a place along the axes of the mask, on millimetre voxels."""
    size = int(2 * radius_mm) + 5
    center = lungs.grid.to_patient(np.array(center_zyx_mm) / 4.0)
    half = lungs.grid.direction_lps_zyx @ np.full(3, (size - 1) / 2)
    grid = Grid.from_spacing((size,) * 3, (1.0,) * 3, center - half, lungs.grid.direction_lps_zyx)
    steps = np.moveaxis(np.indices(grid.shape_zyx), 0, -1) - (size - 1) / 2
    return NoduleMask(np.linalg.norm(steps, axis=-1) <= radius_mm, grid), tuple(center)


def located(lungs: LungMask, center_zyx_mm, radius_mm=5.0, **options):
    mask, center = ball(lungs, center_zyx_mm, radius_mm)
    return locate(mask, center, lungs.side_at(center), lung_surface(lungs), **options)


# The outer face of the right lung's first voxel lies at 18 mm along x.
@pytest.mark.parametrize(("gap_mm", "touches"), [(0.0, True), (1.0, True), (4.0, False), (15.0, False)])
def test_distance_to_the_pleura_is_that_between_the_surfaces(lungs, gap_mm, touches):
    place = located(lungs, (140.0, 88.0, 18.0 + 5.5 + gap_mm))
    assert place.distance_to_pleura_mm == pytest.approx(gap_mm, abs=0.6)
    assert place.is_juxtapleural == touches == (place.distance_to_pleura_mm <= JUXTAPLEURAL_MM)


def test_the_mediastinum_is_no_pleura(lungs):
    """5 mm from the inner face, 72 mm from the outer, 62 mm from the front."""
    place = located(lungs, (140.0, 90.0, 98.0 - 5.5 - 5.0))
    assert place.distance_to_pleura_mm > 50
    assert place.is_juxtapleural is False


def test_the_dome_of_the_diaphragm_is_pleura_though_it_stands_between_the_lungs(lungs):
    """The floor of the right lung is raised to 58 mm, but for a recess at the chest wall."""
    labels = lungs.labels.copy()
    labels[5:15, 5:40, 10:25] = 0
    raised = LungMask(labels, lungs.grid)
    assert located(raised, (58.0 + 5.5 + 3.0, 88.0, 68.0)).distance_to_pleura_mm == pytest.approx(3.0, abs=0.8)


def test_outside_the_lungs_there_is_no_place(lungs):
    assert located(lungs, (140.0, 90.0, 130.0)) is None


def test_a_nodule_farther_out_is_farther_from_the_hilum_of_its_own_side(lungs):
    near, far = (located(lungs, (150.0, 90.0, x)).distance_to_hilum_mm for x in (90.0, 40.0))
    other = located(lungs, (150.0, 90.0, 166.0)).distance_to_hilum_mm
    assert near < far
    assert near == pytest.approx(other, abs=3.0)


@pytest.mark.parametrize(
    ("height", "depth", "side", "lobe"),
    [
        (0.9, 0.5, "right", "upper"),
        (0.9, 0.5, "left", "upper"),
        (0.25, 0.1, "right", "middle"),
        (0.3, 0.05, "left", "upper"),  # the lingula
        (0.1, 0.9, "right", "lower"),
        (0.5, 0.95, "left", "lower"),  # the lower lobe reaches far up behind
    ],
)
def test_lobes_where_anatomy_leaves_no_doubt(height, depth, side, lobe):
    found, confidence = estimate_lobe(height, depth, side)
    assert found == lobe
    assert LEAST_LOBE_CONFIDENCE <= confidence <= 1


@pytest.mark.parametrize(("height", "depth", "side"), [(0.4, 0.5, "left"), (0.46, 0.1, "right"), (0.72, 1.0, "left")])
def test_near_a_fissure_no_lobe_is_named(height, depth, side):
    assert estimate_lobe(height, depth, side) == (None, None)


def test_where_the_scan_cuts_the_lungs_no_lobe_is_named(lungs):
    assert located(lungs, (250.0, 60.0, 60.0)).lobe == "upper"
    assert located(lungs, (250.0, 60.0, 60.0), whole_lungs=False).lobe is None


def test_hila_and_pleura_of_the_phantom():
    """Its hila are known; the estimate must come within 20 mm of them."""
    chest = phantom_ct(shape_zyx=(64, 110, 110), spacing_zyx_mm=(4.5, 3.3, 3.3), nodules=[])
    surface = lung_surface(segment_lungs(chest.volume))
    for side, sign in (("right", -1.0), ("left", 1.0)):
        truth = np.array(HILUM_MM[sign]) - CENTER_MM
        assert np.linalg.norm(np.subtract(surface.hila_lps_mm[side], truth)) < 20
