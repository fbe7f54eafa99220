"""Coded concepts (PS3.16, SNOMED CT, UCUM), written once for SR, SEG and FHIR."""

from __future__ import annotations

from typing import NamedTuple

from app.inference.findings import Nodule


class Concept(NamedTuple):
    """A code with its scheme's designator in DICOM."""

    value: str
    scheme: str
    meaning: str


NODULE = Concept("27925004", "SCT", "Nodule")
MORPHOLOGICALLY_ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
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
BOUNDED_BY = Concept("75958009", "SCT", "Bounded by")
SUM_OF_VOXELS = Concept("126030", "DCM", "Sum of segmented voxel method for volume")

MM = Concept("mm", "UCUM", "mm")
MM3 = Concept("mm3", "UCUM", "cubic millimeter")
HU = Concept("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Concept("%", "UCUM", "Percent")

CHEST_CT = Concept("24627-2", "LN", "CT Chest")


class Quantity(NamedTuple):
    """One figure of a nodule, rounded to what it can mean."""

    name: Concept
    value: float
    unit: Concept


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
        Quantity(VOLUME, round(nodule.volume_mm3, 1), MM3),
    ]
    if nodule.mean_hu is not None:
        measured.append(Quantity(MEAN_DENSITY, round(nodule.mean_hu, 1), HU))
    return [
        *measured,
        Quantity(CERTAINTY, round(100 * nodule.probability, 2), PERCENT),
        Quantity(PROBABILITY_OF_CANCER, round(100 * nodule.malignancy_probability, 2), PERCENT),
    ]
