import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from app.imaging.acceptance import AcceptanceReport, Notice, SeriesSummary
from app.imaging.errors import LungNoduleError, NotChestCt, OptionError, UnsupportedFormat
from app.imaging.volume import CtVolume, Grid
from app.inference.pipeline import AnalysisOptions, analyse, analyse_volume
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec

STAGES = ["read", "lungs", "prepare", "detect", "characterise", "measure"]
ACCEPTED = AcceptanceReport("metaimage", 1, (), SeriesSummary(None, "CT", 100))


@pytest.fixture(scope="module")
def phantom() -> PhantomCt:
    nodules = [NoduleSpec(diameter_mm=diameter) for diameter in (9.0, 12.0, 15.0)]
    return phantom_ct(shape_zyx=(80, 140, 140), spacing_zyx_mm=(3.75, 2.5, 2.5), nodules=nodules, seed=3)


def found_by(findings, truth):
    """The nodule within the radius of the true one: LUNA16's rule."""
    near = [
        nodule
        for nodule in findings.nodules
        if np.linalg.norm(np.subtract(nodule.center_lps_mm, truth.center_lps_mm)) < truth.diameter_mm / 2
    ]
    assert len(near) == 1, f"{truth} was hit {len(near)} times"
    return near[0]


def test_the_nodules_of_a_phantom_are_found_and_measured(tiny_model, phantom):
    findings = analyse_volume(phantom.volume, ACCEPTED, tiny_model)
    for truth in phantom.nodules:
        nodule = found_by(findings, truth)
        assert nodule.diameter_mm == pytest.approx(truth.diameter_mm, abs=3.0)
        assert nodule.side == ("left" if truth.center_lps_mm[0] > 0 else "right")
        low, high = np.asarray(nodule.box_lps_mm)
        assert (low < nodule.center_lps_mm).all()
        assert (nodule.center_lps_mm < high).all()
        assert nodule.label == ("malignant" if nodule.malignancy_probability >= 0.5 else "benign")
        assert nodule.volume_interval_mm3[0] < nodule.volume_mm3 < nodule.volume_interval_mm3[1]
        assert nodule.long_axis_3d_mm >= nodule.long_axis_mm - 0.1
        assert nodule.min_hu <= nodule.mean_hu <= nodule.max_hu
        assert nodule.mass_mg == pytest.approx(nodule.volume_mm3 * (1 + nodule.mean_hu / 1000), rel=0.01)
        assert nodule.location.distance_to_hilum_mm > 20
        assert nodule.location.distance_to_pleura_mm >= 0
        # The tiny model has no texture and no spiculation: nothing is made up.
        assert (nodule.kind, nodule.is_spiculated, nodule.signs) == (None, None, ())


def test_nodules_are_numbered_by_falling_probability(tiny_model, phantom):
    nodules = analyse_volume(phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(operating_point="sensitive")).nodules
    assert [n.probability for n in nodules] == sorted((n.probability for n in nodules), reverse=True)
    assert [n.id for n in nodules] == [f"nodule-{i}" for i in range(1, len(nodules) + 1)]


def test_the_same_scan_gives_the_same_findings(tiny_model, phantom):
    """With other threads too; and in tiles, but for the last digits of a float32."""
    first = analyse_volume(phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(threads=1)).nodules
    again = analyse_volume(phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(threads=3)).nodules
    tiled = analyse_volume(phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(detector_max_voxels=400_000)).nodules
    assert [replace(n, mask=None) for n in again] == [replace(n, mask=None) for n in first]
    assert [n.center_lps_mm for n in tiled] == [pytest.approx(n.center_lps_mm, abs=1e-6) for n in first]


def test_a_turned_and_mirrored_file_gives_the_same_nodules(tiny_model, phantom):
    """The array is stored head first and right to left; the patient is where they were."""
    volume = phantom.volume
    mirrored = CtVolume(
        np.ascontiguousarray(volume.hu[::-1, :, ::-1]),
        Grid(volume.grid.shape_zyx, volume.grid.affine @ mirror(volume.grid.shape_zyx)),
    )
    straight = analyse_volume(volume, ACCEPTED, tiny_model)
    turned = analyse_volume(mirrored, ACCEPTED, tiny_model)
    for truth in phantom.nodules:
        one, other = found_by(straight, truth), found_by(turned, truth)
        assert other.center_lps_mm == pytest.approx(one.center_lps_mm, abs=1.0)
        depth = volume.grid.shape_zyx[0]
        z_range = {depth - 1 - box.index_z for box in other.slices}
        assert len(z_range & {box.index_z for box in one.slices}) >= len(one.slices) - 1


def mirror(shape) -> np.ndarray:
    matrix = np.diag([-1.0, 1.0, -1.0, 1.0])
    matrix[0, 3], matrix[2, 3] = shape[0] - 1, shape[2] - 1
    return matrix


def test_a_dicom_series_is_answered_with_its_own_names(tiny_model, phantom, tmp_path):
    """Each slice named is the one whose pixels hold the nodule: looked up in the files themselves."""
    write_dicom_series(phantom.volume, tmp_path)
    findings = analyse(tmp_path, tiny_model)
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, tmp_path.iterdir())}
    nodule = found_by(findings, phantom.nodules[1])
    middle = nodule.slices[len(nodule.slices) // 2]
    image = images[middle.sop_instance_uid]
    assert image.InstanceNumber == middle.instance_number
    column_min, row_min, column_max, row_max = middle.box_px
    inside = image.pixel_array[round((row_min + row_max) / 2), round((column_min + column_max) / 2)]
    assert inside * float(image.RescaleSlope) + float(image.RescaleIntercept) > -300
    assert findings.identity.series_instance_uid == image.SeriesInstanceUID
    assert list(findings.timings_s) == [*STAGES, "total"]
    assert findings.timings_s["total"] >= sum(findings.timings_s[stage] for stage in STAGES) > 0


def test_every_stage_reports_from_nought_to_one_in_order(tiny_model, phantom):
    told = []
    analyse_volume(phantom.volume, ACCEPTED, tiny_model, on_progress=told.append)
    assert list(dict.fromkeys(step.stage for step in told)) == STAGES[1:]
    for stage in STAGES[1:]:
        fractions = [step.fraction for step in told if step.stage == stage]
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)
        assert fractions == sorted(fractions)


def test_what_the_progress_raises_ends_the_analysis(tiny_model, phantom):
    class HungUp(LungNoduleError):
        pass

    def hang_up(step):
        if step.stage == "detect":
            raise HungUp("gone")

    with pytest.raises(HungUp):
        analyse_volume(phantom.volume, ACCEPTED, tiny_model, on_progress=hang_up)


def test_the_operating_point_is_the_models_default_or_the_one_named(tiny_model, phantom):
    default = analyse_volume(phantom.volume, ACCEPTED, tiny_model)
    nothing = analyse_volume(phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(operating_point="none"))
    assert (default.operating_point.name, default.operating_point.threshold) == ("balanced", 0.5)
    assert (nothing.operating_point.name, nothing.nodules) == ("none", ())


def test_an_unknown_operating_point_is_refused_before_the_scan_is_read(tiny_model, tmp_path):
    with pytest.raises(OptionError) as refused:
        analyse(tmp_path / "not-even-there.dcm", tiny_model, AnalysisOptions(operating_point="typo"))
    assert refused.value.code == "unknown_operating_point"
    assert refused.value.values == {"available": ["balanced", "none", "sensitive"]}
    assert "typo" not in refused.value.message


def test_findings_say_which_model_answered_and_where_it_ran(tiny_model, phantom):
    remark = Notice("device_fallback", "On the CPU.", {})
    findings = analyse_volume(phantom.volume, ACCEPTED, replace(tiny_model, notices=(remark,)))
    assert findings.model == tiny_model.identity
    assert findings.execution_provider == "CPUExecutionProvider"
    assert remark in findings.warnings
    assert findings.acceptance is ACCEPTED


@pytest.mark.parametrize("hu", [-1000, 0, 40, 3000, -32768])
def test_a_scan_of_one_value_is_no_chest(tiny_model, hu):
    volume = CtVolume(np.full((60, 64, 64), hu, np.int16), Grid.from_spacing((60, 64, 64), (5.0, 5.0, 5.0)))
    with pytest.raises(NotChestCt):
        analyse_volume(volume, ACCEPTED, tiny_model)


def test_what_cannot_be_read_is_a_scan_error(tiny_model, tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(UnsupportedFormat):
        analyse(tmp_path, tiny_model)


def test_the_pipeline_imports_no_http_and_no_training():
    code = (
        "import sys, app.inference.pipeline; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'monai', 'fastapi', 'training', 'onnx'}))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_trace_is_kept_where_it_is_asked_for(tiny_model, phantom):
    """What no operating point reports is no faint candidate, and none is reported twice."""
    plain = analyse_volume(phantom.volume, ACCEPTED, tiny_model)
    kept = analyse_volume(phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(keep_trace=True))
    assert plain.trace is None
    assert [nodule.center_lps_mm for nodule in kept.nodules] == [nodule.center_lps_mm for nodule in plain.nodules]
    assert kept.trace.faint_probability == 0.1  # of the point `sensitive`
    assert all(0.1 <= candidate.probability < 0.5 for candidate in kept.trace.faint)
    none = analyse_volume(
        phantom.volume, ACCEPTED, tiny_model, AnalysisOptions(operating_point="none", keep_trace=True)
    )
    # What was reported is faint where nothing is.
    assert {n.probability for n in kept.nodules} <= {c.probability for c in none.trace.faint}
