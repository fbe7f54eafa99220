"""Lungs made ready for insertion."""

import numpy as np
import pytest

from app.imaging.lungs import segment_lungs
from app.imaging.preprocessing import PreprocessingSpec, preprocess
from app.phantom.chest import phantom_ct
from training.lidc import LidcError, database_path
from training.lung_background import (
    FINDING_MARGIN_MM,
    Finding,
    background_from_volume,
    lidc_series_uid,
    luna16_findings,
)


@pytest.fixture(scope="module")
def made():
    """A phantom, its lungs, and the background with its one nodule as the finding to keep away from."""
    phantom = phantom_ct(nodule_count=1, shape_zyx=(18, 72, 96), spacing_zyx_mm=(5.0, 3.5, 3.5))
    nodule = phantom.nodules[0]
    finding = Finding(nodule.center_lps_mm, nodule.diameter_mm)
    lungs = segment_lungs(phantom.volume)
    return phantom, lungs, finding, background_from_volume(phantom.volume, lungs, "1.2.3", [finding])


def test_hu_are_those_of_preprocess(made):
    phantom, lungs, _, background = made
    spec = PreprocessingSpec()
    prepared = preprocess(phantom.volume, lungs, spec)
    low, high = spec.window_hu
    assert np.abs(prepared.values * (high - low) + low - background.hu).max() <= 0.51
    assert np.array_equal(background.grid.affine, prepared.grid.affine)
    assert background.slice_spacing_mm == 5.0


def test_own_findings_are_avoided_with_their_margin(made):
    _, _, finding, background = made
    center = background.grid.to_index(finding.center_lps_mm)
    voxels = np.stack(np.nonzero(background.avoid))
    away = np.linalg.norm(voxels - center[:, None], axis=0)
    reach = finding.diameter_mm / 2 + FINDING_MARGIN_MM
    assert away.max() == pytest.approx(reach, abs=1.0)
    assert voxels.shape[1] == pytest.approx(4 / 3 * np.pi * reach**3, rel=0.05)


def test_distances_mean_what_they_say(made):
    background = made[3]
    in_lungs = background.in_lungs
    assert (background.depth_mm[~in_lungs] == 0).all()
    assert background.depth_mm[in_lungs].min() >= 1
    vessels = background.hu[in_lungs & (background.vessel_mm == 0)]
    assert np.median(vessels) > -500
    assert np.median(background.hu[in_lungs & (background.vessel_mm > 3)]) < -700
    assert 10 < background.noise.std_hu < 40


def test_wall_direction_points_out_of_the_lung(made):
    background, rng = made[3], np.random.default_rng(0)
    shallow = [v for v in background.draw_lung_voxels(rng, 4000) if 4 <= background.depth_mm[tuple(v)] <= 7]
    steps = [
        float(background.depth_mm[tuple(v)])
        - float(background.depth_mm[tuple(np.round(v + 3 * background.wall_direction(v)).astype(int))])
        for v in shallow[:200]
    ]
    assert np.median(steps) > 2


def test_voxels_of_a_box_lie_in_it_and_in_the_lung(made):
    background = made[3]
    low, high = np.asarray(background.hu.shape) // 4, np.asarray(background.hu.shape) // 2
    voxels = background.draw_lung_voxels(np.random.default_rng(0), 500, (low, high))
    assert len(voxels) > 20
    assert ((voxels >= low) & (voxels < high)).all()
    assert background.in_lungs[tuple(voxels.T)].all()


def test_only_1_mm(made):
    phantom, lungs, _, _ = made
    with pytest.raises(ValueError, match="1 mm"):
        background_from_volume(phantom.volume, lungs, "1.2.3", [], PreprocessingSpec(spacing_mm=1.5))


def test_every_row_of_luna16_is_a_finding(tmp_path):
    (tmp_path / "luna16").mkdir()
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    (tmp_path / "luna16" / "annotations.csv").write_text(f"{header}1.2,1,2,3,20\n1.9,0,0,0,8\n")
    (tmp_path / "luna16" / "annotations_excluded.csv").write_text(f"{header}1.2,4,5,6,-1\n")
    assert luna16_findings(tmp_path, "1.2") == [Finding((1.0, 2.0, 3.0), 30.0), Finding((4.0, 5.0, 6.0), 10.0)]


def test_the_big_lesions_of_the_real_scans_are_among_the_findings(shared_data):
    """0001's solid and 0002's ground-glass lesion, 33 mm each by their longest axes."""
    try:
        database_path()
    except LidcError as error:
        pytest.skip(str(error))
    for patient, center in (("LIDC-IDRI-0001", (56.4, 86.1, -115.9)), ("LIDC-IDRI-0002", (60.0, 71.0, -104.0))):
        findings = luna16_findings(shared_data, lidc_series_uid(patient))
        covering = [f for f in findings if np.linalg.norm(np.subtract(f.center_lps_mm, center)) < 4]
        assert max(f.diameter_mm for f in covering) > 33


def test_an_unknown_patient_is_an_error_without_the_name():
    try:
        database_path()
    except LidcError as error:
        pytest.skip(str(error))
    with pytest.raises(ValueError, match="0 series") as caught:
        lidc_series_uid("LIDC-IDRI-9999")
    assert "9999" not in str(caught.value)
