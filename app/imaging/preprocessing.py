"""The only place that resamples, windows or crops; training and serving both stand on it.

`preprocess` makes the lung box as an isotropic `PreparedVolume` for the detector, `sample_crops` axial slices around
given points for the characterisation network. Both work along the image's own axes, permuted and flipped to the nearest
patient axes (slices from feet to head, rows from front to back, columns from right to left). A patient who lies rotated
in the scanner therefore gives the networks the same array, and the affine carries the rotation.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.imaging.linear_resampling import InPlane, interpolate, linear_axis, resample_windowed
from app.imaging.lungs import LungMask
from app.imaging.volume import CtVolume, Directions, Grid, PreparedVolume, canonical

Spacing = Annotated[float, Field(gt=0.2, le=5.0)]

_INDEX_ROUNDING = 2.0**-16
"""Voxels: far above the error of a double's arithmetic, far below what interpolation shows."""
_TIE_DECIMALS = 6


class PreprocessingSpec(BaseModel):
    """What the detector is fed; a field of the training config, copied verbatim into the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: float = Field(default=1.0, gt=0.2, le=5.0, description="Isotropic voxel spacing in mm.")
    window_hu: tuple[float, float] = Field(
        default=(-1024.0, 400.0), description="HU mapped linearly to 0..1; values outside are clipped."
    )
    lung_margin_mm: float = Field(default=6.0, ge=0.0, description="Margin kept around the lungs in mm.")
    shape_multiple: int = Field(
        default=16, ge=1, description="Every axis of the prepared array is padded to a multiple of this."
    )
    spacing_zyx_mm: tuple[Spacing, Spacing, Spacing] | None = Field(
        default=None, description="Voxel spacing along z, y and x in mm, in place of spacing_mm; null: isotropic."
    )
    extent: Literal["lungs", "scan"] = Field(
        default="lungs",
        description="What is prepared: the box around the lungs, or the whole scan from its first voxel on, with "
        "the scan's edge repeated where the last voxel lies beyond it.",
    )
    directions_zyx: Directions = Field(
        default="SPL",
        description="Where z, y and x of the prepared array run: superior, posterior, left, or as NIfTI's RAS does.",
    )

    @model_validator(mode="after")
    def _window_is_ordered(self) -> PreprocessingSpec:
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError(f"window_hu must be (low, high), got {self.window_hu}")
        return self

    @property
    def voxel_zyx_mm(self) -> NDArray[np.float64]:
        """(3,) spacing of the prepared array along z, y, x in mm."""
        return np.array((self.spacing_mm,) * 3 if self.spacing_zyx_mm is None else self.spacing_zyx_mm)

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON of the spec; what came later and is not used does not count."""
        said = self.model_dump(mode="json")
        for name in ("spacing_zyx_mm", "extent", "directions_zyx"):
            if getattr(self, name) == type(self).model_fields[name].default:
                del said[name]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class CropSpec(BaseModel):
    """What the characterisation network is fed: axial slices through a candidate, in mm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: float = Field(default=0.7, gt=0.1, le=3.0, description="In-plane pixel spacing of the crop in mm.")
    size_px: int = Field(default=64, ge=8, description="Rows and columns of the crop.")
    slice_offsets_mm: tuple[float, ...] = Field(
        default=(-1.5, 0.0, 1.5),
        min_length=1,
        description="Where slices are taken, in mm along the slice axis from the candidate; the nearest slice is used.",
    )
    window_hu: tuple[float, float] = Field(default=(-1000.0, 400.0), description="HU mapped linearly to 0..1.")
    along_z: Literal["nearest", "linear"] = Field(
        default="nearest", description="The nearest slice of the scan, or a mixture of the two that lie around."
    )


def preprocess(
    volume: CtVolume, lungs: LungMask | None, spec: PreprocessingSpec, *, threads: int = 2
) -> PreparedVolume:
    """Crop to the lungs unless the whole scan is asked for, resample and window, in one pass.

    Parameters
    ----------
    volume
        CT in HU, any orientation and spacing.
    lungs
        Lung mask of the same volume. None only where ``spec.extent`` is ``scan``; then ``in_lungs`` is None too.
    spec
        Spacing, window, extent, margin.
    threads
        Worker threads; the result is bit-identical for any number.

    Returns
    -------
    PreparedVolume
        float32 in 0..1, axes nearest to ``spec.directions_zyx``; outside the scan and in the padding it is 0 (air).

    Raises
    ------
    ValueError
        If there are no lungs to crop to.
    """
    hu, grid = canonical(volume, spec.directions_zyx)
    step = spec.voxel_zyx_mm / grid.spacing_zyx_mm
    if spec.extent == "scan":
        low, length = np.zeros(3), _whole_lengths(grid, step)
    elif lungs is None:
        raise ValueError("preprocess needs a lung mask to crop to the lungs")
    else:
        low, high = _lung_box_index(lungs, grid, spec.lung_margin_mm)
        # Written with both spacings: the last digits of the quotient are what models in the field were trained with.
        steps = (high - low) * grid.spacing_zyx_mm / spec.voxel_zyx_mm
        length = [int(np.ceil(n - _INDEX_ROUNDING)) + 1 for n in steps]
    depth, height, width = (-(-n // spec.shape_multiple) * spec.shape_multiple for n in length)
    shape = (depth, height, width)
    axes = [linear_axis(low[i] + np.arange(shape[i]) * step[i], hu.shape[i]) for i in range(3)]
    if spec.extent == "scan":
        axes = [replace(axis, inside=np.arange(shape[i]) < length[i]) for i, axis in enumerate(axes)]
    values = resample_windowed(hu, axes, spec.window_hu, threads)
    affine = np.eye(4)
    affine[:3, :3] = grid.affine[:3, :3] * step
    affine[:3, 3] = grid.to_patient(low)
    prepared_grid = Grid(shape, affine)
    in_lungs = None if lungs is None else lungs.widened_on(prepared_grid, spec.lung_margin_mm)
    return PreparedVolume(values, prepared_grid, spec.digest, in_lungs=in_lungs)


def _whole_lengths(grid: Grid, step: NDArray[np.float64]) -> list[int]:
    """Voxels along each axis from the scan's first voxel on, whose last is nearest to the scan's last.

    Where two are as near, their number is the even one: the rule of MONAI, whose networks are fed so. Spacings of an
    oblique scan come with rounding errors, which must not decide it.
    """
    lengths = [(n - 1) / s + 1 for n, s in zip(grid.shape_zyx, step, strict=True)]
    return [int(np.rint(np.round(length, _TIE_DECIMALS))) for length in lengths]


def sample_crops(
    volume: CtVolume,
    centers_lps_mm: ArrayLike,
    spec: CropSpec,
    *,
    slice_offsets_mm: tuple[float, ...] | None = None,
) -> NDArray[np.float32]:
    """Axial slices around points: nearest slice along z (or linear), bilinear in-plane, windowed to 0..1.

    Parameters
    ----------
    volume
        CT in HU, any orientation and spacing.
    centers_lps_mm
        (n, 3) points in patient LPS mm.
    spec
        Crop size, spacing, window.
    slice_offsets_mm
        Overrides ``spec.slice_offsets_mm``, e.g. to read a whole nodule slice by slice.

    Returns
    -------
    numpy.ndarray
        float32 (n, slices, size_px, size_px); the point lies at index ``size_px // 2`` of rows and columns.
        Outside the scan the edge is repeated along z and the value is 0 (air) in-plane.
    """
    hu, grid = canonical(volume)
    centers = grid.to_index(np.atleast_2d(np.asarray(centers_lps_mm, dtype=np.float64)))
    offsets = np.asarray(spec.slice_offsets_mm if slice_offsets_mm is None else slice_offsets_mm)
    spacing = grid.spacing_zyx_mm
    pixels = (np.arange(spec.size_px) - spec.size_px // 2) * spec.spacing_mm
    crops = np.empty((len(centers), len(offsets), spec.size_px, spec.size_px), np.float32)
    for n, center in enumerate(centers):
        in_plane = InPlane(
            linear_axis(center[1] + pixels / spacing[1], hu.shape[1]),
            linear_axis(center[2] + pixels / spacing[2], hu.shape[2]),
        )
        at = center[0] + offsets / spacing[0]
        along_z = linear_axis(at if spec.along_z == "linear" else np.floor(at + 0.5), hu.shape[0])
        for s, z in enumerate(along_z.lower):
            plane = hu[z][in_plane.touched].astype(np.float32)
            if along_z.weight[s] > 0:
                above = hu[along_z.upper[s]][in_plane.touched].astype(np.float32)
                plane = interpolate(plane, above, along_z.weight[s], out=above)
            in_plane.sample(plane, spec.window_hu, out=crops[n, s])
    return crops


def sample_stack(
    volume: CtVolume, center_lps_mm: ArrayLike, half_depth_mm: float, spec: CropSpec
) -> tuple[NDArray[np.float32], Grid]:
    """Every slice of the scan around one point, cut and windowed as `sample_crops` does, and where the voxels lie.

    Parameters
    ----------
    volume
        CT in HU, any orientation and spacing.
    center_lps_mm
        (3,) point in patient LPS mm.
    half_depth_mm
        How far the stack reaches to both sides of the point; it ends at the scan's first and last slice.
    spec
        Crop size, spacing, window.

    Returns
    -------
    values, grid
        float32 (slices, size_px, size_px), at least one slice, and its grid: one step along z is one slice of the
        scan, rows and columns are ``spec.spacing_mm`` apart.
    """
    hu, grid = canonical(volume)
    center = grid.to_index(center_lps_mm)
    step = spec.spacing_mm / grid.spacing_zyx_mm
    reach = half_depth_mm / grid.spacing_zyx_mm[0]
    first, last = np.clip(np.floor(center[0] + np.array((-reach, reach)) + 0.5), 0, hu.shape[0] - 1).astype(int)
    offsets = (np.arange(first, last + 1) - center[0]) * grid.spacing_zyx_mm[0]
    values = sample_crops(volume, center_lps_mm, spec, slice_offsets_mm=tuple(offsets))[0]
    affine = np.eye(4)
    affine[:3, :3] = grid.affine[:3, :3] * (1.0, step[1], step[2])
    affine[:3, 3] = grid.to_patient((first, *(center[1:] - spec.size_px // 2 * step[1:])))
    return values, Grid(values.shape, affine)


def _lung_box_index(lungs: LungMask, grid: Grid, margin_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last continuous index (z, y, x) of the lung box on ``grid``, widened and clipped to the scan."""
    corners = grid.to_index(lungs.box_corners_lps_mm())
    margin = margin_mm / grid.spacing_zyx_mm
    # Rounded, so that the last digits of an oblique affine decide neither a weight nor the length of an axis.
    low = np.round(np.maximum(corners.min(axis=0) - margin, 0.0) / _INDEX_ROUNDING) * _INDEX_ROUNDING
    high = np.minimum(corners.max(axis=0) + margin, np.asarray(grid.shape_zyx) - 1.0)
    return low, np.maximum(high, low)
