"""The answer of an analysis as clients see it; also what the command line prints with --json.

Every coordinate names its frame and every figure its unit. LPS is DICOM's patient frame (x to the left, y to the
back, z to the head), RAS is NIfTI's (x to the right, y to the front, z to the head); both in millimetres.
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import Field

from app.api.comparison_schemas import Comparison, comparison_of
from app.api.figures import Answer as _Answer
from app.api.figures import (
    CubicMillimetres,
    HounsfieldUnits,
    Index,
    IndexPoint,
    Millimetres,
    Notice,
    Point,
    Probability,
    rounded,
)
from app.imaging import acceptance as report
from app.inference import findings as found
from app.reporting.assessment import Assessment, assess_findings
from app.reporting.clinical_context import ClinicalContext

SCHEMA_VERSION = "1.0"


Side = Literal["left", "right"]
Label = Literal["benign", "malignant"]
Kind = Literal["solid", "part_solid", "ground_glass", "calcified"]
Lobe = Literal["upper", "middle", "lower"]
Sign = Literal["calcification", "fat"]


class SeriesSummary(_Answer):
    """What the headers of one received series say."""

    series_instance_uid: str | None = Field(description="SeriesInstanceUID; null for formats without one.")
    modality: str | None = Field(description="DICOM Modality, e.g. CT.")
    slice_count: int = Field(description="Number of slices.")
    rows: int | None = Field(default=None, description="Rows of a slice, in pixels.")
    columns: int | None = Field(default=None, description="Columns of a slice, in pixels.")
    spacing_zyx_mm: tuple[float, float, float] | None = Field(
        default=None, description="Distance between slices, rows and columns, in mm."
    )
    slice_thickness_mm: float | None = Field(default=None, description="SliceThickness, in mm.")
    convolution_kernel: str | None = Field(default=None, description="ConvolutionKernel of the reconstruction.")
    transfer_syntax_uid: str | None = Field(default=None, description="TransferSyntaxUID of the received files.")


class RejectedSeries(_Answer):
    """A series that was received and not analysed."""

    summary: SeriesSummary = Field(description="What its headers say.")
    reasons: tuple[Notice, ...] = Field(description="Why it was not analysed.")


class Acceptance(_Answer):
    """What was received, chosen, rejected and why: what the answer rests on."""

    source_format: str = Field(description="dicom, dicom-enhanced, metaimage, nifti or nrrd.")
    files_received: int = Field(description="Number of files, members of a zip counted singly.")
    files_ignored: tuple[Notice, ...] = Field(description="Files that were not used, and why.")
    chosen: SeriesSummary = Field(description="The series that was analysed.")
    rejected: tuple[RejectedSeries, ...] = Field(description="Other series of the upload, and why not they.")
    repairs: tuple[Notice, ...] = Field(description="What was repaired; only what allow_repairs permitted.")
    warnings: tuple[Notice, ...] = Field(description="What may make the answer less reliable.")


class Series(_Answer):
    """The series that was analysed: identity and geometry."""

    study_instance_uid: str | None = Field(description="StudyInstanceUID; null for formats without one.")
    series_instance_uid: str | None = Field(description="SeriesInstanceUID; null for formats without one.")
    frame_of_reference_uid: str | None = Field(description="FrameOfReferenceUID in which lps_mm coordinates hold.")
    shape_zyx: tuple[int, int, int] = Field(description="Voxels along slices, rows and columns.")
    spacing_zyx_mm: tuple[float, float, float] = Field(description="Voxel spacing along (z, y, x), in mm.")
    affine_index_zyx_to_lps_mm: list[list[float]] = Field(
        description="4x4 matrix from voxel index (z, y, x, 1), counted from 0 at voxel centres, to LPS mm (x, y, z, 1)."
    )


class ModelIdentity(_Answer):
    """The model that answered."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Semantic version of the model.")
    sha256: str = Field(description="sha256 of the model's manifest, which holds the sha256 of every network.")


class OperatingPoint(_Answer):
    """The threshold in force."""

    name: str = Field(description="Name of the operating point in the model's manifest.")
    threshold: Probability = Field(description="Nodules with a probability of at least this are reported (0 to 1).")


class IndexBox(_Answer):
    """A box in voxel indices of the analysed volume."""

    min: IndexPoint = Field(description="Lowest corner (z, y, x), in voxels; voxel i spans i +- 0.5.")
    max: IndexPoint = Field(description="Highest corner (z, y, x), in voxels.")


class PatientBox(_Answer):
    """A box along the axes of the patient."""

    min: Point = Field(description="Lowest corner (x, y, z), in LPS mm.")
    max: Point = Field(description="Highest corner (x, y, z), in LPS mm.")


class BoundingBox(_Answer):
    """The box around a nodule, in two frames."""

    index_zyx: IndexBox = Field(description="In voxel indices of the analysed volume.")
    lps_mm: PatientBox = Field(description="In patient LPS mm; the smallest such box around the index box.")


class NoduleSlice(_Answer):
    """A nodule's box on one original slice."""

    sop_instance_uid: str | None = Field(description="SOPInstanceUID of the image; null for formats without one.")
    instance_number: int | None = Field(description="InstanceNumber, as the PACS counts slices.")
    frame_number: int | None = Field(description="Frame of an Enhanced multi-frame image, from 1; otherwise null.")
    index_z: int = Field(description="Slice of the analysed volume, from 0.")
    box_px: tuple[Index, Index, Index, Index] = Field(
        description="(column_min, row_min, column_max, row_max) in pixels; whole numbers are pixel centres."
    )


class Location(_Answer):
    """Where in its lung a nodule lies, from a lung mask with voxels of about 2.8 mm that shows no fissures."""

    lobe: Lobe | None = Field(
        description="Likeliest lobe, from where fissures usually run; not validated. Null where that does not decide."
    )
    lobe_confidence: Probability | None = Field(
        description="Probability of that lobe under an assumed spread of fissures between patients, 0 to 1."
    )
    distance_to_pleura_mm: Millimetres | None = Field(
        description="From the outline to the nearest edge of the lung that does not face the mediastinum, in mm."
    )
    distance_to_hilum_mm: Millimetres | None = Field(
        description="From the centre to where the hilum of its side is estimated to be, in mm."
    )
    is_juxtapleural: bool | None = Field(
        description="Whether the outline comes within 2 mm of that edge. Fissures and mediastinal pleura do not count."
    )


class Nodule(_Answer):
    """One nodule."""

    id: str = Field(description="Identifier within this answer.")
    probability: Probability = Field(description="That this is a nodule, 0 to 1.")
    malignancy_probability: Probability | None = Field(
        description="That the nodule is malignant, 0 to 1, in the sense of malignancy_meaning; null where the model "
        "does not judge it."
    )
    label: Label | None = Field(
        description="malignancy_probability against the model's threshold; null where the former is."
    )
    diameter_mm: Millimetres = Field(description="Mean of long and short axis, in mm.", ge=0)
    long_axis_mm: Millimetres = Field(
        description="Longest extent in the axial slice of largest area, in mm; of a box its longer side.", ge=0
    )
    short_axis_mm: Millimetres = Field(description="Longest extent across the long axis, same slice, in mm.", ge=0)
    volume_mm3: CubicMillimetres | None = Field(
        description="Volume of the nodule, in mm3; null where the model draws no outline.", ge=0
    )
    mean_hu: HounsfieldUnits | None = Field(description="Mean density, in HU; null where not measured.")
    side: Side | None = Field(description="The patient's lung; null where it is in neither.")
    center_lps_mm: Point = Field(description="Centre (x, y, z) in mm, DICOM's frame: to left, back and head.")
    center_ras_mm: Point = Field(
        description="The same centre (x, y, z) in mm, NIfTI's frame: to right, front and head."
    )
    bounding_box: BoundingBox = Field(description="Box around the nodule.")
    slices: tuple[NoduleSlice, ...] = Field(description="The box on every original slice that it touches.")
    attributes: dict[str, Annotated[float, rounded(5)]] = Field(
        description="Further outputs of the model, by name; what they mean is in the model's card."
    )
    kind: Kind | None = Field(
        default=None, description="Type, as LIDC's readers use the words; null where the model gives no texture."
    )
    is_spiculated: bool | None = Field(default=None, description="Whether the margin is spiculated; null: not told.")
    long_axis_3d_mm: Millimetres | None = Field(default=None, description="Longest extent in any direction, in mm.")
    volume_interval_mm3: tuple[CubicMillimetres, CubicMillimetres] | None = Field(
        default=None,
        description="Where the volume lies with 95 % confidence (lowest, highest), in mm3: from the size of the voxels "
        "and how sharply the network drew the outline.",
    )
    solid_diameter_mm: Millimetres | None = Field(
        default=None,
        description="Part-solid nodules: mean of long and short axis of the solid component (above -300 HU), in mm; "
        "null where there is none or the type is another.",
    )
    min_hu: HounsfieldUnits | None = Field(default=None, description="Lowest voxel within the outline, in HU.")
    max_hu: HounsfieldUnits | None = Field(default=None, description="Highest voxel within the outline, in HU.")
    mass_mg: Annotated[float, rounded(1)] | None = Field(
        default=None, description="Mass in mg: (HU + 1000) / 1000 times the volume in mm3, over all voxels.", ge=0
    )
    signs: tuple[Sign, ...] = Field(default=(), description="What the HU within the outline show; may be empty.")
    location: Location | None = Field(default=None, description="Where in its lung it lies; null outside both.")


class AnalysisResult(_Answer):
    """Nodules of one CT series, and all that is needed to judge and reproduce the answer."""

    schema_version: Literal["1.0"] = Field(description="Version of this schema; fields are only added within 1.x.")
    disclaimer: str = Field(description="What the answer must not be used for.")
    series: Series = Field(description="The series that was analysed.")
    acceptance: Acceptance = Field(description="What was received, chosen, rejected and why.")
    model: ModelIdentity = Field(description="Which model answered.")
    execution_provider: str = Field(
        description="What ran the detector: an execution provider of ONNX Runtime, or OpenVINO."
    )
    precision: dict[str, str] = Field(
        description="By network: fp32, or the name of its variant in the model's manifest that ran."
    )
    operating_point: OperatingPoint = Field(description="Which of the model's thresholds was in force.")
    malignancy_meaning: str = Field(
        description="What malignancy_probability was trained to mean, or that the model does not tell it."
    )
    timings_s: dict[str, float] = Field(description="Seconds in each stage of the analysis.")
    nodules: tuple[Nodule, ...] = Field(description="By falling probability; empty when none was found.")
    assessment: Assessment = Field(description="Risk and guidelines; what it lacked is in its `inputs_missing`.")
    comparison: Comparison | None = Field(
        default=None, description="With an earlier scan, where one was named; null otherwise."
    )


def result_from_findings(findings: found.Findings, context: ClinicalContext | None = None) -> AnalysisResult:
    """The public form of what the pipeline found.

    Parameters
    ----------
    findings
        What `app.inference.pipeline.analyse` returned.
    context
        What the request tells of patient and exam.

    Returns
    -------
    AnalysisResult
        Nodules by falling probability; warnings of the reader and of the pipeline together.
    """
    return AnalysisResult(
        schema_version=SCHEMA_VERSION,
        disclaimer=found.DISCLAIMER,
        series=_series(findings),
        acceptance=_acceptance(findings.acceptance, findings.warnings),
        model=ModelIdentity.model_validate(findings.model),
        execution_provider=findings.execution_provider,
        precision=dict(findings.precision),
        operating_point=OperatingPoint.model_validate(findings.operating_point),
        malignancy_meaning=findings.malignancy_meaning,
        timings_s={stage: round(seconds, 4) for stage, seconds in findings.timings_s.items()},
        nodules=tuple(_nodule(n) for n in sorted(findings.nodules, key=lambda n: -n.probability)),
        assessment=assess_findings(findings, context),
        comparison=comparison_of(findings),
    )


def _series(findings: found.Findings) -> Series:
    identity, grid = findings.identity, findings.grid
    z, y, x = (float(spacing) for spacing in grid.spacing_zyx_mm)
    return Series(
        study_instance_uid=identity.study_instance_uid if identity else None,
        series_instance_uid=identity.series_instance_uid if identity else None,
        frame_of_reference_uid=identity.frame_of_reference_uid if identity else None,
        shape_zyx=grid.shape_zyx,
        spacing_zyx_mm=(z, y, x),
        affine_index_zyx_to_lps_mm=grid.affine.tolist(),
    )


def _acceptance(accepted: report.AcceptanceReport, warnings: tuple[report.Notice, ...]) -> Acceptance:
    return Acceptance(
        source_format=accepted.source_format,
        files_received=accepted.files_received,
        files_ignored=_notices(accepted.files_ignored),
        chosen=_summary(accepted.chosen),
        rejected=tuple(
            RejectedSeries(summary=_summary(series.summary), reasons=_notices(series.reasons))
            for series in accepted.rejected
        ),
        repairs=_notices(accepted.repairs),
        warnings=_notices(accepted.warnings + warnings),
    )


def _notices(notices: tuple[report.Notice, ...]) -> tuple[Notice, ...]:
    return tuple(Notice.model_validate(notice) for notice in notices)


def _summary(summary: report.SeriesSummary) -> SeriesSummary:
    return SeriesSummary.model_validate(summary)


def _nodule(nodule: found.Nodule) -> Nodule:
    x, y, z = nodule.center_lps_mm
    return Nodule(
        id=nodule.id,
        probability=nodule.probability,
        malignancy_probability=nodule.malignancy_probability,
        label=cast("Label | None", nodule.label),
        diameter_mm=nodule.diameter_mm,
        long_axis_mm=nodule.long_axis_mm,
        short_axis_mm=nodule.short_axis_mm,
        volume_mm3=nodule.volume_mm3,
        mean_hu=nodule.mean_hu,
        side=cast("Side | None", nodule.side),
        center_lps_mm=nodule.center_lps_mm,
        center_ras_mm=(0.0 - x, 0.0 - y, z),  # a plain minus would write -0.0
        bounding_box=_bounding_box(nodule),
        slices=tuple(NoduleSlice.model_validate(box) for box in nodule.slices),
        attributes=nodule.attributes,
        kind=cast("Kind | None", nodule.kind),
        is_spiculated=nodule.is_spiculated,
        long_axis_3d_mm=nodule.long_axis_3d_mm,
        volume_interval_mm3=nodule.volume_interval_mm3,
        solid_diameter_mm=nodule.solid_diameter_mm,
        min_hu=nodule.min_hu,
        max_hu=nodule.max_hu,
        mass_mg=nodule.mass_mg,
        signs=cast("tuple[Sign, ...]", nodule.signs),
        location=Location.model_validate(nodule.location) if nodule.location else None,
    )


def _bounding_box(nodule: found.Nodule) -> BoundingBox:
    (index_min, index_max), (lps_min, lps_max) = nodule.box_index_zyx, nodule.box_lps_mm
    return BoundingBox(index_zyx=IndexBox(min=index_min, max=index_max), lps_mm=PatientBox(min=lps_min, max=lps_max))
