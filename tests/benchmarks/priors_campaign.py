"""Phantoms of one patient on two days: is each nodule matched, how far is the registration off, does growth hold?

    python -m tests.benchmarks.priors_campaign [--seeds 40] [--unrelated 10]

Each pair has another breath (diaphragm up to 15 mm), another place and turn on the table, and waves of some mm; which
point is which is known. Eight nodules of 4 to 14 mm grew or shrank by known factors, two are new, two are gone. Centres
are given with 1 mm of error on each axis; volumes with the error that is assumed where none was measured. No network
runs: what is found in a scan is not the question here. `tests.benchmarks.priors_on_real_scans` asks it of real lungs
and the shipped model.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field

import numpy as np

from app.imaging.alignment import Alignment, Chest
from app.imaging.alignment_check import check_alignment, why_unusable
from app.imaging.lung_registration import register_lungs
from app.reporting.comparison import compare_aligned
from app.reporting.size_change import ASSUMED_LOG_ERROR
from tests.compared_findings import both_findings
from tests.phantom_pairs import PhantomPair, phantom_pair

DAYS = 180


@dataclass
class Tally:
    """Sums over all pairs."""

    matched: int = 0
    wrong: int = 0
    of: int = 0
    lone_right: int = 0
    lone: int = 0
    growth_held: int = 0
    growth_told: int = 0
    errors_mm: list[float] = field(default_factory=list)
    worst_mm: list[float] = field(default_factory=list)
    affine_mm: list[float] = field(default_factory=list)
    within_stated: list[bool] = field(default_factory=list)
    refused: int = 0
    seconds: list[float] = field(default_factory=list)


def sizes_of(rng: np.random.Generator) -> list[tuple[float | None, float | None]]:
    """Diameters (prior, current): eight in both, two new, two gone."""
    before = np.exp(rng.uniform(math.log(4.0), math.log(14.0), 12))
    ratio = np.cbrt(rng.choice([0.5, 1.0, 1.3, 2.0, 4.0], 8))
    both = [(round(float(d), 2), round(float(d * r), 2)) for d, r in zip(before[:8], ratio, strict=True)]
    return [*both, *((None, float(d)) for d in before[8:10]), *((float(d), None) for d in before[10:])]


def add_pair(
    tally: Tally, pair: PhantomPair, chests: tuple[Chest, Chest], alignment: Alignment, rng: np.random.Generator
) -> None:
    """Compare one pair and count."""
    current, prior = both_findings(pair, chests, DAYS, jitter_mm=1.0, log_error=ASSUMED_LOG_ERROR, rng=rng)
    comparison = compare_aligned(current, prior, alignment, DAYS)
    tally.of += sum(n.current_mm is not None and n.prior_mm is not None for n in pair.nodules)
    tally.lone += sum((n.current_mm is None) != (n.prior_mm is None) for n in pair.nodules)
    if comparison.failure is not None:
        tally.refused += 1
        return
    for match in comparison.pairs:
        tally.matched += match.current_id == match.prior_id
        tally.wrong += match.current_id != match.prior_id
        growth, nodule = match.growth, pair.nodules[int(match.current_id.removeprefix("nodule-"))]
        if match.current_id == match.prior_id and growth.doubling_time_days is not None:
            truth = 3 * math.log(nodule.current_mm / nodule.prior_mm) / math.log(2) / DAYS
            low, high = (1 / end if end is not None else 0.0 for end in growth.doubling_time_interval_days[::-1])
            tally.growth_told += 1
            tally.growth_held += low <= truth <= high
    tally.lone_right += sum(one.status == "new" for one in comparison.only_current)
    tally.lone_right += sum(one.status == "resolved" for one in comparison.only_prior)


def add_registration(tally: Tally, pair: PhantomPair, chests: tuple[Chest, Chest]) -> Alignment:
    """Errors of the map against the known motion, all over the lungs."""
    began = time.process_time()
    mapping = register_lungs(*chests, threads=1)
    alignment = check_alignment(*chests, mapping)
    tally.seconds.append(time.process_time() - began)
    lungs = chests[0].lungs
    points = lungs.grid.to_patient(np.argwhere(lungs.labels > 0)[::40])
    truth = pair.motion(points)
    error = np.linalg.norm(mapping.to_prior(points) - truth, axis=1)
    plain = np.linalg.norm(points @ mapping.affine[:3, :3].T + mapping.affine[:3, 3] - truth, axis=1)
    tally.errors_mm += error.tolist()
    tally.affine_mm += plain.tolist()
    tally.worst_mm.append(float(error.max()))
    tally.within_stated += [e <= alignment.error_near_mm(p) for p, e in zip(points[::20], error[::20], strict=True)]
    return alignment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--unrelated", type=int, default=10, help="pairs of two different phantoms")
    options = parser.parse_args()
    tally, agreements, unrelated = Tally(), [], []
    before: Chest | None = None
    for seed in range(options.seeds):
        rng = np.random.default_rng([seed, 5])
        pair = phantom_pair(seed, sizes_of(rng))
        chests = pair.chests()
        alignment = add_registration(tally, pair, chests)
        add_pair(tally, pair, chests, alignment, rng)
        agreements.append(alignment.quality.agreement)
        if before is not None and len(unrelated) < options.unrelated:
            other = check_alignment(chests[0], before, register_lungs(chests[0], before, threads=1))
            unrelated.append((other.quality.agreement, why_unusable(other.quality) is not None))
        before = chests[1]
        print(f"{seed + 1} pairs: {tally.matched} of {tally.of} matched, {tally.wrong} wrong", flush=True)
    print_report(tally, agreements, unrelated)


def print_report(tally: Tally, agreements: list[float], unrelated: list[tuple[float, bool]]) -> None:
    """What the documentation quotes."""
    error, plain = np.asarray(tally.errors_mm), np.asarray(tally.affine_mm)
    print(f"\nmatched {tally.matched} of {tally.of} ({tally.matched / tally.of:.1%}), wrong pairs {tally.wrong}")
    print(f"new and resolved said so: {tally.lone_right} of {tally.lone}")
    print(f"doubling time within its 95 % interval: {tally.growth_held} of {tally.growth_told}")
    print(f"pairs of one phantom refused: {tally.refused} of {len(agreements)}; agreement from {min(agreements):.2f}")
    print(f"affine error in mm: median {np.median(plain):.2f}, 90 % {np.quantile(plain, 0.9):.2f}")
    print(
        f"error in mm: median {np.median(error):.2f}, 90 % {np.quantile(error, 0.9):.2f}, "
        f"worst {max(tally.worst_mm):.1f}"
    )
    print(f"points within the error stated for their place: {np.mean(tally.within_stated):.1%} (it is a 90 % bound)")
    if unrelated:
        highest = max(agreement for agreement, _ in unrelated)
        print(
            f"two phantoms refused: {sum(r for _, r in unrelated)} of {len(unrelated)}; agreement up to {highest:.2f}"
        )
    print(f"registration and its check: median {np.median(tally.seconds):.1f} s of one core")


if __name__ == "__main__":
    main()
