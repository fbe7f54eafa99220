"""Coded concepts (PS3.16, SNOMED CT, UCUM), written once for SR, SEG and FHIR."""

from __future__ import annotations

from typing import NamedTuple

from app.inference.findings import Nodule
from app.reporting.size_change import SizeChange


class Concept(NamedTuple):
    """A code with its scheme's designator in DICOM."""

    value: str
    scheme: str
    meaning: str


NODULE = Concept("27925004", "SCT", "Nodule")
MORPHOLOGICALLY_ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
LUNG = Concept("39607008", "SCT", "Lung")
LATERALITY = {"left": Concept("7771000", "SCT", "Left"), "right": Concept("24028007", "SCT", "Right")}
LOBES = {
    "upper": Concept("45653009", "SCT", "Upper lobe of lung"),
    "middle": Concept("72481006", "SCT", "Middle lobe of right lung"),
    "lower": Concept("90572001", "SCT", "Lower lobe of lung"),
}
KINDS = {
    "solid": Concept("RID50151", "RADLEX", "Solid pulmonary nodule"),
    "part_solid": Concept("RID50152", "RADLEX", "Part-solid pulmonary nodule"),
    "ground_glass": Concept("RID50153", "RADLEX", "Non-solid pulmonary nodule"),
}
"""Composition; calcified has no such code and is told in words."""
COMPOSITION = Concept("RDE1301", "RADELEMENT", "Composition")

LONG_AXIS = Concept("103339001", "SCT", "Long axis")
SHORT_AXIS = Concept("103340004", "SCT", "Short axis")
DIAMETER = Concept("81827009", "SCT", "Diameter")
VOLUME = Concept("118565006", "SCT", "Volume")
MEAN_DENSITY = Concept("112181", "DCM", "Mean Attenuation Coefficient")
CERTAINTY = Concept("111012", "DCM", "Certainty of Finding")
PROBABILITY_OF_CANCER = Concept("111047", "DCM", "Probability of cancer")
ATTENUATION = Concept("112031", "DCM", "Attenuation Coefficient")
MINIMUM = Concept("255605001", "SCT", "Minimum")
MAXIMUM = Concept("56851009", "SCT", "Maximum")

PRIVATE = "99LUNGNODULE"
"""Where DICOM has no code."""
SOLID_DIAMETER = Concept("SOLIDDIAMETER", PRIVATE, "Mean diameter of the solid component")
VOLUME_LOW = Concept("VOLUMELOW", PRIVATE, "Volume, lower end of the 95 % interval")
VOLUME_HIGH = Concept("VOLUMEHIGH", PRIVATE, "Volume, upper end of the 95 % interval")
MASS = Concept("MASS", PRIVATE, "Mass from attenuation")
VOLUME_CHANGE = Concept("VOLUMECHANGE", PRIVATE, "Change of volume since the prior")
DOUBLING_TIME = Concept("DOUBLINGTIME", PRIVATE, "Volume doubling time")
LUNG_RADS = Concept("LUNGRADS2022", PRIVATE, "Lung-RADS v2022 category")
DECISION = Concept("REVIEWDECISION", PRIVATE, "Decision of the reviewer")
DECISIONS = {
    "accepted": Concept("ACCEPTED", PRIVATE, "Accepted as a nodule"),
    "rejected": Concept("REJECTED", PRIVATE, "Rejected: not a nodule"),
    "undecided": Concept("UNDECIDED", PRIVATE, "Not decided"),
    "added": Concept("ADDED", PRIVATE, "Added by the reviewer"),
}
SPICULATION = Concept("C28749", "NCIt", "Spiculation")
SIGNS = {"calcification": Concept("C3672", "NCIt", "Calcification"), "fat": Concept("FAT", PRIVATE, "Fat")}
SIZE = Concept("RDE1302", "RADELEMENT", "Size")

BOUNDED_BY = Concept("75958009", "SCT", "Bounded by")
SUM_OF_VOXELS = Concept("126030", "DCM", "Sum of segmented voxel method for volume")

MM = Concept("mm", "UCUM", "mm")
MM3 = Concept("mm3", "UCUM", "cubic millimeter")
HU = Concept("[hnsf'U]", "UCUM", "Hounsfield unit")
MG = Concept("mg", "UCUM", "milligram")
DAYS = Concept("d", "UCUM", "day")
PERCENT = Concept("%", "UCUM", "Percent")

CHEST_CT = Concept("24627-2", "LN", "CT Chest")


class Quantity(NamedTuple):
    """One figure of a nodule, rounded to what it can mean."""

    name: Concept
    value: float
    unit: Concept
    derivation: Concept | None = None
    """Which of many values it is."""


def finding_site(nodule: Nodule) -> Concept:
    """The lobe where it is known, else the lung; the side is said apart."""
    lobe = nodule.location.lobe if nodule.location else None
    return LOBES.get(lobe or "", LUNG)


def quantities(nodule: Nodule) -> list[Quantity]:
    """What was measured on a nodule, the certainties last."""
    measured = [
        Quantity(LONG_AXIS, round(nodule.long_axis_mm, 2), MM),
        Quantity(SHORT_AXIS, round(nodule.short_axis_mm, 2), MM),
        Quantity(DIAMETER, round(nodule.diameter_mm, 2), MM),
    ]
    low, high = nodule.volume_interval_mm3 or (None, None)
    further = (
        (VOLUME, nodule.volume_mm3, MM3, None),
        (VOLUME_LOW, low, MM3, None),
        (VOLUME_HIGH, high, MM3, None),
        (SOLID_DIAMETER, nodule.solid_diameter_mm, MM, None),
        (MEAN_DENSITY, nodule.mean_hu, HU, None),
        (ATTENUATION, nodule.min_hu, HU, MINIMUM),
        (ATTENUATION, nodule.max_hu, HU, MAXIMUM),
        (MASS, nodule.mass_mg, MG, None),
    )
    return [
        *measured,
        *(
            Quantity(name, round(value, 1), unit, derivation)
            for name, value, unit, derivation in further
            if value is not None
        ),
        Quantity(CERTAINTY, round(100 * nodule.probability, 2), PERCENT),
        *_malignancy(nodule.malignancy_probability),
    ]


def _malignancy(probability: float | None) -> list[Quantity]:
    return [] if probability is None else [Quantity(PROBABILITY_OF_CANCER, round(100 * probability, 2), PERCENT)]


def change_quantities(growth: SizeChange | None) -> list[Quantity]:
    """What changed since the prior; nothing where the nodule was not matched."""
    if growth is None:
        return []
    changed = [Quantity(VOLUME_CHANGE, round(growth.volume_change_percent, 1), PERCENT)]
    if growth.doubling_time_days is not None:
        changed.append(Quantity(DOUBLING_TIME, round(growth.doubling_time_days), DAYS))
    return changed


def lung_rads(category: str) -> Concept:
    """A category of Lung-RADS, for which DICOM has no code."""
    return Concept(f"LUNGRADS-{category}", PRIVATE, f"Lung-RADS {category}")


def qualities(nodule: Nodule) -> list[tuple[Concept, Concept]]:
    """Composition, margin and signs, each as far as it was told; a sign that was not found is not called absent."""
    told = []
    if kind := KINDS.get(nodule.kind or ""):
        told.append((COMPOSITION, kind))
    if nodule.is_spiculated is not None:
        told.append((SPICULATION, PRESENT if nodule.is_spiculated else ABSENT))
    return told + [(SIGNS[sign], PRESENT) for sign in nodule.signs if sign in SIGNS]
