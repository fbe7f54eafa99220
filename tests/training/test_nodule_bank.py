"""The bank: geometry of real nodules, their split by patient, and the calibration of their grey values."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from training.hu_calibration import PATCH_HU_PER_GREY, PATCH_LOW_HU, calibrate, match_neighbour
from training.nodule_bank import EVALUATION_PATIENTS, NoduleBank, load_nodule_bank, read_bank, write_bank
from training.nodule_blocks import BLOCK_SPACING_MM, nodule_from_stack, nodule_kind

LUNG_HU = -860.0


def chest_slices(rng, *, slices=5, size=72, wall_columns=14):
    """HU of axial slices (noisy lung, wall at the right, some vessels, a ball in the middle) and the ball's outline."""
    z, y, x = np.meshgrid(np.arange(slices) - slices // 2, np.arange(size), np.arange(size), indexing="ij")
    away = np.sqrt((z * 2.0) ** 2 + (y - size / 2) ** 2 + (x - size / 2) ** 2)
    outline = away < 4.5
    hu = np.where(outline, 25.0, LUNG_HU)
    hu[:, :, size - wall_columns :] = 50.0
    for row, column in rng.integers(4, size - wall_columns - 4, (8, 2)):
        if abs(row - size // 2) > 9:
            hu[:, row : row + 2, column : column + 2] = 20.0
    return ndimage.gaussian_filter(hu, (0, 0.6, 0.6)) + rng.normal(0, 15.0, hu.shape), outline


def stretched(hu, rng):
    """Grey values as the published slices have them: from a minimum and a maximum of their own, slice by slice."""
    low = rng.uniform(-1030.0, -960.0, len(hu))[:, None, None]
    high = rng.uniform(500.0, 1500.0, len(hu))[:, None, None]
    return np.clip(np.round((hu - low) / (high - low) * 255), 0, 255).astype(np.uint8)


def write_data(folder, patients, rng):
    """The three files the bank is made from, one nodule for each patient; every second has a patch of known HU."""
    images, counts, owner, patches, annotations = [], [], [], [], ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    truth = []
    for number, patient in enumerate(patients):
        hu, outline = chest_slices(rng)
        truth.append(hu)
        images.append(stretched(hu, rng))
        counts.append(outline.astype(np.uint8) * 4)
        owner += [number] * len(hu)
        annotations.append(f"1.2.{patient[-4:]},0,0,0,8.0")
        patches.append(np.clip(np.round((hu[2, 4:68, 4:68] - PATCH_LOW_HU) / PATCH_HU_PER_GREY), 0, 255))
    series = np.asarray([f"1.2.{p[-4:]}" for p in patients])
    names = ["NumAnnotations", "Diameter", "Malignancy", "Texture", "Spiculation", "Calcification", "Subtlety"]
    np.savez(
        folder / "lidc_nodule_slices.npz",
        images=np.concatenate(images),
        reader_count=np.concatenate(counts),
        nodule=np.asarray(owner, np.int32),
        patient_id=np.asarray(patients),
        series_uid=series,
        pixel_spacing_mm=np.ones(len(patients), np.float32),
        slice_thickness_mm=np.full(len(patients), 2.0, np.float32),
        rating_names=np.asarray(names),
        ratings=np.tile(np.asarray([4, 9, 3, 5, 1, 6, 5], np.float32), (len(patients), 1)),
    )
    np.savez(
        folder / "luna16_axial_patches.npz",
        patches=np.asarray(patches[::2]).astype(np.uint8),
        series=np.arange(len(patches[::2]), dtype=np.int32),
        series_uid=series[::2],
        center_xyz_mm=np.zeros((len(patches[::2]), 3)),
    )
    (folder / "luna16").mkdir()
    (folder / "luna16" / "annotations.csv").write_text("\n".join(annotations))
    return truth


def test_calibration_recovers_hu_of_every_slice_of_a_nodule_with_a_patch(tmp_path):
    rng = np.random.default_rng(0)
    truth = write_data(tmp_path, ["LIDC-IDRI-0900", "LIDC-IDRI-0901"], rng)
    calibration = calibrate(tmp_path)
    with np.load(tmp_path / "lidc_nodule_slices.npz") as stored:
        images = stored["images"]
    assert calibration.exact.tolist() == [False, False, True, False, False] + [False] * 5
    found = calibration.to_hu(images, slice(0, 5))
    inside = truth[0] < 400
    assert np.abs(found - truth[0])[2][inside[2]].max() < 12
    for row in found[[0, 1, 3, 4]], truth[0][[0, 1, 3, 4]]:
        assert np.median(row[row < -700]) == pytest.approx(LUNG_HU, abs=12)
        assert np.median(row[row > -100]) == pytest.approx(46, abs=15)
    assert np.isnan(calibration.low_hu[5:]).all()


def test_a_neighbour_with_other_content_still_gives_the_line():
    rng = np.random.default_rng(1)
    hu, _ = chest_slices(rng, slices=2)
    hu[1, 10:25, 10:25] = 40.0
    low, high = -1010.0, 890.0
    grey = np.round((hu[1] - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    found = match_neighbour(grey, hu[0].astype(np.float32))
    assert found == pytest.approx((low, high), abs=45)


def test_block_keeps_size_centre_and_values():
    hu, outline = chest_slices(np.random.default_rng(2), slices=9, wall_columns=1)
    nodule = nodule_from_stack(hu.astype(np.float32), outline, (2.0, 1.0))
    volume_mm3 = outline.sum() * 2.0
    assert nodule.diameter_mm == pytest.approx((6 * volume_mm3 / np.pi) ** (1 / 3), rel=0.08)
    assert nodule.lung_hu == pytest.approx(LUNG_HU, abs=10)
    inside = nodule.distance_mm < 0
    assert np.allclose(ndimage.center_of_mass(inside), (np.asarray(inside.shape) - 1) / 2, atol=0.7)
    assert np.median(nodule.hu[nodule.distance_mm < -1.5]) == pytest.approx(25, abs=20)
    assert nodule.wall_zyx is None


def test_caps_end_half_a_slice_beyond_the_last():
    outline = np.zeros((1, 40, 40), bool)
    outline[0, 14:27, 14:27] = True
    hu = np.where(outline, 30.0, LUNG_HU).astype(np.float32)
    nodule = nodule_from_stack(hu, outline, (3.0, 1.0))
    thickness = (nodule.distance_mm[:, nodule.hu.shape[1] // 2, nodule.hu.shape[2] // 2] < 0).sum() * BLOCK_SPACING_MM
    assert thickness == pytest.approx(3.0, abs=1.7)


def test_wall_is_taken_out_and_remembered():
    hu, outline = chest_slices(np.random.default_rng(3), slices=5, wall_columns=32)
    nodule = nodule_from_stack(hu.astype(np.float32), outline, (2.0, 1.0))
    assert nodule.wall_zyx is not None
    assert nodule.wall_zyx[2] > 0.9
    assert nodule.wall_distance_mm == pytest.approx(4.5, abs=1.5)
    outside = nodule.distance_mm.astype(float) > 2.5
    assert np.mean(nodule.hu[outside] > -400) < 0.02


@pytest.mark.parametrize("shift", [-36, 32])
def test_a_nodule_that_runs_out_of_the_slices_is_left_out(shift):
    hu, outline = chest_slices(np.random.default_rng(4))
    assert nodule_from_stack(hu.astype(np.float32), np.roll(outline, shift, axis=1), (2.0, 1.0)) is None


def test_an_empty_outline_is_left_out():
    hu, outline = chest_slices(np.random.default_rng(4))
    assert nodule_from_stack(hu.astype(np.float32), outline & False, (2.0, 1.0)) is None


def test_bank_is_split_by_patient_and_never_holds_the_evaluation_scans(tmp_path):
    held_out = min(EVALUATION_PATIENTS)
    patients = ["LIDC-IDRI-0900", "LIDC-IDRI-0901", held_out, "LIDC-IDRI-0903", "LIDC-IDRI-0904"]
    write_data(tmp_path, patients, np.random.default_rng(5))
    cache = tmp_path / "cache" / "bank.npz"
    bank = load_nodule_bank(tmp_path, cache=cache, exclude={"LIDC-IDRI-0904"})
    assert bank.patients == ("LIDC-IDRI-0900", "LIDC-IDRI-0901", "LIDC-IDRI-0903")
    assert [n.estimated_hu for n in bank.nodules] == [False, True, True]
    training, validation = bank.of_patients(["LIDC-IDRI-0900"]), bank.of_patients(["LIDC-IDRI-0901", held_out])
    assert training.patients == ("LIDC-IDRI-0900",)
    assert validation.patients == ("LIDC-IDRI-0901",)
    assert load_nodule_bank(tmp_path / "nowhere", cache=cache, exclude=()).patients[-1] == "LIDC-IDRI-0904"


def test_a_bank_comes_back_from_its_file_as_it_was(tmp_path):
    nodules = []
    for seed, wall in ((0, 1), (1, 32)):
        hu, outline = chest_slices(np.random.default_rng(seed), wall_columns=wall)
        nodules.append(nodule_from_stack(hu.astype(np.float32), outline, (2.0, 1.0)))
    write_bank(NoduleBank(tuple(nodules)), tmp_path / "bank.npz")
    back = read_bank(tmp_path / "bank.npz")
    for before, after in zip(nodules, back.nodules, strict=True):
        assert np.array_equal(before.hu, after.hu)
        assert np.array_equal(before.distance_mm, after.distance_mm)
        for name in vars(before).keys() - {"hu", "distance_mm", "malignancy", "spiculation"}:
            assert getattr(after, name) == getattr(before, name)


def test_a_bank_file_of_another_format_is_refused_and_made_anew(tmp_path):
    write_data(tmp_path, ["LIDC-IDRI-0900", "LIDC-IDRI-0901"], np.random.default_rng(6))
    cache = tmp_path / "bank.npz"
    np.savez(cache, format=np.asarray(1))
    with pytest.raises(ValueError, match="format 1"):
        read_bank(cache)
    assert len(load_nodule_bank(tmp_path, cache=cache).nodules) == 2
    assert len(read_bank(cache).nodules) == 2


def test_pick_follows_size_and_wall(tmp_path):
    nodules = []
    for seed, wall in ((0, 1), (1, 32)):
        hu, outline = chest_slices(np.random.default_rng(seed), wall_columns=wall)
        nodules.append(nodule_from_stack(hu.astype(np.float32), outline, (2.0, 1.0)))
    bank, rng = NoduleBank(tuple(nodules)), np.random.default_rng(0)
    assert bank.pick(8.0, rng, at_wall=True).wall_zyx is not None
    assert bank.pick(8.0, rng, at_wall=False).wall_zyx is None
    assert bank.pick(200.0, rng, at_wall=True).diameter_mm > 0
    with pytest.raises(ValueError, match="none of kind ground-glass"):
        bank.pick(8.0, rng, kind="ground-glass")


def test_reference_standard_is_luna16_s_3_mm_by_3_readers():
    made = nodule_from_stack(*chest_slices(np.random.default_rng(0)), (2.0, 1.0))
    nodules = [
        dataclasses.replace(made, readers=readers, diameter_mm=diameter)
        for readers, diameter in ((4, 8.0), (3, 3.0), (2, 8.0), (0, 8.0), (4, 2.99))
    ]
    kept = NoduleBank(tuple(nodules)).reference_standard().nodules
    assert [(nodule.readers, nodule.diameter_mm) for nodule in kept] == [(4, 8.0), (3, 3.0)]


def test_kinds_by_rating():
    assert [nodule_kind(t, 6) for t in (1, 2.4, 2.5, 4, 4.25, 5)] == [
        "ground-glass",
        "ground-glass",
        "part-solid",
        "part-solid",
        "solid",
        "solid",
    ]
    assert nodule_kind(5, 3) == "calcified"


@pytest.fixture
def few_real_nodules(shared_data, tmp_path):
    """The first 150 real nodules with the patches of their series, in files of the same layout."""
    with np.load(shared_data / "lidc_nodule_slices.npz") as stored:
        slices = dict(stored)
    keep = slices["nodule"] < 150
    by_slice = {k: slices[k][keep] for k in ("images", "reader_count", "nodule")}
    by_nodule = {k: slices[k][:150] for k in ("patient_id", "series_uid", "pixel_spacing_mm", "slice_thickness_mm")}
    ratings = {"ratings": slices["ratings"][:150], "rating_names": slices["rating_names"]}
    np.savez(tmp_path / "lidc_nodule_slices.npz", **by_slice, **by_nodule, **ratings)
    with np.load(shared_data / "luna16_axial_patches.npz") as stored:
        mine = np.isin(stored["series_uid"][stored["series"]], by_nodule["series_uid"])
        patches = {k: stored[k][mine] for k in ("patches", "series", "center_xyz_mm")}
        np.savez(tmp_path / "luna16_axial_patches.npz", series_uid=stored["series_uid"], **patches)
    (tmp_path / "luna16").mkdir()
    (tmp_path / "luna16" / "annotations.csv").write_text((shared_data / "luna16" / "annotations.csv").read_text())
    return tmp_path


def test_carried_over_hu_agree_with_the_slice_s_own_patch(few_real_nodules):
    """The error that the docs state, on pairs of neighbouring slices that both have a patch."""
    calibration = calibrate(few_real_nodules)
    with np.load(few_real_nodules / "lidc_nodule_slices.npz") as stored:
        images, owner = stored["images"], stored["nodule"]
    lung, soft = [], []
    exact = np.flatnonzero(calibration.exact)
    for i, j in pairwise(exact):
        if j == i + 1 and owner[i] == owner[j]:
            known = calibration.to_hu(images, np.asarray([i, j]))
            low, high = match_neighbour(images[j], known[0])
            error = low + images[j] * (high - low) / 255 - known[1]
            lung.append(abs(np.median(error[known[1] < -700])))
            soft.append(abs(np.median(error[(known[1] > -50) & (known[1] < 150)])))
    assert len(exact) > 40
    assert len(lung) >= 3
    assert np.median(lung) < 10
    assert np.median(soft) < 25
