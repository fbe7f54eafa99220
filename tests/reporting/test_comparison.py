"""What is said of two scans: on an alignment that is known, and once on phantoms from end to end."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from app.api.schemas import AnalysisResult, result_from_findings
from app.imaging.alignment import Alignment, AlignmentQuality, Chest, Mapping
from app.imaging.errors import PriorMismatch
from app.imaging.lungs import LungMask
from app.imaging.volume import CtVolume, DicomIdentity, Grid
from app.inference.findings import Candidate
from app.reporting.comparison import compare, compare_aligned, with_comparison
from tests.compared_findings import both_findings, findings_of, nodule_of
from tests.phantom_pairs import phantom_grid, phantom_pair

WIDE = Grid.from_spacing((50, 50, 50), (4.0, 4.0, 4.0), (-100.0, -100.0, -100.0))
SHIFT = np.array((5.0, -3.0, 12.0))
GOOD = AlignmentQuality(0.97, 1.0, 200, 0.95, 0.8, 2.0)
BAD = replace(GOOD, agreement=0.2)


def shifted(quality: AlignmentQuality = GOOD) -> Alignment:
    """A point of the current scan lies by `SHIFT` farther in the prior one; landmarks are off by 1 mm."""
    affine = np.eye(4)
    affine[:3, 3] = SHIFT
    mapping = Mapping(affine, np.zeros((*WIDE.shape_zyx, 3), np.float32), WIDE)
    return Alignment(mapping, quality, np.zeros((1, 3)), np.ones(1))


def scan(*balls, grid=WIDE, faint=(), **changes):
    """Balls as (center, diameter), numbered from 1."""
    volume = CtVolume(np.zeros(grid.shape_zyx, np.int16), grid)
    chest = Chest(volume.hu, grid, LungMask(np.ones(grid.shape_zyx, np.uint8), grid))
    nodules = [nodule_of(number, ball) for number, ball in enumerate(balls, start=1)]
    return findings_of(volume, chest, nodules, faint=faint, **changes)


def at(x, y=0.0, z=0.0):
    return np.array((x, y, z), dtype=float)


def test_the_same_nodule_is_matched_and_its_growth_told():
    comparison = compare_aligned(scan((at(0), 10.0)), scan((at(1) + SHIFT, 8.0)), shifted(), 90)
    (pair,) = comparison.pairs
    assert (pair.current_id, pair.prior_id, pair.distance_mm) == ("nodule-1", "nodule-1", pytest.approx(1.0))
    assert (pair.growth.by_volume, pair.growth.by_diameter) == ("grown", "growing")
    assert pair.growth.doubling_time_days == pytest.approx(90 * np.log(2) / np.log(1000 / 512))
    assert (comparison.only_current, comparison.only_prior) == ((), ())
    (status,) = comparison.statuses
    assert (status.status, status.diameter_change_mm, status.prior_diameter_mm) == ("growing", 2.0, pytest.approx(8.0))
    assert status.diameter_change_mm_per_year == pytest.approx(2.0 * 365.25 / 90)
    assert comparison.missing == ("volume_interval",)


def test_new_and_resolved():
    current, prior = scan((at(0), 8.0), (at(40), 6.0)), scan((at(0) + SHIFT, 8.0), (at(-40) + SHIFT, 6.0))
    comparison = compare_aligned(current, prior, shifted(), 365)
    (new,), (gone,) = comparison.only_current, comparison.only_prior
    assert (new.nodule_id, new.status, new.other_center_lps_mm) == ("nodule-2", "new", pytest.approx(at(40) + SHIFT))
    assert (gone.nodule_id, gone.status, gone.other_center_lps_mm) == ("nodule-2", "resolved", pytest.approx(at(-40)))
    assert [status.status for status in comparison.statuses] == ["stable", "new"]


@pytest.mark.parametrize(("x", "status"), [(80.0, "new"), (93.0, "not_covered"), (140.0, "not_covered")])
def test_what_the_prior_does_not_cover_is_not_new(x, status):
    """Its last voxel ends at 98 mm, and the current scan lies 5 mm to the right of it."""
    comparison = compare_aligned(scan((at(x), 8.0)), scan(), shifted(), 90)
    assert [one.status for one in comparison.only_current] == [status]
    expected = "new" if status == "new" else "unknown"
    assert [(s.status, s.missing) for s in comparison.statuses] == [
        (expected, () if status == "new" else ("prior_measurement",))
    ]


def test_what_the_current_scan_does_not_cover_is_not_resolved():
    comparison = compare_aligned(scan(), scan((at(-97), 8.0)), shifted(), 90)
    assert [one.status for one in comparison.only_prior] == ["not_covered"]


def test_what_the_other_scan_shows_less_surely_is_neither_new_nor_resolved():
    here = Candidate(tuple(at(40) + SHIFT + 2.0), 5.0, 0.3)
    elsewhere = Candidate(tuple(at(-40) + SHIFT + 2.0), 5.0, 0.3)
    seen = compare_aligned(scan((at(40), 9.0)), scan(faint=[elsewhere, here]), shifted(), 90)
    unseen = compare_aligned(scan((at(40), 9.0)), scan(faint=[elsewhere]), shifted(), 90)
    assert [(one.status, one.faint_probability) for one in seen.only_current] == [("below_threshold", 0.3)]
    assert [(one.status, one.faint_probability) for one in unseen.only_current] == [("new", None)]
    faint = Candidate(tuple(at(40)), 5.0, 0.2)
    gone = compare_aligned(scan(faint=[faint]), scan((at(40) + SHIFT, 9.0)), shifted(), 90)
    assert [(one.status, one.faint_probability) for one in gone.only_prior] == [("below_threshold", 0.2)]


def test_a_failed_registration_is_said_and_not_used():
    comparison = compare_aligned(scan((at(0), 8.0)), scan((at(0) + SHIFT, 8.0)), shifted(BAD), 90)
    assert comparison.failure.values == {"figure": "agreement", "found": 0.2, "needed": 0.5}
    assert comparison.pairs == ()
    assert [one.status for one in (*comparison.only_current, *comparison.only_prior)] == ["not_compared"] * 2
    assert [status.status for status in comparison.statuses] == ["unknown"]


@pytest.mark.parametrize(
    ("current", "prior", "code"),
    [
        ({"patient": "one"}, {"patient": "two"}, "different_patient"),
        ({"day": 0}, {"day": 1}, "prior_is_later"),
        ({"series": "1.2.3"}, {"series": "1.2.3"}, "prior_is_current"),
    ],
)
def test_a_prior_that_does_not_belong_is_refused(current, prior, code):
    made = []
    for changes in (current, prior):
        series = changes.pop("series", None)
        one = scan((at(0), 8.0), **changes)
        made.append(replace(one, identity=series and DicomIdentity("1.2", series, None)))
    with pytest.raises(PriorMismatch) as refusal:
        compare(*made)
    assert refusal.value.code == code
    said = refusal.value.message + json.dumps(refusal.value.values)
    assert not {"two", "2024"} & set(said.replace("-", " ").split())


def test_a_comparison_needs_traces():
    with pytest.raises(ValueError, match="keep_trace"):
        compare(replace(scan(), trace=None), scan())


@pytest.fixture(scope="module")
def compared():
    """Three nodules in both, one new, one gone; the current scan breathed in otherwise and lies elsewhere."""
    grid = phantom_grid((86, 100, 126), (3.4, 3.0, 3.0))
    sizes = [(8.0, 10.1), (6.0, 6.0), (12.0, 9.5), (None, 9.0), (7.0, None)]
    pair = phantom_pair(7, sizes, current_grid=grid, prior_grid=grid)
    current, prior = both_findings(pair, pair.chests(), 180)
    undated = replace(prior, trace=replace(prior.trace, visit=replace(prior.trace.visit, day=None, patient=None)))
    return with_comparison(current, undated)


def test_phantoms_from_end_to_end(compared):
    comparison = compared.comparison
    assert [(pair.current_id, pair.prior_id) for pair in comparison.pairs] == [(f"nodule-{n}",) * 2 for n in range(3)]
    assert [pair.growth.by_volume for pair in comparison.pairs] == ["grown", "stable", "shrunk"]
    assert [(one.nodule_id, one.status) for one in comparison.only_current] == [("nodule-3", "new")]
    assert [(one.nodule_id, one.status) for one in comparison.only_prior] == [("nodule-4", "resolved")]
    assert compared.trace is None


def test_what_is_not_known_is_listed_and_the_document_says_all(compared):
    document = AnalysisResult.model_validate_json(result_from_findings(compared).model_dump_json())
    said = document.comparison
    assert (said.days_between, said.missing) == (None, ("days_between", "volume_interval"))
    assert [notice.code for notice in said.notices] == ["patient_not_checked"]
    assert [match.growth.by_diameter for match in said.matched] == ["unknown", "stable", "shrinking"]
    assert [match.growth.doubling_time_days for match in said.matched] == [None] * 3
    assert said.registration.usable
    assert said.registration.error_mm < 5.0
    assert not any(date in document.model_dump_json() for date in ("2024-0", "202403"))  # when a scan was made
