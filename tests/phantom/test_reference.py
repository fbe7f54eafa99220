"""The digest is the same everywhere, and another for anything that changes what a network is fed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.imaging.preprocessing import CropSpec, PreprocessingSpec, preprocess, sample_crops
from app.imaging.volume import PreparedVolume
from app.phantom import reference
from app.phantom.reference import reference_digest, reference_phantom

DEFAULT_DIGEST = "be1e481a3d7c209a93cf4477e75547625d879224d3719c95d13b3ef7c9048225"
"""Of the default specs. When it changes, networks trained before were fed otherwise: their manifests do not hold."""


def test_the_digest_of_the_defaults_is_the_one_on_record() -> None:
    assert reference_digest(PreprocessingSpec(), CropSpec()) == DEFAULT_DIGEST


def test_another_process_finds_the_same_digest() -> None:
    program = (
        "from app.phantom.reference import *; print(reference_digest(PreprocessingSpec(spacing_mm=0.9), CropSpec()))"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.strip() == reference_digest(PreprocessingSpec(spacing_mm=0.9), CropSpec())


@pytest.mark.parametrize(
    ("spec", "crop"),
    [
        ({"spacing_mm": 1.01}, {}),
        ({"window_hu": (-1024.0, 401.0)}, {}),
        ({"lung_margin_mm": 5.0}, {}),
        ({"shape_multiple": 8}, {}),
        ({}, {"spacing_mm": 0.71}),
        ({}, {"size_px": 32}),
        ({}, {"slice_offsets_mm": (0.0,)}),
        ({}, {"window_hu": (-1000.0, 401.0)}),
    ],
)
def test_every_setting_changes_the_digest(spec: dict[str, Any], crop: dict[str, Any]) -> None:
    assert reference_digest(PreprocessingSpec(**spec), CropSpec(**crop)) != DEFAULT_DIGEST


def darker(prepared: PreparedVolume) -> PreparedVolume:
    return replace(prepared, values=prepared.values * np.float32(1 - 1e-6))


def elsewhere(prepared: PreparedVolume) -> PreparedVolume:
    return replace(prepared, grid=prepared.grid.cropped((0.001, 0, 0), prepared.grid.shape_zyx))


def narrower(prepared: PreparedVolume) -> PreparedVolume:
    return replace(prepared, in_lungs=np.zeros_like(prepared.in_lungs))


@pytest.mark.parametrize("change", [darker, elsewhere, narrower])
def test_a_slightly_different_preprocessing_is_noticed(
    change: Callable[[PreparedVolume], PreparedVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "preprocess", lambda *args: change(preprocess(*args)))

    assert reference_digest(PreprocessingSpec(), CropSpec()) != DEFAULT_DIGEST


def test_slightly_different_crops_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "sample_crops", lambda *args: sample_crops(*args) + np.float32(1e-6))

    assert reference_digest(PreprocessingSpec(), CropSpec()) != DEFAULT_DIGEST


def test_the_phantom_shows_all_that_preprocessing_does() -> None:
    volume, lungs = reference_phantom()

    assert volume.hu.min() < -1024
    assert volume.hu.max() > 400
    assert volume.grid.direction_lps_zyx[0, 2] == -1.0
    assert len(set(volume.grid.spacing_zyx_mm)) == 3
    assert {0, 1, 2} == set(np.unique(lungs.labels))
    for label, side in ((1, "right"), (2, "left")):
        places = lungs.grid.to_patient(np.argwhere(lungs.labels == label))
        seen = np.median([volume.hu[tuple(np.rint(volume.grid.to_index(p)).astype(int))] for p in places])
        assert seen < -700
        assert lungs.side_at(places.mean(axis=0)) == side


def test_every_number_of_the_geometry_is_exact() -> None:
    volume, lungs = reference_phantom()

    for grid in (volume.grid, lungs.grid):
        assert np.array_equal(np.rint(grid.affine * 8), grid.affine * 8)
        assert np.array_equal(np.log2(grid.spacing_zyx_mm), np.rint(np.log2(grid.spacing_zyx_mm)))
        assert np.array_equal(grid.to_index(grid.to_patient((3, 2, 1))), (3, 2, 1))
