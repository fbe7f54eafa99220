"""Judge a registration by small landmarks of the lung: where each is found in the prior, and where it should be.

Overlap of lung masks says little: a deformable map brings any two pairs of lungs to cover each other. Branching vessels
do not fall into place by chance. A landmark is a cube of 15 mm with structure in all directions; it is looked for by
normalised cross-correlation within 12 mm of where the map puts it. The scans of two patients leave few that agree.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

from app.imaging.acceptance import Notice
from app.imaging.alignment import Alignment, AlignmentQuality, Chest, Mapping
from app.imaging.lung_registration import lung_grid, lung_share, median_lung_hu, resampled
from app.imaging.volume import FloatArray, Grid

_SPACING_MM = 3.0
_PATCH, _SEARCH = 2, 4
"""Voxels to each side: of a landmark, and of where it is looked for."""
_CELL = 10
"""Edge in voxels of the cube that gives one landmark."""
_LEAST_STRENGTH = 1.0
"""HU squared per voxel squared: below what noise shows."""
_LEAST_CORRELATION = 0.6
_FOUND_WITHIN_MM = 8.0
"""Farther away, something alike was found, not the landmark."""
_LEAST_LANDMARKS = 20
_LEAST_AGREEMENT = 0.5
_LEAST_LUNG_OVERLAP = 0.8
_LEAST_COVERED_SHARE = 0.1


def check_alignment(current: Chest, prior: Chest, mapping: Mapping) -> Alignment:
    """Measure a mapping.

    Parameters
    ----------
    current, prior
        The scans that ``mapping`` was found for.
    mapping
        From `app.imaging.lung_registration.register_lungs`.

    Returns
    -------
    Alignment
        The mapping with its quality; whether that is enough, `why_unusable` says.
    """
    grid = lung_grid(current, _SPACING_MM, margin_mm=_SPACING_MM * (_PATCH + _SEARCH + 1))
    ours = resampled(current.hu, current.grid, grid, None, outside=-1000.0)
    points = grid.to_patient(np.argwhere(np.ones(grid.shape_zyx, bool)))
    place = mapping.to_prior(points)
    index = prior.grid.to_index(place)
    covered = prior.grid.contains_index(index).reshape(grid.shape_zyx)
    theirs = _sampled(prior.hu.astype(np.float32), index, grid, outside=-1000.0)
    our_lung = lung_share(current, grid) > 0.5
    lungs = (prior.lungs.labels > 0).astype(np.float32)
    their_lung = _sampled(lungs, prior.lungs.grid.to_index(place), grid, outside=0.0) > 0.5
    landmarks = _landmarks(_shown(ours, median_lung_hu(current)), our_lung & covered)
    correlation, shift_mm = _found_again(
        _shown(ours, median_lung_hu(current)), _shown(theirs, median_lung_hu(prior)), landmarks
    )
    agreeing = (correlation >= _LEAST_CORRELATION) & (shift_mm <= _FOUND_WITHIN_MM)
    errors = shift_mm[agreeing]
    # Lung that the current scan does not show cannot be missed.
    shown = current.grid.contains_index(current.grid.to_index(points)).reshape(grid.shape_zyx)
    ours_covered, common = int((our_lung & covered).sum()), int((our_lung & their_lung & covered).sum())
    both = ours_covered + int((their_lung & covered & shown).sum())
    quality = AlignmentQuality(
        lung_overlap=2 * common / max(1, both),
        covered_share=ours_covered / max(1, int(our_lung.sum())),
        landmarks=len(landmarks),
        agreement=float(np.mean(agreeing)) if len(landmarks) else 0.0,
        median_error_mm=float(np.median(errors)) if len(errors) else _FOUND_WITHIN_MM,
        error_mm=float(np.quantile(errors, 0.9)) if len(errors) else _FOUND_WITHIN_MM,
    )
    return Alignment(mapping, quality, grid.to_patient(landmarks[agreeing].reshape(-1, 3)), errors)


def why_unusable(quality: AlignmentQuality) -> Notice | None:
    """Why nodules must not be compared by an alignment: the figure that is too low. None where all are high enough."""
    needed = (
        ("covered_share", quality.covered_share, _LEAST_COVERED_SHARE, "the prior covers too little of the lungs"),
        ("lung_overlap", quality.lung_overlap, _LEAST_LUNG_OVERLAP, "the lungs do not cover each other"),
        ("landmarks", float(quality.landmarks), float(_LEAST_LANDMARKS), "there are too few landmarks in the lungs"),
        ("agreement", quality.agreement, _LEAST_AGREEMENT, "too few landmarks of the lungs are found in the prior"),
    )
    for name, found, least, why in needed:
        if found < least:
            return Notice(
                "registration_failed",
                f"The scans could not be laid over each other: {why} ({name} {found:.2f}, needed {least:g}). "
                "Are they of the same patient?",
                {"figure": name, "found": round(found, 3), "needed": least},
            )
    return None


def _sampled(values: NDArray[np.float32], index: FloatArray, grid: Grid, outside: float) -> NDArray[np.float32]:
    found = map_coordinates(values, index.T, order=1, mode="constant", cval=outside, output=np.float32)
    return np.asarray(found.reshape(grid.shape_zyx))


def _shown(hu: NDArray[np.float32], median_hu: float) -> NDArray[np.float32]:
    """HU above the lung's median, cut where lung ends: a rib must not outweigh a vessel."""
    return np.asarray(np.clip(hu - np.float32(median_hu), -100.0, 400.0))


def _landmarks(values: NDArray[np.float32], is_lung: NDArray[np.bool_]) -> NDArray[np.int_]:
    """(n, 3) indices of the places with most structure in every direction, one for each cell of the lung."""
    inner = binary_erosion(is_lung, np.ones((3, 3, 3)), iterations=_PATCH)
    margin = _PATCH + _SEARCH
    inner[:margin] = inner[-margin:] = inner[:, :margin] = inner[:, -margin:] = False
    inner[:, :, :margin] = inner[:, :, -margin:] = False
    strength = np.where(inner, _least_structure(gaussian_filter(values, 0.7)), -1.0)
    pads = [(0, -n % _CELL) for n in strength.shape]
    padded = np.pad(strength, pads, constant_values=-1.0)
    cells = [n // _CELL for n in padded.shape]
    blocks = padded.reshape(cells[0], _CELL, cells[1], _CELL, cells[2], _CELL).transpose(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(-1, _CELL**3)
    best = blocks.argmax(axis=1)
    kept = np.flatnonzero(blocks[np.arange(len(blocks)), best] > _LEAST_STRENGTH)
    corner = np.stack(np.unravel_index(kept, cells), axis=1) * _CELL
    return np.asarray(corner + np.stack(np.unravel_index(best[kept], (_CELL,) * 3), axis=1))


def _least_structure(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Foerstner's measure in three dimensions, det(S) / trace(adj(S)): high only with edges in all directions."""
    z, y, x = np.gradient(values)
    zz, yy, xx, zy, zx, yx = (gaussian_filter(a * b, 1.5) for a, b in ((z, z), (y, y), (x, x), (z, y), (z, x), (y, x)))
    minors = (yy * xx - yx**2, zz * xx - zx**2, zz * yy - zy**2)
    determinant = zz * minors[0] - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx)
    return np.asarray(determinant / (minors[0] + minors[1] + minors[2] + np.float32(1e-3)))


def _found_again(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], landmarks: NDArray[np.int_]
) -> tuple[FloatArray, FloatArray]:
    """(n,) best correlation of each landmark around its place, and (n,) how far away in mm that was."""
    correlations, shifts = np.zeros(len(landmarks)), np.zeros(len(landmarks))
    for n, (z, y, x) in enumerate(landmarks.tolist()):
        near = _PATCH + _SEARCH
        patch = ours[z - _PATCH : z + _PATCH + 1, y - _PATCH : y + _PATCH + 1, x - _PATCH : x + _PATCH + 1]
        around = theirs[z - near : z + near + 1, y - near : y + near + 1, x - near : x + near + 1]
        windows = sliding_window_view(around, patch.shape).reshape(-1, patch.size)
        centred = windows - windows.mean(axis=1, keepdims=True)
        wanted = (patch - patch.mean()).ravel()
        norm = np.linalg.norm(centred, axis=1) * np.linalg.norm(wanted)
        likeness = (centred @ wanted / (norm + 1e-3)).reshape((2 * _SEARCH + 1,) * 3)
        peak = np.unravel_index(int(likeness.argmax()), likeness.shape)
        correlations[n] = likeness[peak]
        offset = [peak[a] - _SEARCH + _subvoxel(likeness, peak, a) for a in range(3)]
        shifts[n] = float(np.linalg.norm(offset)) * _SPACING_MM
    return correlations, shifts


def _subvoxel(likeness: FloatArray, peak: tuple[np.intp, ...], axis: int) -> float:
    """Top of the parabola through the peak and its two neighbours, in voxels; 0 at the border."""
    here = int(peak[axis])
    if here in (0, likeness.shape[axis] - 1):
        return 0.0
    low, middle, high = (float(likeness[(*peak[:axis], here + step, *peak[axis + 1 :])]) for step in (-1, 0, 1))
    bend = low - 2 * middle + high
    return 0.0 if bend >= 0 else 0.5 * (low - high) / bend
