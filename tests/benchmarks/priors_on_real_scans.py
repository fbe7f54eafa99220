"""Real lungs deformed by a known field, nodules that grew by a known factor, the shipped model on both.

    python -m tests.benchmarks.priors_on_real_scans [--scans 0028 0306] [--seed 0] [--unrelated]

There is one scan of each patient, so the second one is made: breathed, turned and shifted as in
`tests.benchmarks.priors_campaign`, with noise of its own. The scan as it is, with smaller nodules painted in, is the
prior. What the model reports beside the painted nodules is in both scans too: it should be matched, or said to be
fainter in the other scan, and not be new or resolved.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum_filter

from app.imaging.acceptance import AcceptanceReport, SeriesSummary
from app.imaging.alignment import Chest, coarse_chest
from app.imaging.alignment_check import check_alignment, why_unusable
from app.imaging.lung_registration import register_lungs
from app.imaging.lungs import segment_lungs
from app.imaging.reading import read_ct
from app.imaging.visit import Visit
from app.imaging.volume import CtVolume, Grid
from app.inference.findings import Findings, Nodule
from app.inference.model_store import LoadedModel, find_model, load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse_volume
from app.phantom.chest import CENTER_MM
from app.phantom.nodules import NoduleSpec, make_shape, paint_nodule
from app.reporting.compared import Comparison
from app.reporting.comparison import compare_aligned
from tests.benchmarks.measuring import ROOT
from tests.phantom_pairs import PairedNodule, Points, draw_motion, inverse, warped

DATA = ROOT.parent / "shared" / "data" / "ct"
DAYS = 180
SIZES = ((6.0, 9.0), (8.0, 10.1), (10.0, 10.0), (12.0, 9.5), (7.0, 12.0), (None, 9.0), (9.0, None))
"""Diameters in mm, prior and current: four grown or shrunk, one stable, one new, one gone."""
ACCEPTED = AcceptanceReport("metaimage", 1, (), SeriesSummary(None, "CT", 100))


def lung_places(chest: Chest, count: int, rng: np.random.Generator) -> list[Points]:
    """Points deep in the lung, away from vessels and from each other."""
    lungs = chest.lungs
    depth = distance_transform_edt(lungs.labels > 0, sampling=lungs.grid.spacing_zyx_mm)
    index = np.rint(chest.grid.to_index(lungs.grid.to_patient(np.argwhere(depth > 14.0)))).astype(int)
    bright = maximum_filter(chest.hu, 5)
    clear = index[bright[tuple(index.T)] < -600]
    found: list[Points] = []
    for place in rng.permutation(chest.grid.to_patient(clear)):
        if len(found) < count and all(np.linalg.norm(place - other) > 35.0 for other in found):
            found.append(place)
    return found


def second_visit(
    volume: CtVolume, seed: int
) -> tuple[CtVolume, CtVolume, Callable[[Points], Points], list[PairedNodule]]:
    """Current scan, prior scan, from a point of the first to the second, and the painted nodules."""
    rng = np.random.default_rng([seed, 9])
    chest = coarse_chest(volume, segment_lungs(volume))
    offset = chest.lungs.box_corners_lps_mm().mean(axis=0) - CENTER_MM
    motion = draw_motion(rng)

    def moved(points: Points) -> Points:
        return motion(points - offset) + offset

    # These scans are cut close to the lungs: the second one is centred on the same place, as a technician would, and
    # what it shows beyond the cut is more of the chest wall, not air, which would pass for lung.
    middle = volume.grid.to_patient((np.asarray(volume.grid.shape_zyx) - 1) / 2)
    affine = volume.grid.affine.copy()
    affine[:3, 3] += inverse(motion, middle - offset) + offset - middle
    current = warped(volume, Grid(volume.hu.shape, affine), moved, beyond="nearest")
    prior = CtVolume(volume.hu.copy(), volume.grid)
    nodules = []
    places = lung_places(chest, len(SIZES), rng)
    for number, ((before, after), place) in enumerate(zip(SIZES, places, strict=False)):
        nodules.append(PairedNodule(inverse(motion, place - offset) + offset, place, after, before))
        for scan, center, diameter in (
            (prior, place, before), (current, nodules[-1].current_lps_mm, after),
        ):  # fmt: skip
            if diameter is not None:
                shape = make_shape(np.random.default_rng([seed, number]), NoduleSpec(diameter), center)
                paint_nodule(shape, scan.grid, scan.hu)
    for scan in (current, prior):
        noise = rng.normal(0.0, 20.0, scan.hu.shape)
        scan.hu[...] = np.clip(scan.hu + noise, -1024, 3071)
    return current, prior, moved, nodules


def analysed(volume: CtVolume, day: int, model: LoadedModel) -> Findings:
    visit = Visit("one", date(2025, 1, 1) + timedelta(days=day))
    dated = CtVolume(volume.hu, volume.grid, visit=visit)
    return analyse_volume(dated, ACCEPTED, model, AnalysisOptions(keep_trace=True))


def nearest(nodules: tuple[Nodule, ...], place: Points, diameter_mm: float) -> Nodule | None:
    """The nodule whose centre lies within the painted one."""
    near = [n for n in nodules if np.linalg.norm(np.subtract(n.center_lps_mm, place)) < max(diameter_mm / 2, 3.0)]
    return near[0] if near else None


def print_nodules(painted: list[PairedNodule], current: Findings, prior: Findings, comparison: Comparison) -> set[str]:
    """A line for each painted nodule; gives the ids in the current scan that are painted ones."""
    partner = {pair.current_id: pair for pair in comparison.pairs}
    alone = {one.nodule_id: one.status for one in comparison.only_current}
    gone = {one.nodule_id: one.status for one in comparison.only_prior}
    ours = set()
    for nodule in painted:
        now = nearest(current.nodules, nodule.current_lps_mm, nodule.current_mm) if nodule.current_mm else None
        before = nearest(prior.nodules, nodule.prior_lps_mm, nodule.prior_mm) if nodule.prior_mm else None
        ours |= {now.id} if now else set()
        head = f"  {nodule.prior_mm or '-'} -> {nodule.current_mm or '-'} mm:"
        if nodule.current_mm and nodule.prior_mm and now and before:
            pair = partner.get(now.id)
            if pair is None or pair.prior_id != before.id:
                print(head, "NOT MATCHED")
                continue
            growth, truth = pair.growth, 100 * ((nodule.current_mm / nodule.prior_mm) ** 3 - 1)
            low, high = growth.volume_change_interval_percent
            doubling = "-" if growth.doubling_time_days is None else f"{growth.doubling_time_days:.0f} d"
            ratio = math.log((nodule.current_mm / nodule.prior_mm) ** 3)
            true_doubling = "-" if ratio == 0 else f"{DAYS * math.log(2) / ratio:.0f} d"
            inside = "within" if low <= truth <= high else "OUTSIDE"
            print(f"{head} matched {pair.distance_mm:.1f} mm apart, {growth.by_volume}", end=" ")
            print(f"{growth.volume_change_percent:+.0f} % ({low:+.0f} to {high:+.0f}), true {truth:+.0f} %", end=" ")
            print(f"{inside}; doubling {doubling}, true {true_doubling}")
        elif nodule.prior_mm is None:
            print(head, alone.get(now.id, "MATCHED") if now else "not reported by the model")
        elif nodule.current_mm is None:
            print(head, gone.get(before.id, "MATCHED") if before else "not reported by the model")
        else:
            print(head, "reported by the model in", "the current scan only" if now else "the prior or neither")
    return ours


def print_unrelated(names: list[str]) -> None:
    """Every scan as the current one against every other as its prior: each must be refused."""
    chests = {}
    for name in names:
        (path,) = Path(DATA).glob(f"LIDC-IDRI-{name}.*")
        volume, _ = read_ct(path)
        chests[name] = coarse_chest(volume, segment_lungs(volume))
    for current, prior in permutations(names, 2):
        pair = chests[current], chests[prior]
        quality = check_alignment(*pair, register_lungs(*pair, threads=1)).quality
        said = "refused" if why_unusable(quality) else "ACCEPTED"
        overlap = f"lung overlap {quality.lung_overlap:.2f}"
        print(f"{current} on {prior}: agreement {quality.agreement:.2f}, {overlap}, {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", nargs="+", default=["0028", "0306"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--unrelated", action="store_true", help="only lay the scans, of different patients, on each other"
    )
    options = parser.parse_args()
    if options.unrelated:
        print_unrelated(options.scans)
        return
    model = load_model(find_model(ROOT / "model_store", "lungnodule", None).path, SessionOptions(device="cpu"))
    for name in options.scans:
        (path,) = Path(DATA).glob(f"LIDC-IDRI-{name}.*")
        volume, _ = read_ct(path)
        print(f"{name}: {volume.grid.shape_zyx}", flush=True)
        current_ct, prior_ct, moved, painted = second_visit(volume, options.seed)
        current, prior = analysed(current_ct, DAYS, model), analysed(prior_ct, 0, model)
        chests = current.trace.chest, prior.trace.chest
        alignment = check_alignment(*chests, register_lungs(*chests))
        lungs = chests[0].lungs
        points = lungs.grid.to_patient(np.argwhere(lungs.labels > 0)[::40])
        points = points[volume.grid.contains_index(volume.grid.to_index(moved(points)))]
        error = np.linalg.norm(alignment.mapping.to_prior(points) - moved(points), axis=1)
        q = alignment.quality
        print(
            f"  moved by {np.mean(np.linalg.norm(moved(points) - points, axis=1)):.1f} mm; error median "
            f"{np.median(error):.2f}, 90 % {np.quantile(error, 0.9):.2f}, worst {error.max():.1f} mm; said: agreement "
            f"{q.agreement:.2f}, 90 % within {q.error_mm:.2f} mm"
        )
        comparison = compare_aligned(current, prior, alignment, DAYS)
        if comparison.failure is not None:
            print(" ", comparison.failure.message)
        ours = print_nodules(painted, current, prior, comparison)
        others = [n.id for n in current.nodules if n.id not in ours]
        said = {one.nodule_id: one.status for one in comparison.only_current}
        print(
            f"  other findings of the current scan: {dict(Counter(said.get(n, 'matched') for n in others))}", flush=True
        )


if __name__ == "__main__":
    main()
