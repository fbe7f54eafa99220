"""What every form of a result is made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from app.inference.findings import Findings, Nodule, SliceBox
from app.reporting.assessment import Assessment, NoduleAssessment
from app.reporting.compared import ComparedFindings, Comparison
from app.reporting.identifiers import derived_uid
from app.reporting.originals import Originals


@dataclass(frozen=True)
class Report:
    """What is said of one series.

    Parameters
    ----------
    findings
        Of the series; `ComparedFindings` where there was a prior.
    made_at
        When the analysis ended, with a time zone: the same for the same stored answer, whenever a form is made of it.
    assessment
        Risk and guidelines as the document has them, so with the context that the request told. None where the
        document has none.
    """

    findings: Findings
    made_at: datetime
    assessment: Assessment | None = None

    @property
    def comparison(self) -> Comparison | None:
        """With the prior; None without one."""
        return self.findings.comparison if isinstance(self.findings, ComparedFindings) else None

    def assessed(self, nodule: Nodule) -> NoduleAssessment | None:
        """Risk and guidelines of one nodule."""
        told = self.assessment.nodules if self.assessment else []
        return next((found for found in told if found.nodule_id == nodule.id), None)


@dataclass(frozen=True)
class Material:
    """A report and the images that it is about."""

    report: Report
    originals: Originals

    @property
    def findings(self) -> Findings:
        """Of the report."""
        return self.report.findings

    @property
    def made_at(self) -> datetime:
        """Of the report."""
        return self.report.made_at

    def uid(self, *parts: str) -> str:
        """A UID that belongs to this answer: another analysis, even of the same series, gives others."""
        findings = self.findings
        series = findings.identity.series_instance_uid if findings.identity else ""
        found = hashlib.sha256(repr([(n.center_lps_mm, n.probability) for n in findings.nodules]).encode()).hexdigest()
        point = f"{findings.operating_point.name} {findings.operating_point.threshold!r}"
        return derived_uid(series, findings.model.sha256, point, found, self.made_at.isoformat(), *parts)

    @property
    def program_version(self) -> str:
        """Version of this program."""
        return version("lungnodule")


def key_slice(nodule: Nodule) -> SliceBox | None:
    """The slice nearest to the nodule's middle, that of the largest box where two are; None where it touches none."""
    if not nodule.slices:
        return None
    (low, _, _), (high, _, _) = nodule.box_index_zyx
    middle = (low + high) / 2
    return min(nodule.slices, key=lambda box: (round(abs(box.index_z - middle), 6), -_area(box), box.index_z))


def _area(box: SliceBox) -> float:
    column_min, row_min, column_max, row_max = box.box_px
    return (column_max - column_min) * (row_max - row_min)
