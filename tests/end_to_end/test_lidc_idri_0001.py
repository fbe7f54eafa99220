"""The main job: a real chest CT goes through the real service, and its nodule comes back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from app.cli.client import predict
from app.cli.demo import Truth, compare


def annotations(folder: Path, series_uid: str) -> list[Truth]:
    """LUNA16's reference nodules of a series; world coordinates there are LPS mm."""
    with (folder / "luna16/annotations.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seriesuid"] == series_uid]
    return [
        Truth((float(row["coordX"]), float(row["coordY"]), float(row["coordZ"])), float(row["diameter_mm"]))
        for row in rows
    ]


@pytest.fixture(scope="module")
def answer(shared_data, shipped_service):
    return predict(shipped_service, [shared_data / "ct/LIDC-IDRI-0001.zip"])


def irrelevant(folder: Path, series_uid: str) -> list[Truth]:
    """What LUNA16 lists besides its reference: marks there count neither way; -1 stands for 10 mm."""
    with (folder / "luna16/annotations_excluded.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seriesuid"] == series_uid]
    return [
        Truth(
            (float(row["coordX"]), float(row["coordY"]), float(row["coordZ"])),
            float(row["diameter_mm"]) if float(row["diameter_mm"]) > 0 else 10.0,
        )
        for row in rows
    ]


def test_the_annotated_nodule_is_hit_above_every_false_mark(answer, shared_data):
    series = answer["series"]["series_instance_uid"]
    truths, others = annotations(shared_data, series), irrelevant(shared_data, series)
    marks = [tuple(n["center_lps_mm"]) for n in sorted(answer["nodules"], key=lambda n: -n["probability"])]
    assert len(truths) == 1
    assert compare(marks[:1], truths).hit == (True,)
    clear = [mark for mark in marks if not any(compare([mark], [other]).hit == (True,) for other in others)]
    assert compare(clear, truths).false_positives <= 4


def test_the_nodule_measures_what_four_readers_measured(answer, shared_data):
    (truth,) = annotations(shared_data, answer["series"]["series_instance_uid"])
    hits = [n for n in answer["nodules"] if compare([tuple(n["center_lps_mm"])], [truth]).hit == (True,)]
    assert max(n["diameter_mm"] for n in hits) == pytest.approx(truth.diameter_mm, rel=0.35)


def test_every_slice_named_is_one_of_the_series(answer):
    slices = [s for nodule in answer["nodules"] for s in nodule["slices"]]
    assert slices
    assert all(s["sop_instance_uid"] and 1 <= s["instance_number"] <= 133 for s in slices)


def test_the_answer_says_what_it_rests_on(answer):
    assert answer["series"]["shape_zyx"] == [133, 512, 512]
    assert answer["series"]["spacing_zyx_mm"] == pytest.approx([2.5, 0.703125, 0.703125])
    assert answer["model"]["name"] == "lungnodule"
    assert len(answer["model"]["sha256"]) == 64
    assert answer["execution_provider"].endswith("ExecutionProvider")
    assert "not for diagnosis" in answer["disclaimer"].lower()
