"""All that is said of one nodule, from its outline, the scan, the lungs and the network's attributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from app.imaging.lungs import LungMask
from app.imaging.volume import CtVolume
from app.inference import measurements
from app.inference.characterisation import CharacterisedNodule
from app.inference.densities import densities, section, solid_component
from app.inference.findings import Nodule
from app.inference.location import LungSurface, locate, lung_surface
from app.inference.nodule_type import density_signs, is_spiculated, nodule_kind
from app.inference.volume_interval import volume_interval_mm3


@dataclass(frozen=True)
class Chest:
    """What nodules of one scan are measured in."""

    volume: CtVolume
    lungs: LungMask
    whole_lungs: bool = True
    """False where the scan does not show both lungs from end to end."""

    @cached_property
    def surface(self) -> LungSurface:
        """Made for the first nodule, not for a scan without any."""
        return lung_surface(self.lungs)


def measured(identifier: str, found: CharacterisedNodule, chest: Chest, malignancy_threshold: float) -> Nodule:
    """Measure one nodule.

    Parameters
    ----------
    identifier
        Its name within the answer.
    found
        Probabilities, attributes, outline.
    chest
        Scan and lungs.
    malignancy_threshold
        Of the model's manifest.
    """
    mask, volume = found.mask, chest.volume
    axes, within = measurements.axes_mm(mask), section(mask, volume)
    hu, side = densities(within), chest.lungs.side_at(found.center_lps_mm)
    signs = density_signs(within, found.attributes)
    kind = nodule_kind(found.attributes, signs)
    solid = solid_component(within) if kind == "part_solid" else None
    return Nodule(
        id=identifier,
        probability=found.probability,
        malignancy_probability=found.malignancy_probability,
        label=_label(found.malignancy_probability, malignancy_threshold),
        diameter_mm=axes.mean_mm,
        long_axis_mm=axes.long_mm,
        short_axis_mm=axes.short_mm,
        volume_mm3=measurements.volume_mm3(mask),
        center_lps_mm=found.center_lps_mm,
        box_index_zyx=measurements.box_index_zyx(mask, volume.grid),
        box_lps_mm=measurements.box_lps_mm(mask),
        slices=measurements.slice_boxes(mask, volume),
        side=side,
        mean_hu=hu.mean_hu,
        attributes=found.attributes,
        mask=mask,
        kind=kind,
        is_spiculated=is_spiculated(found.attributes),
        long_axis_3d_mm=measurements.long_axis_3d_mm(mask),
        # A sphere of the detector is no outline: how far its volume is off, nobody measured.
        volume_interval_mm3=None if mask.probability is None else volume_interval_mm3(mask),
        solid_diameter_mm=measurements.axes_mm(solid).mean_mm if solid is not None else None,
        min_hu=hu.min_hu,
        max_hu=hu.max_hu,
        mass_mg=hu.mass_mg,
        signs=signs,
        location=locate(mask, found.center_lps_mm, side, chest.surface, whole_lungs=chest.whole_lungs),
    )


def _label(malignancy_probability: float | None, threshold: float) -> str | None:
    if malignancy_probability is None:
        return None
    return "malignant" if malignancy_probability >= threshold else "benign"
