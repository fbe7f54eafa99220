"""Choose the series to read: the one that fits, the preferred of several, or the one the caller names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.imaging.acceptance import Notice, RejectedSeries
from app.imaging.dicom_geometry import Stack, stack_slices
from app.imaging.dicom_pixels import same_pixels
from app.imaging.errors import NotChestCt, ScanError, SeriesSelectionError
from app.imaging.pixel_checks import check_pixels
from app.imaging.read_options import ReadOptions
from app.imaging.series import RULE, Series, is_other_body_part, preference, rejection_reasons, summary


@dataclass(frozen=True)
class SeriesChoice:
    """The chosen series with its slices in order, and what the report says about the choice."""

    series: Series
    stack: Stack
    rejected: tuple[RejectedSeries, ...]
    warnings: tuple[Notice, ...] = ()


def choose_series(series: Sequence[Series], options: ReadOptions) -> SeriesChoice:
    """Choose by `app.imaging.series.RULE`, or take the series that ``options`` names.

    A series that is irregular or damaged is passed over when another fits, and is the error when none does.

    Raises
    ------
    NotChestCt
        No series fits; ``values`` lists each with its reasons.
    SeriesSelectionError
        ``ambiguous_series``, ``several_studies`` or ``series_not_found``; ``values`` lists what can be named.
    IrregularSeries, UnreadableScan, UnsupportedFormat, UploadTooLarge
        What is wrong with the only candidate.
    """
    if options.series_uid is not None:
        return _named(series, options)
    judged = judge_series(series, options)
    if not judged.fitting:
        raise refusal(judged.rejected, judged.faults)
    return _preferred(list(judged.fitting), list(judged.rejected))


@dataclass(frozen=True)
class Judged:
    """Which series can be analysed, and what is wrong with the others."""

    fitting: tuple[tuple[Series, Stack], ...]
    rejected: tuple[RejectedSeries, ...]
    faults: tuple[ScanError, ...]
    """Of those rejected for what they are made of."""


def refusal(rejected: Sequence[RejectedSeries], faults: Sequence[ScanError]) -> ScanError:
    """The error where none fits: the fault of the only one that has one, or the reasons of all."""
    return faults[0] if len(faults) == 1 else _none_fits(rejected)


def judge_series(series: Sequence[Series], options: ReadOptions) -> Judged:
    """Judge each series by itself, as far as headers tell."""
    rejected: list[RejectedSeries] = []
    fitting: list[tuple[Series, Stack]] = []
    faults: list[ScanError] = []
    for each in series:
        if reasons := (*rejection_reasons(each, options.limits), *_body_part(each)):
            rejected.append(RejectedSeries(summary(each), reasons))
            continue
        try:
            fitting.append((each, _stacked(each, options)))
        except ScanError as fault:
            faults.append(fault)
            rejected.append(RejectedSeries(summary(each), (Notice(fault.code, fault.message, fault.values),)))
    return Judged(tuple(fitting), tuple(rejected), tuple(faults))


def _body_part(series: Series) -> tuple[Notice, ...]:
    """A reason only while the choice is ours: a caller who names the series knows better than BodyPartExamined."""
    if not is_other_body_part(series):
        return ()
    values = {"body_part": series.first.body_part}
    return (Notice("body_part", "BodyPartExamined names a part without lungs.", values),)


def _stacked(series: Series, options: ReadOptions) -> Stack:
    check_pixels(series.slices, options.limits)
    return stack_slices(series.slices, same_pixels, options.allow_repairs)


def _preferred(fitting: list[tuple[Series, Stack]], rejected: list[RejectedSeries]) -> SeriesChoice:
    if len({series.first.study_instance_uid for series, _ in fitting}) > 1:
        raise _ask("Series of several studies were sent", "several_studies", fitting)
    fitting.sort(key=lambda pair: preference(pair[0]))
    (best, stack), *others = fitting
    alike = [pair for pair in fitting if preference(pair[0]) == preference(best)]
    if len(alike) > 1:
        raise _ask(f"{len(alike)} series fit equally well ({RULE})", "ambiguous_series", alike)
    if not others:
        return SeriesChoice(best, stack, tuple(rejected))
    passed_over = Notice("not_preferred", f"Another series is preferred: {RULE}.")
    warning = Notice(
        "several_series",
        f"{len(fitting)} series fit; one was chosen by: {RULE}.",
        {"series_instance_uids": [series.uid for series, _ in fitting]},
    )
    rejected += [RejectedSeries(summary(series, each.spacing_zyx_mm), (passed_over,)) for series, each in others]
    return SeriesChoice(best, stack, tuple(rejected), (warning,))


def _ask(what: str, code: str, candidates: Sequence[tuple[Series, Stack]]) -> SeriesSelectionError:
    return SeriesSelectionError(
        f"{what}. Name one of those listed in series_uid.",
        code=code,
        values={"series_instance_uids": [series.uid for series, _ in candidates]},
    )


def _named(series: Sequence[Series], options: ReadOptions) -> SeriesChoice:
    wanted = [each for each in series if each.uid == options.series_uid]
    if not wanted:
        raise SeriesSelectionError(
            "The series named in series_uid was not sent. Name one of those listed.",
            code="series_not_found",
            values={"series_instance_uids": [each.uid for each in series]},
        )
    if reasons := rejection_reasons(wanted[0], options.limits):
        raise _none_fits([RejectedSeries(summary(wanted[0]), reasons)])
    not_requested = Notice("not_requested", "Another series was named by the caller.")
    rejected = tuple(RejectedSeries(summary(each), (not_requested,)) for each in series if each is not wanted[0])
    return SeriesChoice(wanted[0], _stacked(wanted[0], options), rejected)


def _none_fits(rejected: Sequence[RejectedSeries]) -> NotChestCt:
    listed = [
        {
            "series_instance_uid": each.summary.series_instance_uid,
            "reasons": [{"code": r.code, "message": r.message, "values": r.values} for r in each.reasons],
        }
        for each in rejected
    ]
    why = rejected[0].reasons[0].message if len(rejected) == 1 else "The reasons are listed for each series."
    return NotChestCt(f"No series is an axial chest CT that can be analysed. {why}", values={"series": listed})
