"""The right series of a study: by a stated rule, never by chance, and every other one listed with its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.imaging.errors import IrregularSeries, NotChestCt, SeriesSelectionError
from app.imaging.kernels import is_sharp_kernel
from app.imaging.quality import quality_warnings
from app.imaging.read_options import ReadOptions
from app.imaging.series import Series, group_series
from app.imaging.series_choice import SeriesChoice, choose_series
from app.imaging.slice_header import SliceHeader
from app.imaging.volume import Grid
from tests.imaging.dicom_worlds import slice_headers

CHEST_MM = 240.0


def series(
    uid: str = "1.1", spacing_mm: float = 1.25, extent_mm: float = CHEST_MM, **changes: Any
) -> list[SliceHeader]:
    """Headers of an axial series; ``changes`` to each."""
    grid = Grid.from_spacing((int(extent_mm / spacing_mm) + 1, 8, 8), (spacing_mm, 0.7, 0.7), (0.0, 0.0, -200.0))
    return [replace(h, series_instance_uid=uid, **changes) for h in slice_headers(grid)]


def chosen(*headers: list[SliceHeader], **options: Any) -> SeriesChoice:
    return choose_series(group_series(h for each in headers for h in each), ReadOptions(**options))


def reasons(choice: SeriesChoice) -> dict[str | None, list[str]]:
    return {each.summary.series_instance_uid: [r.code for r in each.reasons] for each in choice.rejected}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"spacing_mm": 1.0}, {"spacing_mm": 5.0}),
        ({"spacing_mm": 2.5}, {"spacing_mm": 0.625, "extent_mm": 100.0}),
        ({"spacing_mm": 2.5}, {"spacing_mm": 10.0, "slice_thickness_mm": 1.0}),
        ({}, {"image_type": ("DERIVED", "SECONDARY", "AXIAL")}),
        ({"extent_mm": 300.0}, {"extent_mm": 250.0}),
        ({"kernel": "STANDARD"}, {"kernel": "BONEPLUS"}),
        ({"kernel": "Br40d/3"}, {"kernel": "Bl64d/3"}),
    ],
    ids=["thin", "lung-covering before thin", "gaps count as thickness", "original", "long", "soft", "soft, Siemens"],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_preferred(better: dict[str, Any], worse: dict[str, Any], swapped: bool) -> None:
    good, other = ("1.2", "1.1") if swapped else ("1.1", "1.2")
    choice = chosen(series(other, **worse), series(good, **better))
    assert choice.series.uid == good
    assert reasons(choice) == {other: ["not_preferred"]}
    assert [warning.code for warning in choice.warnings] == ["several_series"]


def test_equal_series_are_the_callers_choice() -> None:
    with pytest.raises(SeriesSelectionError) as caught:
        chosen(series("1.1"), series("1.2"), series("1.3", spacing_mm=5.0))
    assert caught.value.code == "ambiguous_series"
    assert caught.value.values["series_instance_uids"] == ["1.1", "1.2"]
    assert chosen(series("1.1"), series("1.2"), series_uid="1.2").series.uid == "1.2"


def test_studies_are_never_mixed() -> None:
    """Two studies may be two patients: even a clear preference does not choose between them."""
    with pytest.raises(SeriesSelectionError) as caught:
        chosen(series("1.1"), series("1.2", spacing_mm=5.0, study_instance_uid="1.9"))
    assert caught.value.code == "several_studies"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"modality": "MR"}, "modality"),
        ({"modality": None}, "modality"),
        ({"modality": "SR", "pixel_format": None}, "modality"),
        ({"pixel_format": None}, "no_pixels"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "reformat"),
        ({"image_type": ("DERIVED", "SECONDARY", "PROJECTION IMAGE")}, "reformat"),
        ({"orientation_lps": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}, "not_axial"),
        ({"orientation_lps": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, "not_axial"),
        ({"rescale_type": "US"}, "not_hounsfield"),
        ({"body_part": "HEAD"}, "body_part"),
        ({"extent_mm": 1.25}, "too_few_slices"),
        ({"extent_mm": 0.0}, "too_few_slices"),
        ({"extent_mm": 40.0}, "too_short"),
    ],
)
def test_unsuitable(change: dict[str, Any], code: str) -> None:
    with pytest.raises(NotChestCt) as caught:
        chosen(series("1.2", **change))
    error = caught.value
    assert error.code == "unsupported_series"
    assert code in [reason["code"] for reason in error.values["series"][0]["reasons"]]
    assert error.values["series"][0]["reasons"][0]["message"] in error.message
    # Beside one that fits it is passed over, and listed.
    choice = chosen(series("1.1"), series("1.2", **change))
    assert choice.series.uid == "1.1"
    assert code in reasons(choice)["1.2"]


def test_body_part_gives_way_to_the_caller() -> None:
    choice = chosen(series("1.1", body_part="HEAD"), series_uid="1.1")
    assert [w.code for w in quality_warnings(choice.series, choice.stack.grid)] == ["body_part"]


def test_naming_a_series_does_not_make_it_a_ct() -> None:
    with pytest.raises(NotChestCt):
        chosen(series("1.1"), series("1.2", modality="MR"), series_uid="1.2")


def test_irregular_series_is_passed_over_when_another_fits() -> None:
    choice = chosen(series("1.1")[::3] + series("1.1")[:2], series("1.2", spacing_mm=5.0))
    assert choice.series.uid == "1.2"
    assert reasons(choice) == {"1.1": ["nonuniform_spacing"]}


def test_irregular_series_alone_says_what_is_wrong() -> None:
    headers = series("1.1")
    with pytest.raises(IrregularSeries) as caught:
        chosen(headers[:10] + headers[11:], series("1.2", modality="MR"))
    assert caught.value.code == "nonuniform_spacing"


def test_slices_of_several_orientations_in_one_series() -> None:
    coronal = replace(series()[0], orientation_lps=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    with pytest.raises(IrregularSeries) as caught:
        chosen([*series(), coronal])
    assert caught.value.code == "mixed_geometry"


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, []),
        ({"spacing_mm": 5.0}, ["thick_slices"]),
        ({"spacing_mm": 2.5}, []),
        ({"slice_thickness_mm": 0.6}, ["slice_gaps"]),
        ({"has_contrast": True}, ["contrast"]),
        ({"is_lossy": True}, ["lossy_compression"]),
        ({"kernel": "LUNG"}, ["sharp_kernel"]),
        ({"gantry_tilt_deg": 12.0}, ["gantry_tilt_unconfirmed"]),
        ({"body_part": None, "kernel": None, "slice_thickness_mm": None, "gantry_tilt_deg": None}, []),
    ],
)
def test_warnings(change: dict[str, Any], codes: list[str]) -> None:
    choice = chosen(series(**change))
    assert [w.code for w in quality_warnings(choice.series, choice.stack.grid)] == codes


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        ("STANDARD", False), ("LUNG", True), ("BONEPLUS", True), ("B30f", False), ("B70f", True), ("I70f/3", True),
        ("Br40d", False), ("Bl57d/3", False), ("Bl64d", True), ("FC08", False), ("FC51", True), ("FC86", True),
        ("FC30", True), ("L", True), ("B", False), ("YC", True), ("MYSTERY", None), (None, None),
    ],
)  # fmt: skip
def test_kernels(kernel: str | None, sharp: bool | None) -> None:
    assert is_sharp_kernel(kernel) is sharp


STUDY = [
    series("1.1", extent_mm=60.0), series("1.2", spacing_mm=5.0), series("1.3", spacing_mm=2.5),
    series("1.4", spacing_mm=2.5, kernel="LUNG"), series("1.5", modality="MR"), series("1.6", extent_mm=5.0),
]  # fmt: skip


@settings(max_examples=10)
@given(st.permutations(STUDY))
def test_the_choice_does_not_depend_on_the_order_of_files(study: list[list[SliceHeader]]) -> None:
    choice = chosen(*study)
    assert choice.series.uid == "1.3"
    assert set(reasons(choice)) == {"1.1", "1.2", "1.4", "1.5", "1.6"}


def test_grouping_keeps_localizers_apart() -> None:
    scout = series("1.1", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))[:2]
    (found,) = group_series([*scout, *series("1.1")])
    assert isinstance(found, Series)
    assert (len(found.slices), len(found.localizers)) == (193, 2)
