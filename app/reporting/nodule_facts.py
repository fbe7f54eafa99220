"""What guidelines and risk models ask of a nodule, whoever measured it; all of it may be missing."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.reporting.answers import MissingInput, lacks
from app.reporting.clinical_context import Input, Told

Kind = Literal["solid", "part_solid", "ground_glass", "calcified"]
Change = Literal["new", "growing", "slowly_growing", "stable", "decreased"]
LungRadsCategory = Literal["1", "2", "3", "4A", "4B", "4X"]
Diameter = Annotated[float, Field(gt=0, le=300)]
Volume = Annotated[float, Field(gt=0, le=1e7)]
Interval = tuple[Volume, Volume]

GROWTH_MM = 1.5
"""Lung-RADS v2022: more than this within twelve months is growth."""
_YEAR_DAYS = 365.0


class EarlierNodule(Input):
    """The same nodule on an earlier CT."""

    interval_days: float = Field(gt=0, le=36_500, description="Days between the two CTs.")
    mean_diameter_mm: Diameter | None = Field(default=None, description="Mean of long and short axis, in mm.")
    solid_diameter_mm: Annotated[float, Field(ge=0, le=300)] | None = Field(
        default=None, description="Mean diameter of the solid component, in mm; 0 where there was none."
    )
    volume_mm3: Volume | None = Field(default=None, description="Volume, in mm3.")
    volume_interval_mm3: Interval | None = Field(default=None, description="95 % interval of the volume, in mm3.")
    lung_rads_category: LungRadsCategory | None = Field(default=None, description="Its Lung-RADS category then.")


class NoduleFacts(Input):
    """One nodule as it is told, or as it was measured in a scan."""

    id: str = Field(default="nodule-1", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Name within the request.")
    kind: Kind | None = Field(default=None, description="solid, part_solid, ground_glass or calcified.")
    long_axis_mm: Diameter | None = Field(default=None, description="Longest axis, in mm.")
    short_axis_mm: Diameter | None = Field(default=None, description="Longest extent across it, in mm.")
    mean_diameter_mm: Diameter | None = Field(
        default=None, description="Mean of long and short axis, in mm; used where the axes are not told."
    )
    solid_diameter_mm: Annotated[float, Field(ge=0, le=300)] | None = Field(
        default=None, description="Mean diameter of the solid component of a part-solid nodule, in mm."
    )
    volume_mm3: Volume | None = Field(default=None, description="Volume, in mm3.")
    volume_interval_mm3: Interval | None = Field(default=None, description="95 % interval of the volume, in mm3.")
    lobe: Literal["upper", "middle", "lower"] | None = Field(default=None, description="Lobe; lingula is upper.")
    is_spiculated: Told = Field(default=None, description="Spiculated margin.")
    is_smooth: Told = Field(default=None, description="Smooth margin.")
    is_juxtapleural: Told = Field(default=None, description="At the pleura or a fissure.")
    shape: Literal["oval", "lentiform", "triangular", "other"] | None = Field(default=None, description="Shape.")
    has_benign_calcification: Told = Field(
        default=None, description="Complete, central, popcorn or concentric-ring calcification."
    )
    has_fat: Told = Field(default=None, description="Macroscopic fat.")
    is_proven_benign: Told = Field(default=None, description="Benign by biopsy or another proof.")
    lesion: Literal[
        "nodule", "airway_subsegmental", "airway_segmental_or_proximal", "cyst_thick_walled", "cyst_multilocular"
    ] = Field(default="nodule", description="A nodule of the lung, or one of the lesions that Lung-RADS treats apart.")
    cyst_change: Literal["growing_cystic_part", "growing_wall", "became_multilocular", "growing", "denser", "none"] | (
        None
    ) = Field(default=None, description="How a cyst has changed since the earlier CT.")
    suspicious_features: list[Literal["lymphadenopathy", "metastasis", "ground_glass_doubled_in_a_year", "other"]] = (
        Field(default_factory=list, max_length=4, description="What beside size makes it more suspicious.")
    )
    change: Change | None = Field(
        default=None, description="Against the earlier CT, as a reader judged it; wins over what `earlier` would give."
    )
    solid_component_change: Literal["new", "growing", "stable", "decreased"] | None = Field(
        default=None, description="The same for the solid component."
    )
    earlier: EarlierNodule | None = Field(default=None, description="The same nodule on an earlier CT.")

    @model_validator(mode="after")
    def _agree(self) -> NoduleFacts:
        if self.long_axis_mm is not None and self.short_axis_mm is not None and self.short_axis_mm > self.long_axis_mm:
            raise ValueError("short_axis_mm must not exceed long_axis_mm")
        for told in (self, self.earlier):
            interval = told.volume_interval_mm3 if told else None
            if told and interval and not interval[0] <= (told.volume_mm3 or interval[0]) <= interval[1]:
                raise ValueError("volume_interval_mm3 must be (low, high) around volume_mm3")
        if self.change == "new" and self.earlier is not None:
            raise ValueError("a new nodule has no earlier measurement")
        return self


def half_up(value: float, digits: int) -> float:
    """Round as a reader does, 7.95 to 8.0, where binary fractions and bankers' rounding would give 7.9."""
    return float(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def mean_diameter_0_1mm(nodule: NoduleFacts) -> float | None:
    """Mean diameter in mm as Lung-RADS v2022 asks: each axis to one decimal, their mean to one decimal."""
    if nodule.long_axis_mm is not None and nodule.short_axis_mm is not None:
        return half_up((half_up(nodule.long_axis_mm, 1) + half_up(nodule.short_axis_mm, 1)) / 2, 1)
    return None if nodule.mean_diameter_mm is None else half_up(nodule.mean_diameter_mm, 1)


def mean_diameter_whole_mm(nodule: NoduleFacts) -> int | None:
    """Mean diameter as Fleischner 2017 asks: the mean of the axes to the nearest mm, so 5.5 counts as 6."""
    if nodule.long_axis_mm is not None and nodule.short_axis_mm is not None:
        return int(half_up((nodule.long_axis_mm + nodule.short_axis_mm) / 2, 0))
    return None if nodule.mean_diameter_mm is None else int(half_up(nodule.mean_diameter_mm, 0))


def missing_axes(nodule: NoduleFacts) -> tuple[MissingInput, ...]:
    """What a mean diameter lacks."""
    axes = [name for name in ("long_axis_mm", "short_axis_mm") if getattr(nodule, name) is None]
    return lacks(**dict.fromkeys(axes, "The size decides."))


def is_benign_looking(nodule: NoduleFacts) -> bool:
    """Benign calcification or fat; a nodule whose kind is `calcified` is calcified as a whole."""
    return bool(nodule.has_benign_calcification or nodule.has_fat or nodule.kind == "calcified")


def change_of(nodule: NoduleFacts) -> Change | None:
    """How the whole nodule changed: as told, else by mean diameters; None where neither is there.

    More than 1.5 mm in any 12 months is growth; as much over a longer time is slow growth. The volume criterion beside
    it (> 2 mm3) is not used: it lies far below what two measurements of the same nodule differ by.
    """
    if nodule.change is not None or nodule.earlier is None:
        return nodule.change
    now, before = mean_diameter_0_1mm(nodule), nodule.earlier.mean_diameter_mm
    return None if now is None or before is None else _judged(now, before, nodule.earlier.interval_days)


def solid_component_change_of(nodule: NoduleFacts) -> Change | None:
    """The same for the solid component; `new` where there was none."""
    if nodule.solid_component_change is not None or nodule.earlier is None:
        return nodule.solid_component_change
    now, before = nodule.solid_diameter_mm, nodule.earlier.solid_diameter_mm
    if now is None or before is None:
        return None
    return "new" if before == 0 < now else _judged(now, before, nodule.earlier.interval_days)


def told(source: Input, *names: str) -> dict[str, Any]:
    """Those of the named fields that are there."""
    found = {name: getattr(source, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _judged(now_mm: float, before_mm: float, interval_days: float) -> Change:
    # Rounded, or 8.4 - 6.9 would be more than 1.5.
    gain_mm = round(half_up(now_mm, 1) - half_up(before_mm, 1), 1)
    if gain_mm > GROWTH_MM:
        return "growing" if gain_mm * min(1.0, _YEAR_DAYS / interval_days) > GROWTH_MM else "slowly_growing"
    return "decreased" if gain_mm < -GROWTH_MM else "stable"
