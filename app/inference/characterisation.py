"""Stage 2: what a candidate is, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.imaging.preprocessing import sample_crops, sample_stack
from app.imaging.volume import CtVolume, Grid
from app.inference.findings import Candidate, NoduleMask, Point
from app.inference.model_store import LoadedModel

_T = TypeVar("_T")

BATCH = 64
"""Candidates a pass; bounds the memory of the crops."""

MASK_THRESHOLD = 0.5

_OUTLINE_MARGIN_MM = 3.0
_OUTLINE_DIAMETERS = 0.75
"""A stack reaches this many detector diameters and the margin to both sides of the centre."""


@dataclass(frozen=True)
class CharacterisedNodule:
    """A candidate above the operating point, with its outline."""

    probability: float
    malignancy_probability: float
    attributes: dict[str, float]
    mask: NoduleMask
    center_lps_mm: Point
    """Centre of mass of the outline."""
    radius_mm: float
    """Of the sphere of the outline's volume."""


@dataclass(frozen=True)
class Characterisation:
    """Nodules by falling probability, and what could not be done for them as it should."""

    nodules: tuple[CharacterisedNodule, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class _Verdict:
    """The network's word on one candidate."""

    candidate: Candidate
    probability: float
    malignancy_probability: float
    attributes: dict[str, float]


def characterise(
    volume: CtVolume,
    candidates: Sequence[Candidate],
    model: LoadedModel,
    threshold: float,
    on_progress: Callable[[float, str], None] = lambda _fraction, _detail: None,
) -> Characterisation:
    """Judge all candidates, then outline those whose final probability reaches the threshold.

    Parameters
    ----------
    volume
        The scan in HU.
    candidates
        Output of `app.inference.detection.detect`.
    model
        Its characteriser, crop spec and mixing weight.
    threshold
        Operating point on the final probability.
    on_progress
        Told the fraction done and a detail.

    Returns
    -------
    Characterisation
        Two candidates that turn out to lie in one nodule are reported once, as the more probable.
    """
    verdicts = _verdicts(volume, candidates, model, on_progress)
    likely = [verdict for verdict in verdicts if verdict.probability >= threshold]
    likely = _without_duplicates(
        likely, [v.candidate.center_lps_mm for v in likely], [v.candidate.diameter_mm / 2 for v in likely]
    )
    nodules, notices = [], []
    for number, verdict in enumerate(likely):
        on_progress(0.5 + 0.5 * number / len(likely), f"nodule {number + 1} of {len(likely)}")
        nodule, remarks = _outlined(volume, verdict, model)
        nodules.append(nodule)
        notices.extend(remarks)
    nodules = _without_duplicates(nodules, [n.center_lps_mm for n in nodules], [n.radius_mm for n in nodules])
    on_progress(1.0, f"{len(nodules)} nodules")
    return Characterisation(tuple(nodules), tuple(notices))


def mixed_probability(characteriser: float, detector: float, detector_weight: float) -> float:
    """Probability whose log-odds are (1 - w) * characteriser + w * detector.

    Probabilities are taken from 1e-6 to 1 - 1e-6, so that neither network can outvote the other by being certain.
    """
    p = np.clip((characteriser, detector), 1e-6, 1 - 1e-6)
    log_odds = np.log(p / (1 - p)) @ (1 - detector_weight, detector_weight)
    return float(1 / (1 + np.exp(-log_odds)))


def _verdicts(
    volume: CtVolume,
    candidates: Sequence[Candidate],
    model: LoadedModel,
    on_progress: Callable[[float, str], None],
) -> list[_Verdict]:
    """All candidates, by falling final probability."""
    entry = model.manifest.characteriser
    verdicts = []
    for start in range(0, len(candidates), BATCH):
        on_progress(0.5 * start / len(candidates), f"candidate {start + 1} of {len(candidates)}")
        batch = candidates[start : start + BATCH]
        crops = sample_crops(volume, [candidate.center_lps_mm for candidate in batch], entry.crop)
        said = _ask(model, crops)
        for n, candidate in enumerate(batch):
            nodule = float(said["nodule_probability"][n])
            attributes = zip(entry.attribute_names, map(float, said["attributes"][n]), strict=True)
            verdict = _Verdict(
                candidate=candidate,
                probability=mixed_probability(nodule, candidate.probability, entry.detector_weight),
                malignancy_probability=float(said["malignancy_probability"][n]),
                attributes=dict(attributes),
            )
            verdicts.append(verdict)
    return sorted(verdicts, key=lambda verdict: -verdict.probability)


def _ask(model: LoadedModel, crops: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
    """Run the characteriser; a probability that is no number would be a nodule missed without a word."""
    said = model.characteriser({"crops": crops})
    faulty = [name for name, values in said.items() if not np.isfinite(values).all()]
    if faulty:
        raise ModelError(
            f"The characteriser's outputs {', '.join(faulty)} hold values that are no numbers.",
            code="network_output_invalid",
            values={"network": "characteriser", "outputs": faulty},
        )
    return said


def _outlined(volume: CtVolume, verdict: _Verdict, model: LoadedModel) -> tuple[CharacterisedNodule, list[Notice]]:
    candidate = verdict.candidate
    voxels, grid, whole = _outline(volume, candidate, model)
    notices = []
    if not voxels.any():
        voxels = _sphere(grid, candidate)
        notices.append(_notice("outline_from_detector", "has no outline; the detector's sphere is measured", candidate))
    elif not whole:
        notices.append(_notice("outline_cut_off", "reaches the edge of the section that was outlined", candidate))
    index = np.argwhere(voxels)
    x, y, z = (float(v) for v in grid.to_patient(index.mean(axis=0)))
    radius = float(np.cbrt(len(index) * grid.voxel_volume_mm3 * 3 / (4 * np.pi)))
    nodule = CharacterisedNodule(
        verdict.probability,
        verdict.malignancy_probability,
        verdict.attributes,
        NoduleMask(voxels, grid),
        (x, y, z),
        radius,
    )
    return nodule, notices


def _outline(volume: CtVolume, candidate: Candidate, model: LoadedModel) -> tuple[NDArray[np.bool_], Grid, bool]:
    """The candidate's voxels, their grid, and whether the section held all of them.

    The section is as deep as the detector's diameter suggests, and deeper where the outline reaches its last slice.
    """
    depth_mm = candidate.diameter_mm * _OUTLINE_DIAMETERS + _OUTLINE_MARGIN_MM
    crop, slices = model.manifest.characteriser.crop, 0
    while True:
        stack, grid = sample_stack(volume, candidate.center_lps_mm, depth_mm, crop)
        probability = _ask(model, stack[None])["mask_probability"][0]
        voxels = _part_at_center(probability >= MASK_THRESHOLD, grid, candidate)
        too_shallow = bool(voxels[[0, -1]].any())
        if not too_shallow or len(stack) == slices or depth_mm > crop.size_px * crop.spacing_mm:
            break
        depth_mm, slices = 2 * depth_mm, len(stack)
    in_plane = voxels.any(axis=0)
    cut_off = too_shallow or in_plane[[0, -1]].any() or in_plane[:, [0, -1]].any()
    return voxels, grid, not cut_off


def _part_at_center(inside: NDArray[np.bool_], grid: Grid, candidate: Candidate) -> NDArray[np.bool_]:
    """The connected part that holds the centre, or comes nearest to it within the detector's sphere."""
    if not inside.any():
        return inside
    distance = _distance_mm(grid, candidate.center_lps_mm)
    nearest = int(np.argmin(np.where(inside, distance, np.inf)))
    if distance.flat[nearest] > max(candidate.diameter_mm / 2, float(grid.spacing_zyx_mm.max())):
        return np.zeros_like(inside)
    parts: NDArray[np.int32] = ndimage.label(inside)[0]
    return np.asarray(parts == parts.flat[nearest])


def _sphere(grid: Grid, candidate: Candidate) -> NDArray[np.bool_]:
    distance = _distance_mm(grid, candidate.center_lps_mm)
    return np.asarray(distance <= max(candidate.diameter_mm / 2, float(distance.min())))


def _distance_mm(grid: Grid, center_lps_mm: Point) -> NDArray[np.float64]:
    """(z, y, x) distance of every voxel centre from a point."""
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1)
    return np.asarray(np.linalg.norm(grid.to_patient(index) - center_lps_mm, axis=-1))


def _without_duplicates(found: Sequence[_T], centers_lps_mm: Sequence[Point], radii_mm: Sequence[float]) -> list[_T]:
    """Drop what lies within the larger of two radii of something more probable; the input falls by probability."""
    centers, radii = np.asarray(centers_lps_mm).reshape(-1, 3), np.asarray(radii_mm)
    kept: list[int] = []
    for n in range(len(found)):
        distance = np.linalg.norm(centers[kept] - centers[n], axis=1)
        if not (distance < np.maximum(radii[kept], radii[n])).any():
            kept.append(n)
    return [found[n] for n in kept]


def _notice(code: str, what: str, candidate: Candidate) -> Notice:
    at = [round(v, 1) for v in candidate.center_lps_mm]
    return Notice(code, f"The nodule at LPS {at} mm {what}.", {"center_lps_mm": at})
