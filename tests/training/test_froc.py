"""Each rule of LUNA16's evaluation has a case by hand; whole submissions are compared with a plain re-derivation."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_curve

from app.evaluation.froc import FP_RATES, Curve, Events, FrocRules, Mark, draws_of_scans, froc
from app.evaluation.reference import Annotation, Luna16Error, Reference, read_reference

NO_BOOTSTRAP = FrocRules(n_bootstraps=0)


def reference(nodules=(), irrelevant=(), n_scans=1):
    """Scans s0, s1 ...; findings as (scan, x, diameter) on the x axis."""

    def by_scan(rows):
        return {
            uid: tuple(Annotation(s, (x, 0.0, 0.0), d) for s, x, d in rows if s == uid) for uid in {r[0] for r in rows}
        }

    return Reference(tuple(f"s{i}" for i in range(n_scans)), by_scan(nodules), by_scan(irrelevant))


def marks(*rows):
    return [Mark(scan, (x, 0.0, 0.0), p) for scan, x, p in rows]


def evaluate(ref, rows, rules=NO_BOOTSTRAP):
    return froc(ref, marks(*rows), rules)


def test_a_mark_exactly_on_the_radius_misses():
    ref = reference([("s0", 0.0, 10.0)])
    assert evaluate(ref, [("s0", 5.0, 0.9)]).n_hits == 0
    assert evaluate(ref, [("s0", 4.999999, 0.9)]).n_hits == 1


def test_distance_is_measured_in_all_three_directions():
    ref = reference([("s0", 0.0, 10.0)])
    for center, hits in (((3.0, 4.0, 0.0), 0), ((3.0, 3.9, 0.0), 1), ((0.0, 3.0, 4.1), 0), ((-2.9, 0.0, -4.0), 1)):
        assert froc(ref, [Mark("s0", center, 0.5)], NO_BOOTSTRAP).n_hits == hits


@pytest.mark.parametrize(("x", "false_positives"), [(4.9, 0), (5.0, 1)])
def test_diameter_minus_one_counts_as_10_mm(x, false_positives):
    ref = reference([("s0", 100.0, 5.0)], [("s0", 0.0, -1.0)])
    assert evaluate(ref, [("s0", x, 0.9)]).n_false_positives == false_positives


def test_marks_on_irrelevant_findings_are_neither_hit_nor_false_positive():
    result = evaluate(reference([("s0", 100.0, 5.0)], [("s0", 0.0, 8.0)]), [("s0", 1.0, 0.9), ("s0", 50.0, 0.8)])
    assert (result.n_hits, result.n_false_positives, result.scans[0].n_irrelevant) == (0, 1, 1)


def test_a_mark_in_a_nodule_and_an_irrelevant_finding_is_a_hit():
    result = evaluate(reference([("s0", 0.0, 8.0)], [("s0", 1.0, 8.0)]), [("s0", 0.5, 0.9)])
    assert (result.n_hits, result.scans[0].n_irrelevant) == (1, 0)


def test_of_several_marks_in_a_nodule_the_highest_counts_and_none_is_false():
    result = evaluate(reference([("s0", 0.0, 10.0)]), [("s0", 0.0, 0.2), ("s0", 1.0, 0.7), ("s0", 2.0, 0.4)])
    assert result.scans[0].nodules[0].probability == 0.7
    assert (result.n_false_positives, result.scans[0].n_repeated) == (0, 2)


def test_one_mark_may_hit_two_overlapping_nodules():
    result = evaluate(reference([("s0", 0.0, 10.0), ("s0", 4.0, 10.0)]), [("s0", 2.0, 0.6)])
    assert result.n_hits == 2
    assert result.cpm.value == 1.0


def test_a_missed_nodule_stays_in_the_denominator():
    result = evaluate(reference([("s0", 0.0, 10.0), ("s0", 50.0, 10.0)]), [("s0", 0.0, 0.9)])
    assert [result.sensitivities[rate].value for rate in FP_RATES] == [0.5] * 7


def test_scans_without_marks_stay_in_the_denominator_of_false_positives():
    rows = [("s0", 50.0, 0.9), ("s0", 0.0, 0.8)]
    one_scan = evaluate(reference([("s0", 0.0, 10.0)], n_scans=1), rows)
    eight_scans = evaluate(reference([("s0", 0.0, 10.0)], n_scans=8), rows)
    assert one_scan.curve.fp_per_scan[-1] == 1.0
    assert eight_scans.curve.fp_per_scan[-1] == 0.125
    assert one_scan.sensitivities[0.125].value == 0.0
    assert eight_scans.sensitivities[0.125].value == 1.0


def test_marks_in_uncounted_series_are_left_out():
    result = evaluate(reference([("s0", 0.0, 10.0)]), [("other", 0.0, 0.9)])
    assert (result.n_hits, result.n_false_positives) == (0, 0)


def test_100_marks_stay_and_of_101_the_lowest_goes():
    ref = reference([("s0", 0.0, 10.0)])
    false = [("s0", 100.0 + i, 0.5 + i / 1000) for i in range(100)]
    assert evaluate(ref, false).n_false_positives == 100
    lowest_hits = evaluate(ref, [*false, ("s0", 0.0, 0.1)])
    assert (lowest_hits.n_hits, lowest_hits.n_false_positives) == (0, 100)


def test_marks_that_tie_with_the_101st_go_too():
    ref = reference([("s0", 0.0, 10.0)])
    tied = [("s0", 100.0 + i, 0.5) for i in range(60)]
    above = [("s0", 500.0 + i, 0.9) for i in range(59)]
    result = evaluate(ref, [*above, *tied, ("s0", 0.0, 0.5)])
    assert (result.n_hits, result.n_false_positives) == (0, 59)


def test_the_curve_starts_at_the_origin_and_is_read_by_linear_interpolation():
    # Two scans; one false positive at 0.9, then both nodules at 0.8: (0, 0), (0.5, 0), (0.5, 1).
    ref = reference([("s0", 0.0, 10.0), ("s1", 0.0, 10.0)], n_scans=2)
    steps = evaluate(ref, [("s0", 50.0, 0.9), ("s0", 0.0, 0.8), ("s1", 0.0, 0.8)])
    assert [steps.sensitivities[rate].value for rate in FP_RATES] == [0, 0, 1, 1, 1, 1, 1]
    # A false positive and a nodule of one probability are one point: a slope from the origin.
    slope = evaluate(ref, [("s0", 50.0, 0.8), ("s0", 0.0, 0.8), ("s1", 0.0, 0.8)])
    assert [slope.sensitivities[rate].value for rate in FP_RATES] == [0.25, 0.5, 1, 1, 1, 1, 1]
    assert slope.cpm.value == pytest.approx((0.25 + 0.5 + 5) / 7)


def test_beyond_its_last_point_the_curve_stays_level():
    result = evaluate(reference([("s0", 0.0, 10.0), ("s0", 50.0, 5.0)]), [("s0", 99.0, 0.9), ("s0", 0.0, 0.5)])
    assert result.curve.sensitivity_at(100.0) == 0.5


@pytest.mark.parametrize("n_false", [147, 148, 200])
def test_a_vertical_step_exactly_at_a_rate_is_read_as_the_script_reads_it(n_false):
    # 111 / 888 is 1/8, but 111 / n * n / 888 may be a rounding above or below; the script's order decides.
    rows = [(f"s{i}", 50.0, 0.9) for i in range(111)] + [(f"s{i}", 50.0, 0.1) for i in range(111, n_false)]
    ref = reference([("s0", 0.0, 10.0)], n_scans=888)
    rows.append(("s0", 0.0, 0.5))
    script = np.interp(0.125, *plain_curve(plain_events(ref, rows), 888))
    assert evaluate(ref, rows).sensitivities[0.125].value == pytest.approx(script, abs=1e-9)


def test_no_marks_and_no_hits_give_zero_instead_of_nan():
    assert evaluate(reference([("s0", 0.0, 10.0)]), []).cpm.value == 0.0
    assert evaluate(reference([("s0", 0.0, 10.0)]), [("s0", 50.0, 0.3)]).cpm.value == 0.0


def test_a_reference_without_nodules_is_refused():
    with pytest.raises(Luna16Error, match="no nodule"):
        evaluate(reference([("elsewhere", 0.0, 10.0)]), [])


def test_fewest_false_positives_at_a_sensitivity():
    curve = Curve(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.5, 0.9]), np.array([np.inf, 0.8, 0.2]))
    assert curve.fp_per_scan_at(0.25) == 0.5
    assert curve.fp_per_scan_at(0.7) == pytest.approx(2.0)
    assert curve.fp_per_scan_at(0.0) == 0.0
    assert math.isinf(curve.fp_per_scan_at(0.95))


def random_submission(seed, n_scans=40, decimals=2):
    rng = np.random.default_rng(seed)
    nodules, irrelevant, rows = [], [], []
    for scan in (f"s{i}" for i in range(n_scans)):
        for _ in range(rng.integers(0, 3)):
            x, d = rng.uniform(-100, 100), rng.uniform(3, 30)
            nodules.append((scan, x, d))
            rows += [(scan, x + rng.normal(0, d / 4), rng.beta(3, 2)) for _ in range(rng.integers(0, 3))]
        irrelevant += [(scan, rng.uniform(-100, 100), rng.choice([-1.0, 4.0, 9.0])) for _ in range(rng.integers(0, 3))]
        n_false = 130 if rng.random() < 0.05 else rng.integers(0, 12)
        rows += [(scan, rng.uniform(-100, 100), rng.beta(2, 3)) for _ in range(n_false)]
    rows = [(scan, x, round(p, decimals)) for scan, x, p in rows]
    return reference(nodules, irrelevant, n_scans), [rows[i] for i in rng.permutation(len(rows))]


def plain_events(ref, rows):
    """The rules once more, one finding and one mark at a time: (scan, is nodule, probability or None)."""
    events = []
    for uid in ref.series_uids:
        mine = [row for row in rows if row[0] == uid]
        if len(mine) > 100:
            threshold = sorted((p for _, _, p in mine), reverse=True)[100]
            mine = [row for row in mine if row[2] > threshold]
        used = set()
        for nodule in ref.nodules.get(uid, ()):
            inside = [
                i for i, row in enumerate(mine) if (row[1] - nodule.center_lps_mm[0]) ** 2 < radius_squared(nodule)
            ]
            used.update(inside)
            events.append((uid, True, max((mine[i][2] for i in inside), default=None)))
        for finding in ref.irrelevant.get(uid, ()):
            used.update(
                i for i, r in enumerate(mine) if (r[1] - finding.center_lps_mm[0]) ** 2 < radius_squared(finding)
            )
        events += [(uid, False, row[2]) for i, row in enumerate(mine) if i not in used]
    return events


def radius_squared(finding):
    return (5.0 if finding.diameter_mm < 0 else finding.diameter_mm / 2) ** 2


def plain_curve(events, n_scans):
    """False positives per scan and sensitivity through scikit-learn, as the published script gets them."""
    seen = [(is_nodule, p) for _, is_nodule, p in events if p is not None]
    n_nodules = sum(is_nodule for _, is_nodule, _ in events)
    hits = sum(is_nodule for is_nodule, _ in seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        fpr, tpr, _ = roc_curve(*zip(*seen, strict=True))
    return fpr * (len(seen) - hits) / n_scans, tpr * hits / n_nodules


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_plain_rederivation(seed):
    ref, rows = random_submission(seed, decimals=1 + seed % 3)
    result = evaluate(ref, rows)
    fps, sensitivity = plain_curve(plain_events(ref, rows), len(ref.series_uids))
    grid = np.concatenate([FP_RATES, fps, np.linspace(0, 12, 997)])
    np.testing.assert_allclose(result.curve.sensitivity_at(grid), np.interp(grid, fps, sensitivity), rtol=0, atol=1e-9)
    assert result.cpm.value == pytest.approx(np.interp(FP_RATES, fps, sensitivity).mean(), abs=1e-12)


def test_the_band_is_that_of_drawing_whole_scans():
    ref, rows = random_submission(7)
    rules = FrocRules(n_bootstraps=40, seed=3)
    band = evaluate(ref, rows, rules).band
    events = plain_events(ref, rows)
    random = np.random.RandomState(3)
    curves = []
    for _ in range(40):
        drawn = np.array(ref.series_uids)[random.randint(40, size=40)]
        sample = [event for uid in drawn for event in events if event[0] == uid]
        curves.append(np.interp(band.fp_per_scan, *plain_curve(sample, 40)))
    ordered = np.sort(np.array(curves), axis=0)
    np.testing.assert_allclose(band.mean, ordered.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(band.low, ordered[1], atol=1e-6)
    np.testing.assert_allclose(band.high, ordered[39], atol=1e-6)


def test_intervals_hold_the_figure_and_repeat_with_the_seed():
    ref, rows = random_submission(1)
    rules = FrocRules(n_bootstraps=60)
    first, again, other = (evaluate(ref, rows, r) for r in (rules, rules, FrocRules(n_bootstraps=60, seed=1)))
    assert first.cpm == again.cpm
    assert first.cpm != other.cpm
    assert first.cpm.low < first.cpm.value < first.cpm.high
    assert first.cpm.n == first.n_nodules == ref.n_nodules


def test_a_draw_without_nodules_is_left_out_of_the_band():
    ref = reference([("s0", 0.0, 10.0)], n_scans=3)
    rules = FrocRules(n_bootstraps=50)
    n_empty = sum(times[0] == 0 for times in draws_of_scans(3, rules))
    result = evaluate(ref, [("s0", 0.0, 0.9)], rules)
    assert 0 < n_empty < 50
    assert result.sensitivities[1.0] == (result.cpm)
    assert (result.cpm.low, result.cpm.high) == (1.0, 1.0)


def test_resampled_curve_counts_a_scan_as_often_as_it_is_drawn():
    ref, rows = random_submission(2, n_scans=6)
    scans = evaluate(ref, rows).scans
    times = np.array([2, 0, 1, 3, 0, 0])
    repeated = Events.of([scan for scan, n in zip(scans, times, strict=True) for _ in range(n)])
    np.testing.assert_array_equal(
        Events.of(scans).curve(times).sensitivity, repeated.curve(np.ones(6, dtype=np.int64)).sensitivity
    )


def test_the_official_reference_has_its_published_size(shared_data: Path):
    folder = shared_data / "luna16"
    ref = read_reference(folder / "annotations.csv", folder / "annotations_excluded.csv", folder / "seriesuids.csv")
    perfect = [Mark(n.series_uid, n.center_lps_mm, 1.0) for found in ref.nodules.values() for n in found]
    result = froc(ref, perfect, NO_BOOTSTRAP)
    assert (len(result.scans), result.n_nodules, result.n_hits) == (888, 1186, 1186)
    assert result.cpm.value == 1.0
