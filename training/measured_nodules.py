"""LIDC nodules measured as the service measures them, by a shipped model, beside what the readers say.

The stacks hold the slices that readers outlined and no more, so an outline of the network cannot run on above or below.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.preprocessing import CropSpec
from app.imaging.volume import CtVolume, Grid
from app.inference.densities import calcium_mm3, densities, fat_mm3, section
from app.inference.findings import NoduleMask
from app.inference.measurements import axes_mm, long_axis_3d_mm, volume_mm3
from app.inference.model_store import LoadedModel
from app.inference.nodule_type import density_signs, is_spiculated, nodule_kind
from app.inference.volume_interval import outline_doubt, volume_interval_mm3, voxel_share
from training import nodule_blocks
from training.hu_calibration import calibrate
from training.nodule_stacks import READERS, NoduleStacks, load_nodule_stacks

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredNodules:
    """One entry for each nodule.

    Parameters
    ----------
    texture, spiculation, calcification
        Readers' mean ratings: 1 to 5, calcification 1 to 6 (none).
    texture_said, spiculation_said, calcification_said
        The network's attributes, 0 to 1.
    mean_hu, calcium_mm3, fat_mm3
        Within the network's outline.
    kind_found, signs_found, spiculated_found
        The service's answer; signs joined by a space.
    diameter_mm, volume_mm3, long_axis_3d_mm
        Of the network's outline; with ``reference_`` of the readers' majority.
    exact_hu
        The HU of its middle slice are known, not estimated.
    """

    patient_id: NDArray[np.str_]
    readers: NDArray[np.int64]
    exact_hu: NDArray[np.bool_]
    slice_spacing_mm: FloatArray
    texture: FloatArray
    spiculation: FloatArray
    calcification: FloatArray
    texture_said: FloatArray
    spiculation_said: FloatArray
    calcification_said: FloatArray
    kind_found: NDArray[np.str_]
    signs_found: NDArray[np.str_]
    spiculated_found: NDArray[np.bool_]
    mean_hu: FloatArray
    calcium_mm3: FloatArray
    fat_mm3: FloatArray
    diameter_mm: FloatArray
    volume_mm3: FloatArray
    long_axis_3d_mm: FloatArray
    interval_low_mm3: FloatArray
    interval_high_mm3: FloatArray
    voxel_share: FloatArray
    outline_doubt: FloatArray
    reference_diameter_mm: FloatArray
    reference_volume_mm3: FloatArray
    reference_long_axis_3d_mm: FloatArray

    def of(self, patients: Collection[str]) -> MeasuredNodules:
        """Those of some patients."""
        return self.where(np.isin(self.patient_id, list(patients)))

    def where(self, chosen: NDArray[np.bool_]) -> MeasuredNodules:
        """Those for which ``chosen`` (n,) holds."""
        return MeasuredNodules(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    @property
    def kind(self) -> NDArray[np.str_]:
        """What the readers' ratings say, in the service's words."""
        rated = zip(self.texture, self.calcification, strict=True)
        return np.array([nodule_blocks.nodule_kind(t, c).replace("-", "_") for t, c in rated])


def measure_lidc(
    data: Path, model: LoadedModel, patients: Collection[str], *, at_most: int | None = None
) -> MeasuredNodules:
    """Measure the nodules of these patients; those without an outline of the network are left out.

    Parameters
    ----------
    data
        Folder with `lidc_nodule_slices.npz` and `luna16_axial_patches.npz`.
    at_most
        Every so many nodules only, to save time.
    """
    crop = model.manifest.second_stage.crop
    stacks, exact = load_nodule_stacks(data, crop), calibrate(data).exact
    rows = np.flatnonzero(np.isin(stacks.patient_id, list(patients)))
    if at_most is not None and len(rows) > at_most:
        rows = rows[np.linspace(0, len(rows) - 1, at_most).astype(int)]
    measured = [_measured(stacks, exact, int(n), model, crop) for n in rows]
    found = [row for row in measured if row is not None]
    return MeasuredNodules(**{f.name: np.array([row[f.name] for row in found]) for f in fields(MeasuredNodules)})


def _measured(
    stacks: NoduleStacks, exact: NDArray[np.bool_], n: int, model: LoadedModel, crop: CropSpec
) -> dict[str, object] | None:
    first, count, spacing = int(stacks.first_slice[n]), int(stacks.slice_count[n]), float(stacks.slice_spacing_mm[n])
    edge = (stacks.crops.shape[-1] - crop.size_px) // 2
    cut = slice(edge, edge + crop.size_px)
    values = stacks.crops[first : first + count, cut, cut].astype(np.float32) / 255
    steps = np.floor((count - 1) / 2 + np.asarray(crop.slice_offsets_mm) / spacing + 0.5)
    through_middle = np.clip(steps, 0, count - 1).astype(int)
    said = model.characteriser({"crops": values[through_middle][None]})
    probability = model.characteriser({"crops": values[None]})["mask_probability"][0]
    grid = Grid.from_spacing((count, crop.size_px, crop.size_px), (spacing, crop.spacing_mm, crop.spacing_mm))
    found, readers = _largest_part(probability >= 0.5), float(stacks.rating("NumAnnotations")[n])
    share = stacks.reader_fraction[first : first + count, cut, cut].astype(np.float32) / 255
    outlined = _largest_part(share * READERS / readers >= 0.499)
    if not found.any() or not outlined.any():
        return None  # the service would measure the detector's sphere
    mask, reference = NoduleMask(found, grid, probability), NoduleMask(outlined, grid)
    low, high = crop.window_hu
    within = section(mask, CtVolume(np.rint(values * (high - low) + low).astype(np.int16), grid))
    attributes = dict(zip(model.manifest.second_stage.attribute_names, said["attributes"][0].tolist(), strict=True))
    signs = density_signs(within, attributes)
    return {
        "patient_id": stacks.patient_id[n],
        "readers": int(readers),
        "exact_hu": bool(exact[first + through_middle].any()),
        "slice_spacing_mm": spacing,
        **{name: float(stacks.rating(name.capitalize())[n]) for name in ("texture", "spiculation", "calcification")},
        **{f"{name}_said": float(attributes[name]) for name in ("texture", "spiculation", "calcification")},
        "kind_found": str(nodule_kind(attributes, signs)),
        "signs_found": " ".join(signs),
        "spiculated_found": bool(is_spiculated(attributes)),
        "mean_hu": densities(within).mean_hu,
        "calcium_mm3": calcium_mm3(within),
        "fat_mm3": fat_mm3(within),
        "interval_low_mm3": volume_interval_mm3(mask)[0],
        "interval_high_mm3": volume_interval_mm3(mask)[1],
        "voxel_share": voxel_share(mask),
        "outline_doubt": outline_doubt(mask),
        **_sizes(mask, ""),
        **_sizes(reference, "reference_"),
    }


def _sizes(mask: NoduleMask, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}diameter_mm": axes_mm(mask).mean_mm,
        f"{prefix}volume_mm3": volume_mm3(mask),
        f"{prefix}long_axis_3d_mm": long_axis_3d_mm(mask),
    }


def _largest_part(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(inside)
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])) if count else inside
