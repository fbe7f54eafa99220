"""Two scans of one patient compared: which nodules are the same, which are new or gone, and what grew.

The prior is analysed by the same model at the same operating point. What reaches it in one scan only is not at once new
or gone: the other scan may not cover the place, or may show it a little less surely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from app.imaging.acceptance import Notice
from app.imaging.affine_fit import nearest_affine
from app.imaging.alignment import Alignment
from app.imaging.alignment_check import check_alignment, why_unusable
from app.imaging.errors import PriorMismatch
from app.imaging.lung_registration import register_lungs
from app.imaging.volume import FloatArray, Grid
from app.inference.findings import Candidate, Findings, Nodule, Point, Trace
from app.reporting.compared import Alone, ComparedFindings, Comparison, LoneNodule, NodulePair, ToPrior
from app.reporting.nodule_matching import Placed, match_nodules
from app.reporting.size_change import YEAR_DAYS, PriorStatus, Size, size_change

_EVERY_VOXEL = 29
"""Of the lungs, on voxels of 2.8 mm: some thousand points."""


def with_comparison(current: Findings, prior: Findings, *, threads: int = 2) -> ComparedFindings:
    """The current findings with their comparison and without their trace, which has served; see `compare`."""
    own = {field.name: getattr(current, field.name) for field in fields(Findings)} | {"trace": None}
    return ComparedFindings(**own, comparison=compare(current, prior, threads=threads))


def compare(current: Findings, prior: Findings, *, threads: int = 2) -> Comparison:
    """Compare two scans of one patient.

    Parameters
    ----------
    current, prior
        Analysed with ``keep_trace``, by one model.
    threads
        For the registration.

    Returns
    -------
    Comparison
        Where the registration fails it says so, and every nodule is ``not_compared``.

    Raises
    ------
    PriorMismatch
        ``different_patient``, ``prior_is_later`` or ``prior_is_current``; neither patient nor dates are named.
    """
    days, notices = _checked(current, prior)
    chests = _trace(current).chest, _trace(prior).chest
    alignment = check_alignment(*chests, register_lungs(*chests, threads=threads))
    return compare_aligned(current, prior, alignment, days, notices)


def compare_aligned(
    current: Findings, prior: Findings, alignment: Alignment, days: int | None, notices: tuple[Notice, ...] = ()
) -> Comparison:
    """`compare`, for scans that belong together and have been laid over each other."""
    failure = why_unusable(alignment.quality) or _without_outlines(current, prior)
    pairs: tuple[NodulePair, ...] = ()
    if failure is None:
        pairs, only_current, only_prior = _paired(current, prior, alignment, days)
    else:
        only_current, only_prior = (
            tuple(LoneNodule(nodule.id, "not_compared", None) for nodule in some)
            for some in (current.nodules, prior.nodules)
        )
    missing = (() if days is not None else ("days_between",)) + (
        ("volume_interval",) if any(pair.growth.interval_is_assumed for pair in pairs) else ()
    )
    return Comparison(
        days=days,
        quality=alignment.quality,
        failure=failure,
        prior_nodules=prior.nodules,
        pairs=pairs,
        only_current=only_current,
        only_prior=only_prior,
        statuses=_statuses(current, prior, pairs, only_current, days),
        notices=notices,
        missing=missing,
        to_prior=_to_prior(current, alignment) if failure is None else None,
    )


def _to_prior(current: Findings, alignment: Alignment) -> ToPrior:
    """Fitted where the lungs are."""
    lungs = current.trace.chest.lungs if current.trace else None
    inside = None if lungs is None else lungs.grid.to_patient(np.argwhere(lungs.labels)[::_EVERY_VOXEL])
    affine, residual_mm = nearest_affine(alignment.mapping, inside)
    return ToPrior(tuple((a, b, c, d) for a, b, c, d in affine.tolist()), residual_mm)


def _without_outlines(current: Findings, prior: Findings) -> Notice | None:
    """Matching and growth go by volume; boxes have none."""
    if all(nodule.volume_mm3 is not None for nodule in (*current.nodules, *prior.nodules)):
        return None
    message = "The model draws boxes and no outlines; without volumes nodules are not compared."
    return Notice("no_outlines", message)


def _trace(findings: Findings) -> Trace:
    if findings.trace is None:
        raise ValueError("both scans must be analysed with keep_trace")
    return findings.trace


def _checked(current: Findings, prior: Findings) -> tuple[int | None, tuple[Notice, ...]]:
    """Days between, and what could not be made sure of."""
    ours, theirs = _trace(current).visit, _trace(prior).visit
    if ours.is_same_patient(theirs) is False:
        raise PriorMismatch(
            "The prior is of another patient: PatientID differs. Send a prior of the same patient.",
            code="different_patient",
            values={"attribute": "PatientID"},
        )
    series = [scan.identity.series_instance_uid if scan.identity else "" for scan in (current, prior)]
    if series[0] and series[0] == series[1]:
        raise PriorMismatch("The prior is the same series as the current scan.", code="prior_is_current")
    days = ours.days_since(theirs)
    if days is not None and days < 0:
        raise PriorMismatch(
            f"The prior was acquired {-days} days after the current scan. Exchange the two.",
            code="prior_is_later",
            values={"days": days},
        )
    notices = []
    if ours.is_same_patient(theirs) is None:
        message = "PatientID is missing in one of the scans: that both are of one patient was not checked."
        notices.append(Notice("patient_not_checked", message))
    if days == 0:
        notices.append(Notice("same_day", "Both scans are of the same day: there is no doubling time."))
    return days, tuple(notices)


def _paired(
    current: Findings, prior: Findings, alignment: Alignment, days: int | None
) -> tuple[tuple[NodulePair, ...], tuple[LoneNodule, ...], tuple[LoneNodule, ...]]:
    """Nodules of both scans, of the current only, of the prior only."""
    mapping = alignment.mapping
    there = _moved(mapping.to_prior, [nodule.center_lps_mm for nodule in current.nodules])
    ours = [
        _placed(nodule, place, alignment.error_near_mm(nodule.center_lps_mm))
        for nodule, place in zip(current.nodules, there, strict=True)
    ]
    matches = match_nodules(ours, [_placed(nodule, nodule.center_lps_mm) for nodule in prior.nodules])
    pairs = tuple(
        NodulePair(
            current.nodules[m.current].id,
            prior.nodules[m.prior].id,
            m.distance_mm,
            m.gate_mm,
            size_change(_size(prior.nodules[m.prior]), _size(current.nodules[m.current]), days),
        )
        for m in matches
    )
    lone = [n for n in range(len(ours)) if n not in {m.current for m in matches}]
    only_current = _lone([current.nodules[n] for n in lone], [ours[n] for n in lone], prior, "new")
    gone = [n for n in range(len(prior.nodules)) if n not in {m.prior for m in matches}]
    gone_nodules = [prior.nodules[n] for n in gone]
    here = _moved(mapping.to_current, [nodule.center_lps_mm for nodule in gone_nodules])
    theirs = [
        _placed(nodule, place, alignment.error_near_mm(place)) for nodule, place in zip(gone_nodules, here, strict=True)
    ]
    return pairs, only_current, _lone(gone_nodules, theirs, current, "resolved")


def _lone(
    nodules: Sequence[Nodule], there: Sequence[Placed], other: Findings, otherwise: Literal["new", "resolved"]
) -> tuple[LoneNodule, ...]:
    """What the other scan has to say about nodules that it does not report; ``there`` is where they lie in it."""
    faint = _trace(other).faint
    covered = [_is_covered(other.grid, place) for place in there]
    seen = [place for place, is_covered in zip(there, covered, strict=True) if is_covered]
    matches = match_nodules([_of_any_size(place) for place in seen], [_placed_faint(candidate) for candidate in faint])
    probability = {id(seen[m.current]): faint[m.prior].probability for m in matches}
    found = []
    for nodule, place, is_covered in zip(nodules, there, covered, strict=True):
        likely = probability.get(id(place))
        status: Alone = "not_covered" if not is_covered else "below_threshold" if likely is not None else otherwise
        found.append(LoneNodule(nodule.id, status, place.center_lps_mm, likely))
    return tuple(found)


def _is_covered(grid: Grid, place: Placed) -> bool:
    """Whether the other scan shows the whole nodule, wherever within the error it lies."""
    margin = (place.error_mm + place.diameter_mm / 2) / grid.spacing_zyx_mm
    index = grid.to_index(place.center_lps_mm)
    return bool((index >= margin - 0.5).all() and (index <= np.asarray(grid.shape_zyx) - 0.5 - margin).all())


def _statuses(
    current: Findings,
    prior: Findings,
    pairs: Sequence[NodulePair],
    alone: Sequence[LoneNodule],
    days: int | None,
) -> tuple[PriorStatus, ...]:
    before = {nodule.id: nodule for nodule in prior.nodules}
    of = {pair.current_id: pair for pair in pairs}
    new = {nodule.nodule_id: nodule.status == "new" for nodule in alone}
    found = []
    for nodule in current.nodules:
        pair = of.get(nodule.id)
        if pair is None:
            status: Literal["new", "unknown"] = "new" if new[nodule.id] else "unknown"
            missing = () if new[nodule.id] else ("prior_measurement",)
            found.append(PriorStatus(nodule.id, status, days, None, None, None, missing))
            continue
        change = pair.growth.diameter_change_mm
        rate = change * YEAR_DAYS / days if days else None
        diameter_mm = before[pair.prior_id].diameter_mm
        found.append(
            PriorStatus(nodule.id, pair.growth.by_diameter, days, change, rate, diameter_mm, pair.growth.missing)
        )
    return tuple(found)


def _moved(move: Callable[[ArrayLike], FloatArray], centers: Sequence[Point]) -> FloatArray:
    return move(centers) if centers else np.zeros((0, 3))


def _volume_mm3(nodule: Nodule) -> float:
    if nodule.volume_mm3 is None:
        raise ValueError("nodules without outlines are not compared")
    return nodule.volume_mm3


def _size(nodule: Nodule) -> Size:
    return Size(_volume_mm3(nodule), nodule.diameter_mm, nodule.volume_interval_mm3)


def _placed(nodule: Nodule, center: FloatArray | Point, error_mm: float = 0.0) -> Placed:
    x, y, z = (float(v) for v in center)
    return Placed((x, y, z), nodule.diameter_mm, _volume_mm3(nodule), error_mm)


def _placed_faint(candidate: Candidate) -> Placed:
    return Placed(candidate.center_lps_mm, candidate.diameter_mm, 1.0)


def _of_any_size(place: Placed) -> Placed:
    """A faint candidate was not outlined: its size says nothing."""
    return Placed(place.center_lps_mm, place.diameter_mm, 1.0, place.error_mm)
