"""Why a result cannot be had in the form that was asked for."""

from __future__ import annotations

from app.imaging.errors import LungNoduleError


class ResultUnavailable(LungNoduleError):
    """The answer is there, but not in this form.

    ``needs_dicom``: the scan was no DICOM, so nothing can refer to it. ``no_nodules``: the form shows nodules and there
    is none. ``boxes_only``: the form shows outlines and the model draws none. ``no_outlines``: stored by a version that
    kept the document alone.
    """

    default_code = "result_unavailable"


def needs_dicom(kind: str) -> ResultUnavailable:
    """For an object that must refer to DICOM images."""
    return ResultUnavailable(
        f"{kind} refers to DICOM images, and the scan that was analysed is none. Ask for pdf, csv, json or fhir.",
        code="needs_dicom",
        values={"kind": kind},
    )


def no_nodules(kind: str) -> ResultUnavailable:
    """For an object that shows nodules and cannot be empty."""
    return ResultUnavailable(
        f"No nodule reached the operating point, and {kind} shows nodules only. sr, sc and pdf say that there is none.",
        code="no_nodules",
        values={"kind": kind},
    )


class ExtraMissing(LungNoduleError):
    """An optional package is not installed."""

    default_code = "extra_missing"


def boxes_only(kind: str) -> ResultUnavailable:
    """For outlines of a model that has a detector only."""
    return ResultUnavailable(
        f"The model that answered draws boxes and no outlines, and {kind} shows outlines only. sr, gsps and json have "
        "the boxes; a model with a characteriser draws outlines.",
        code="boxes_only",
        values={"kind": kind},
    )
