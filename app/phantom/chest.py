"""A synthetic chest CT with nodules whose place and size are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import ArrayLike, NDArray

from app.imaging.volume import CtVolume, Grid
from app.phantom.anatomy import AIR_HU, FAT_HU
from app.phantom.atlas import CHANNELS, AtlasImages, build_atlas
from app.phantom.nodules import NoduleShape, NoduleSpec, TrueNodule, draw_specs, find_place, make_shape, paint_nodule
from app.phantom.noise import correlated_slices
from app.phantom.painting import blur_variance_mm2, paint_tubes
from app.phantom.vessels import Tubes, joined, lung_vessels

CENTER_MM = (0.0, 18.0, -10.0)
"""The point of the phantom, in its own frame, that lies in the middle of the grid."""
LUNG_HU, VESSEL_HU, LUMEN_HU = -882.0, 42.0, -985.0
_SLAB_SLICES = 12


@dataclass(frozen=True)
class PhantomCt:
    """A phantom and the truth about it."""

    volume: CtVolume
    nodules: tuple[TrueNodule, ...]


def phantom_ct(
    *,
    shape_zyx: tuple[int, int, int] = (64, 128, 128),
    spacing_zyx_mm: ArrayLike = (5.0, 3.5, 3.5),
    direction_lps_zyx: ArrayLike | None = None,
    origin_lps_mm: ArrayLike | None = None,
    patient_rotation: ArrayLike | None = None,
    nodules: Sequence[NoduleSpec] | None = None,
    nodule_count: int = 3,
    noise_hu: float = 30.0,
    seed: int = 0,
) -> PhantomCt:
    """Make a chest CT phantom; the same arguments give the same voxels.

    Parameters
    ----------
    shape_zyx, spacing_zyx_mm, direction_lps_zyx
        The scan's grid. The patient stands upright in LPS whatever the direction, so a flipped or permuted grid gives a
        flipped or permuted array of the same chest.
    origin_lps_mm
        LPS position of voxel (0, 0, 0); the chest moves with it and stays in the middle of the grid.
    patient_rotation
        3x3 rotation of the patient in LPS about the middle of the grid. Given to the grid's direction too, it gives the
        same array with rotated direction cosines.
    nodules
        What to put in; where `NoduleSpec.center_lps_mm` is None a place in the lung is found. None draws
        ``nodule_count`` of mixed kinds, the first solid, 12 mm.
    noise_hu
        Standard deviation of the noise in soft tissue; 0 gives a noise-free volume. LIDC-IDRI scans show 12 to 80.
    seed
        Of everything random. Vessels, nodules and noise do not depend on one another's number of draws.

    Returns
    -------
    PhantomCt
        Volume without DICOM identity, and the nodules in the order asked for.

    Raises
    ------
    ValueError
        If the direction or rotation is not orthonormal, or the lung in the grid has no room for the nodules.
    """
    direction = (
        np.eye(3)[:, ::-1] if direction_lps_zyx is None else _orthonormal("direction_lps_zyx", direction_lps_zyx)
    )
    rotation = np.eye(3) if patient_rotation is None else _orthonormal("patient_rotation", patient_rotation)
    spacing = np.asarray(spacing_zyx_mm, dtype=np.float64)
    half = direction * spacing @ ((np.asarray(shape_zyx) - 1) / 2.0)
    origin = -half if origin_lps_mm is None else np.asarray(origin_lps_mm, dtype=np.float64)
    grid = Grid.from_spacing(shape_zyx, spacing, origin, direction)
    # Everything is drawn in the patient's own frame, on a grid that places the voxels there.
    to_patient = np.eye(4)
    to_patient[:3, :3] = rotation.T
    to_patient[:3, 3] = np.asarray(CENTER_MM) - rotation.T @ (origin + half)
    own_grid = Grid(shape_zyx, to_patient @ grid.affine)

    streams = [np.random.default_rng([seed, n]) for n in range(4)]
    vessels, airways, lumens = lung_vessels(streams[0])
    specs = draw_specs(streams[1], nodule_count) if nodules is None else tuple(nodules)
    shapes = _place_nodules(streams[1], specs, vessels, own_grid, to_patient)
    hu = _clean_hu(streams[2], own_grid, joined(vessels, airways, *(s.spicules for s in shapes)), lumens)
    for shape in shapes:
        paint_nodule(shape, own_grid, hu)
    if noise_hu > 0:
        _add_noise(streams[3], hu, own_grid, noise_hu)
    from_patient = np.linalg.inv(to_patient)
    truth = tuple(_truth(spec, shape, from_patient) for spec, shape in zip(specs, shapes, strict=True))
    return PhantomCt(CtVolume(hu, grid), truth)


def _orthonormal(name: str, matrix: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape != (3, 3) or not np.allclose(array.T @ array, np.eye(3), atol=1e-6):
        raise ValueError(f"{name} must be a 3x3 matrix with orthonormal columns")
    return array


def _place_nodules(
    rng: np.random.Generator, specs: Sequence[NoduleSpec], vessels: Tubes, grid: Grid, to_patient: NDArray[np.float64]
) -> list[NoduleShape]:
    shapes: list[NoduleShape] = []
    taken = np.zeros((0, 4))
    for spec in specs:
        if spec.center_lps_mm is None:
            centre = find_place(rng, spec, vessels, taken, grid)
        else:
            centre = to_patient[:3, :3] @ np.asarray(spec.center_lps_mm) + to_patient[:3, 3]
        shapes.append(make_shape(rng, spec, centre))
        taken = np.concatenate([taken, [[*centre, spec.diameter_mm / 2.0]]])
    return shapes


def _truth(spec: NoduleSpec, shape: NoduleShape, from_patient: NDArray[np.floating]) -> TrueNodule:
    x, y, z = (float(v) for v in from_patient[:3, :3] @ shape.center_mm + from_patient[:3, 3])
    volume = np.pi / 6.0 * spec.diameter_mm**3
    return TrueNodule((x, y, z), spec.diameter_mm, spec.kind, float(volume), spec.margin, spec.site)


def _clean_hu(rng: np.random.Generator, grid: Grid, solid: Tubes, lumens: Tubes) -> NDArray[np.int16]:
    """Noise-free chest without nodule bodies, a slab of slices at a time."""
    tissue, lumen = (np.zeros(grid.shape_zyx, np.uint8) for _ in range(2))
    paint_tubes(solid, grid, tissue)
    paint_tubes(lumens, grid, lumen)
    atlas = build_atlas(rng, grid)
    hu = np.empty(grid.shape_zyx, np.int16)
    # A ramp a little narrower than one of the same variance: closer to the middle of a Gaussian edge.
    edge_mm = np.float32(np.sqrt(8.0 * np.trace(blur_variance_mm2(grid)) / 3.0))
    for start in range(0, len(hu), _SLAB_SLICES):
        slab = slice(start, min(start + _SLAB_SLICES, len(hu)))
        for z, fields in enumerate(zip(*_resampled(atlas, grid, slab), strict=True), start):
            values = _slice_hu(dict(zip(CHANNELS, fields, strict=True)), edge_mm)
            values += tissue[z] * np.float32(1 / 255) * np.maximum(np.float32(VESSEL_HU) - values, 0.0)
            values += lumen[z] * np.float32(1 / 255) * (np.float32(LUMEN_HU) - values)
            hu[z] = np.rint(values, out=values)
    return hu


def _resampled(atlas: AtlasImages, grid: Grid, slab: slice) -> list[NDArray[np.float32]]:
    """Each channel of the atlas on some slices of the grid."""
    size = (grid.shape_zyx[2], grid.shape_zyx[1], slab.stop - slab.start)
    geometry: dict[str, Any] = {
        "outputOrigin": [float(v) for v in grid.to_patient((slab.start, 0, 0))],
        "outputSpacing": [float(v) for v in grid.spacing_zyx_mm[::-1]],
        "outputDirection": [float(v) for v in grid.direction_lps_zyx[:, ::-1].ravel()],
    }
    resampled = (SimpleITK.Resample(image, size, **geometry, defaultPixelValue=outside) for image, outside in atlas)
    return [np.asarray(SimpleITK.GetArrayFromImage(image), dtype=np.float32) for image in resampled]


def _share(distance_mm: NDArray[np.float32], edge_mm: np.float32) -> NDArray[np.float32]:
    """Share of a voxel inside a surface, from the signed distance of its centre."""
    return np.asarray(np.clip(distance_mm / edge_mm + np.float32(0.5), 0.0, 1.0), dtype=np.float32)


def _slice_hu(fields: dict[str, NDArray[np.float32]], edge_mm: np.float32) -> NDArray[np.float32]:
    """Fat, lean tissue, bone, then lung over them and air around them."""
    values = FAT_HU + _share(fields["lean"], edge_mm) * (fields["lean_hu"] - np.float32(FAT_HU))
    # Compact bone outside, spongy bone within.
    bone_hu = 720.0 - 480.0 * np.clip((fields["bone"] - 1.2) / 1.5, 0.0, 1.0)
    values += _share(fields["bone"], edge_mm) * (bone_hu - values)
    values += fields["texture"] * np.float32(0.35)
    values += _share(fields["lung"], edge_mm) * (LUNG_HU + fields["lung_hu"] + fields["texture"] - values)
    values -= (1.0 - _share(fields["body"], edge_mm)) * (values - np.float32(AIR_HU))
    return np.asarray(values, dtype=np.float32)


def _add_noise(rng: np.random.Generator, hu: NDArray[np.int16], grid: Grid, noise_hu: float) -> None:
    """Add noise that is weaker in lung and weakest in the air around the patient."""
    spacing = grid.spacing_zyx_mm
    slices = correlated_slices(rng, grid.shape_zyx, (float(spacing[1]), float(spacing[2])))
    for plane, noise in zip(hu, slices, strict=True):
        clean = plane.astype(np.float32)
        strength = 0.35 + 0.5 * np.clip((clean + 1000.0) / 120.0, 0, 1) + 0.15 * np.clip((clean + 800.0) / 800.0, 0, 1)
        plane[...] = np.clip(np.rint(clean + np.float32(noise_hu) * strength * noise), -1024, 3071)
