"""What flows from the networks to the doors: candidates, nodules, findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import AcceptanceReport, Notice
from app.imaging.alignment import Chest
from app.imaging.patient_attributes import PatientAttributes
from app.imaging.visit import Visit
from app.imaging.volume import DicomIdentity, Grid

Point = tuple[float, float, float]

DISCLAIMER = "Research use only. Not for diagnosis."


@dataclass(frozen=True)
class Candidate:
    """What the detector says: where something may be, how large, how sure."""

    center_lps_mm: Point
    diameter_mm: float
    probability: float
    box_corners_lps_mm: tuple[Point, Point] | None = None
    """Two opposite corners of the detector's box, whose edges run along the axes of the scan."""


@dataclass(frozen=True)
class SliceBox:
    """A nodule's box on one original slice, for a viewer that counts as the PACS does."""

    index_z: int
    box_px: tuple[float, float, float, float]
    """(column_min, row_min, column_max, row_max) in pixels of the original slice, continuous, pixel centres whole."""
    sop_instance_uid: str | None = None
    instance_number: int | None = None
    frame_number: int | None = None


@dataclass(frozen=True)
class NoduleMask:
    """Voxels of one nodule on a small grid of its own."""

    voxels: NDArray[np.bool_]
    grid: Grid
    probability: NDArray[np.floating] | None = None
    """The network's own word on each voxel, 0 to 1: how sharply the outline is drawn. None where it drew none."""


@dataclass(frozen=True)
class Location:
    """Where in the lung a nodule lies, as far as one CT without a lobe model can say."""

    lobe: str | None = None
    """`upper`, `middle` (right lung only) or `lower`; None where it cannot be told."""
    lobe_confidence: float | None = None
    """0 to 1: how sure the estimate of the lobe is."""
    distance_to_pleura_mm: float | None = None
    """From the outline to the nearest edge of the lung that does not face the mediastinum, 0 where they touch.

    The lung mask has voxels of 2.8 mm, and fissures are not seen.
    """
    distance_to_hilum_mm: float | None = None
    """From the centre to the estimated hilum of its side."""
    is_juxtapleural: bool | None = None


@dataclass(frozen=True)
class Nodule:
    """A candidate that passed the operating point, with all that was measured on it."""

    id: str
    probability: float
    malignancy_probability: float | None
    """None where the model does not judge malignancy. A detector alone gives no volume and no mask either."""
    label: str | None
    """`benign` or `malignant`: malignancy_probability against the manifest's threshold; None without the former."""
    diameter_mm: float
    """Mean of the long and the short axis in the axial slice of largest area."""
    long_axis_mm: float
    short_axis_mm: float
    volume_mm3: float | None
    center_lps_mm: Point
    box_index_zyx: tuple[Point, Point]
    """(min, max) corners in continuous index coordinates of the original volume."""
    box_lps_mm: tuple[Point, Point]
    slices: tuple[SliceBox, ...]
    side: str | None = None
    """`left` or `right` lung of the patient; None where the centre lies in neither."""
    mean_hu: float | None = None
    attributes: dict[str, float] = field(default_factory=dict)
    """Further outputs of the characterisation network, by the names in the manifest."""
    mask: NoduleMask | None = None
    kind: str | None = None
    """`solid`, `part_solid`, `ground_glass` or `calcified`; None where it was not told."""
    is_spiculated: bool | None = None
    long_axis_3d_mm: float | None = None
    """Longest extent in any direction."""
    volume_interval_mm3: tuple[float, float] | None = None
    """95 % interval of the volume, from slice thickness and the doubt of the outline."""
    solid_diameter_mm: float | None = None
    """Mean diameter of the solid component of a part-solid nodule."""
    min_hu: float | None = None
    max_hu: float | None = None
    mass_mg: float | None = None
    signs: tuple[str, ...] = ()
    """`calcification`, `fat`."""
    location: Location | None = None


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered; in every result."""

    name: str
    version: str
    sha256: str
    """sha256 of the manifest, which itself holds the sha256 of each network file."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold in force."""

    name: str
    threshold: float


@dataclass(frozen=True)
class Trace:
    """What a comparison with another scan needs of this one, once its voxels are gone; about 10 MB."""

    chest: Chest
    visit: Visit
    faint: tuple[Candidate, ...]
    """Candidates below the operating point, with their final probability, down to ``faint_probability``."""
    faint_probability: float


@dataclass(frozen=True)
class Findings:
    """The answer for one CT series."""

    nodules: tuple[Nodule, ...]
    acceptance: AcceptanceReport
    identity: DicomIdentity | None
    grid: Grid
    model: ModelIdentity
    execution_provider: str
    operating_point: OperatingPoint
    malignancy_meaning: str
    timings_s: dict[str, float]
    warnings: tuple[Notice, ...] = ()
    precision: Mapping[str, str] = field(default_factory=dict)
    """By network: ``fp32`` or the variant of the manifest that ran."""
    patient: PatientAttributes | None = None
    """Age and sex from the headers; in no answer unless its request asks for them."""
    trace: Trace | None = None
    """Where the analysis was asked to keep it."""
    faint: tuple[Candidate, ...] = ()
    """Candidates below the operating point, by falling final probability, for a reader who wants to see more."""
    faint_probability: float | None = None
    """The lowest that is kept in ``faint``; None for an answer that was stored before there was any."""


@dataclass(frozen=True)
class Progress:
    """One step of the analysis; ``fraction`` runs from 0 to 1 within the stage."""

    stage: str
    """`read`, `lungs`, `prepare`, `detect`, `characterise`, `measure`."""
    fraction: float
    detail: str = ""


OnProgress = Callable[[Progress], None]
