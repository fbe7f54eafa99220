"""Lungs, airways and nodules of an answer as surfaces: what the 3-D view and a phone's camera show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.imaging.lungs import LEFT, RIGHT, SegmentedChest, segment_chest
from app.imaging.volume import CtVolume
from app.inference.findings import Findings, Nodule
from app.reporting.glb import Part, glb
from app.reporting.surfaces import surface

MOST_BYTES = 1_000_000
"""A scene is drawn coarser until it fits."""

_CELLS_MM = (4.0, 5.6, 8.0, 12.0)
_CELLS_ACROSS_A_NODULE = 14
# Colours that are told apart without red and green (Okabe and Ito).
_LUNG, _AIRWAYS = (86, 180, 233), (240, 228, 66)
_NODULE_RGB = {"benign": (0, 158, 115), "malignant": (213, 94, 0)}


def compact_parts(volume: CtVolume, findings: Findings) -> list[Part]:
    """What is shown: `lung-left`, `lung-right`, `airways` where they are found, `nodule-<id>` for each outlined nodule.

    As fine as fits into a GLB file of `MOST_BYTES`.

    Parameters
    ----------
    volume
        The scan.
    findings
        Of the scan.

    Raises
    ------
    NotChestCt
        There are no lungs.
    """
    chest = segment_chest(volume)
    parts: list[Part] = []
    for cell_mm in _CELLS_MM:
        parts = _parts(chest, findings, cell_mm)
        if len(glb(parts)) <= MOST_BYTES:
            break
    return parts


def _parts(chest: SegmentedChest, findings: Findings, cell_mm: float) -> list[Part]:
    lungs, labels = chest.lungs, chest.lungs.labels
    found = [
        ("lung-left", surface(labels == LEFT, lungs.grid, cell_mm), _LUNG, 0.25),
        ("lung-right", surface(labels == RIGHT, lungs.grid, cell_mm), _LUNG, 0.25),
        # Tubes a few voxels wide: no coarser than they are.
        ("airways", surface(chest.airways, chest.airways_grid, 0.0), _AIRWAYS, 0.6),
    ]
    parts = [Part(name, shape, rgb, opacity) for name, shape, rgb, opacity in found if shape is not None]
    return parts + nodule_parts(findings.nodules, cell_mm / _CELLS_MM[0])


def nodule_parts(nodules: Sequence[Nodule], coarser: float = 1.0) -> list[Part]:
    """The outlined nodules, by their stored masks."""
    parts = []
    for nodule in nodules:
        if nodule.mask is None:
            continue
        extent_mm = np.ptp(np.argwhere(nodule.mask.voxels), axis=0).max() * nodule.mask.grid.spacing_zyx_mm.max()
        shape = surface(nodule.mask.voxels, nodule.mask.grid, coarser * float(extent_mm) / _CELLS_ACROSS_A_NODULE)
        if shape is not None:
            extras = {
                "id": nodule.id,
                "lps_mm": [round(value, 3) for value in nodule.center_lps_mm],
                "diameter_mm": round(nodule.diameter_mm, 2),
                "label": nodule.label,
            }
            rgb = _NODULE_RGB.get(nodule.label, _NODULE_RGB["benign"])
            parts.append(Part(f"nodule-{nodule.id}", shape, rgb, 1.0, extras))
    return parts
