"""The phantom is what its truth says, and the same for the same seed on any grid."""

from __future__ import annotations

import numpy as np
import pytest

from app.imaging.lungs import segment_lungs
from app.imaging.volume import CtVolume, Grid
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.nodules import NoduleSpec

COARSE = {"shape_zyx": (48, 64, 80), "spacing_zyx_mm": (6.0, 6.0, 5.0)}
"""Too coarse to look at, fine enough to compare voxel by voxel in a fraction of a second."""
IDENTITY = np.eye(3)[:, ::-1]


@pytest.fixture(scope="module")
def plain() -> PhantomCt:
    return phantom_ct(**COARSE)


@pytest.fixture(scope="module")
def quiet() -> PhantomCt:
    return phantom_ct(**COARSE, noise_hu=0.0)


@pytest.fixture(scope="module")
def thorax() -> PhantomCt:
    """A whole chest with one nodule of each kind, without noise."""
    kinds = ("solid", "part-solid", "ground-glass")
    specs = [NoduleSpec(20.0, kind, "smooth", "free") for kind in kinds]
    return phantom_ct(shape_zyx=(120, 150, 190), spacing_zyx_mm=(2.5, 2.0, 2.0), nodules=specs, noise_hu=0.0, seed=5)


def at(volume: CtVolume, lps_mm: object) -> float:
    """Median HU of the 3x3x3 voxels around a point."""
    z, y, x = np.rint(volume.grid.to_index(lps_mm)).astype(int)
    return float(np.median(volume.hu[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]))


def rotation_z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_the_same_seed_gives_the_same_bytes(plain: PhantomCt) -> None:
    again = phantom_ct(**COARSE)

    assert again.volume.hu.tobytes() == plain.volume.hu.tobytes()
    assert again.nodules == plain.nodules


def test_another_seed_gives_another_chest(plain: PhantomCt) -> None:
    other = phantom_ct(**COARSE, seed=4)

    assert other.volume.hu.tobytes() != plain.volume.hu.tobytes()
    assert other.nodules[0].center_lps_mm != plain.nodules[0].center_lps_mm


def test_nodules_lie_where_the_truth_says_with_the_hu_of_their_kind(thorax: PhantomCt) -> None:
    solid, part_solid, ground_glass = thorax.nodules

    assert 20 <= at(thorax.volume, solid.center_lps_mm) <= 60
    assert -20 <= at(thorax.volume, part_solid.center_lps_mm) <= 60
    assert -670 <= at(thorax.volume, ground_glass.center_lps_mm) <= -430


def test_beside_a_nodule_there_is_lung(thorax: PhantomCt) -> None:
    for nodule in thorax.nodules:
        around = [np.add(nodule.center_lps_mm, step) for step in 14.0 * np.concatenate([np.eye(3), -np.eye(3)])]

        assert np.median([at(thorax.volume, place) for place in around]) < -800


def test_the_volume_and_centre_of_a_nodule_are_the_truth() -> None:
    spec = NoduleSpec(14.0, "solid", "lobulated")
    grid = {"shape_zyx": (24, 100, 180), "spacing_zyx_mm": (2.0, 1.5, 1.5), "noise_hu": 0.0, "seed": 2}
    with_it, without = (phantom_ct(**grid, nodules=nodules) for nodules in ([spec], []))

    added = with_it.volume.hu.astype(float) - without.volume.hu
    peak = np.median(added[added > 0.9 * added.max()])
    middle = np.average(np.indices(added.shape).reshape(3, -1).T, axis=0, weights=added.clip(0).ravel())

    (truth,) = with_it.nodules
    assert truth.volume_mm3 == pytest.approx(np.pi / 6.0 * 14.0**3)
    assert added.sum() / peak * with_it.volume.grid.voxel_volume_mm3 == pytest.approx(truth.volume_mm3, rel=0.12)
    assert np.allclose(with_it.volume.grid.to_patient(middle), truth.center_lps_mm, atol=1.5)


def test_tissues_have_their_hu(thorax: PhantomCt) -> None:
    hu, mask = thorax.volume.hu, segment_lungs(thorax.volume)
    inside = mask.widened_on(thorax.volume.grid, 0.0)

    assert hu[0, 0, 0] == -1000
    assert -920 < np.median(hu[inside]) < -840
    assert 30 < at(thorax.volume, (45.0, -35.0, -30.0)) < 60  # heart
    assert (
        -130
        < np.median(hu[:, hu.shape[1] // 2][(hu[:, hu.shape[1] // 2] > -200) & (hu[:, hu.shape[1] // 2] < 0)])
        < -60
    )
    assert (hu > 300).mean() > 0.004  # bone


def test_lungs_are_found_and_hold_the_nodules(thorax: PhantomCt) -> None:
    lungs = segment_lungs(thorax.volume)

    assert 1500 < lungs.volume_ml("left") < lungs.volume_ml("right") < 4500
    for nodule in thorax.nodules:
        side = "left" if nodule.center_lps_mm[0] > 0 else "right"
        assert lungs.side_at(nodule.center_lps_mm) == side


def test_the_heart_is_on_the_left_and_the_liver_on_the_right(thorax: PhantomCt) -> None:
    volume = thorax.volume

    assert at(volume, (70.0, -30.0, -30.0)) > 0 > at(volume, (-70.0, -30.0, -30.0))
    assert at(volume, (-70.0, -20.0, -75.0)) > 0 > at(volume, (75.0, 40.0, -75.0))


def test_noise_is_as_strong_as_asked_and_nothing_else_changes(quiet: PhantomCt) -> None:
    noisy = phantom_ct(**COARSE, noise_hu=40.0)
    difference = noisy.volume.hu.astype(float) - quiet.volume.hu
    tissue = (quiet.volume.hu > 0) & (quiet.volume.hu < 100)

    assert difference[tissue].std() == pytest.approx(40.0, rel=0.1)
    assert abs(difference[tissue].mean()) < 2.0
    assert noisy.nodules == quiet.nodules


def test_a_flipped_grid_shows_the_same_chest_flipped(quiet: PhantomCt) -> None:
    flipped = phantom_ct(**COARSE, noise_hu=0.0, direction_lps_zyx=IDENTITY * [-1.0, 1.0, -1.0])

    for before, after in zip(quiet.nodules, flipped.nodules, strict=True):
        assert np.allclose(after.center_lps_mm, before.center_lps_mm)
    difference = np.abs(flipped.volume.hu[::-1, :, ::-1].astype(int) - quiet.volume.hu)
    assert np.percentile(difference, 99.5) <= 2


def test_a_patient_turned_with_the_grid_gives_the_same_array(plain: PhantomCt) -> None:
    turn = rotation_z(15.0)
    # Turned about the middle of the grid, which lies elsewhere too.
    middle = np.array([30.0, -20.0, 10.0])
    origin = turn @ plain.volume.grid.origin_lps_mm + middle
    turned = phantom_ct(**COARSE, origin_lps_mm=origin, direction_lps_zyx=turn @ IDENTITY, patient_rotation=turn)

    assert np.abs(turned.volume.hu.astype(int) - plain.volume.hu).max() <= 1
    for before, after in zip(plain.nodules, turned.nodules, strict=True):
        assert np.allclose(after.center_lps_mm, turn @ before.center_lps_mm + middle, atol=1e-6)


def test_a_patient_turned_under_a_straight_grid_moves_the_nodules(quiet: PhantomCt) -> None:
    turn = rotation_z(10.0)
    turned = phantom_ct(**COARSE, noise_hu=0.0, patient_rotation=turn)

    for before, after in zip(quiet.nodules, turned.nodules, strict=True):
        assert np.allclose(after.center_lps_mm, turn @ before.center_lps_mm, atol=1e-6)
    index = np.rint(turned.volume.grid.to_index(turned.nodules[0].center_lps_mm)).astype(int)
    assert turned.volume.hu[tuple(index)] > -300


def test_the_chest_moves_with_the_origin(plain: PhantomCt) -> None:
    there = phantom_ct(**COARSE, origin_lps_mm=np.add(plain.volume.grid.origin_lps_mm, (100, -50, 25)))

    assert plain.volume.hu.tobytes() == there.volume.hu.tobytes()
    assert np.allclose(there.nodules[0].center_lps_mm, np.add(plain.nodules[0].center_lps_mm, (100.0, -50.0, 25.0)))


def test_another_spacing_is_another_scan_of_the_same_patient(plain: PhantomCt) -> None:
    fine = phantom_ct(shape_zyx=(96, 96, 100), spacing_zyx_mm=(3.0, 4.0, 4.0))

    for a, b in zip(plain.nodules, fine.nodules, strict=True):
        assert np.allclose(a.center_lps_mm, b.center_lps_mm, atol=1e-6)


def test_a_nodule_lies_where_it_was_asked_for() -> None:
    spec = NoduleSpec(20.0, center_lps_mm=(-80.0, 10.0, 20.0))

    phantom = phantom_ct(**COARSE, nodules=[spec], noise_hu=0.0)

    assert phantom.nodules[0].center_lps_mm == pytest.approx((-80.0, 10.0, 20.0))
    assert at(phantom.volume, (-80.0, 10.0, 20.0)) > -300


@pytest.mark.parametrize("count", [0, 1, 6])
def test_as_many_nodules_as_asked_for(count: int) -> None:
    phantom = phantom_ct(**COARSE, nodule_count=count)

    assert len(phantom.nodules) == count
    assert [n.kind for n in phantom.nodules[:1]] == ["solid"] * min(1, count)


def test_a_grid_without_room_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="enlarge the grid"):
        phantom_ct(shape_zyx=(8, 8, 8), spacing_zyx_mm=1.0)


@pytest.mark.parametrize("name", ["direction_lps_zyx", "patient_rotation"])
def test_skewed_axes_are_refused(name: str) -> None:
    skewed = np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    with pytest.raises(ValueError, match=name):
        phantom_ct(**COARSE, **{name: skewed})


def test_the_grid_is_the_one_asked_for() -> None:
    volume = phantom_ct(shape_zyx=(20, 30, 40), spacing_zyx_mm=(6.0, 7.0, 8.0), nodule_count=0).volume

    expected = Grid.from_spacing((20, 30, 40), (6.0, 7.0, 8.0), (-156.0, -101.5, -57.0))
    assert volume.grid.shape_zyx == (20, 30, 40)
    assert np.allclose(volume.grid.affine, expected.affine)
