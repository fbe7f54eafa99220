"""Slabs against what they mean, worked out the slow way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.imaging.planes import PLANES, PlaneName, planes_of
from app.imaging.slabs import Slab, Window, cut
from app.imaging.volume import Grid
from tests.imaging.grids import directions

LUNG = Window(-600.0, 1500.0)


def slowly(hu: np.ndarray, window: Window) -> np.ndarray:
    low = window.center_hu - window.width_hu / 2
    return np.rint(np.clip((hu.astype(float) - low) / window.width_hu, 0, 1) * 255).astype(np.uint8)


@settings(max_examples=60)
@given(st.data(), directions(), st.sampled_from(PLANES), st.integers(1, 3), st.sampled_from((0.0, 3.0, 9.9, 40.0)))
def test_a_slab_is_what_it_says(
    data: st.DataObject, direction: np.ndarray, name: PlaneName, step: int, mip_mm: float
) -> None:
    grid = Grid.from_spacing((9, 11, 13), (2.5, 1.0, 1.5), direction_lps_zyx=direction)
    hu = np.random.default_rng(0).integers(-1500, 1500, grid.shape_zyx).astype(np.int16)
    plane = planes_of(grid)[name]
    first = data.draw(st.integers(0, plane.shape[0] - 1))
    slab = Slab(first, data.draw(st.integers(1, 20)), step, mip_mm)

    got = cut(hu, plane, slab, LUNG)

    pictures = plane.arranged(hu)
    for place, picture in enumerate(got):
        off = np.abs(np.arange(plane.shape[0]) - (first + place)) * plane.spacing_mm[0]
        thick = pictures[off <= mip_mm / 2 + 1e-9]
        assert np.array_equal(picture, slowly(thick.max(axis=0), LUNG)[::step, ::step])
    assert got.shape == slab.shape(plane)
    assert got.flags.c_contiguous


@pytest.mark.parametrize("window", [LUNG, Window(40.0, 400.0), Window(0.0, 1.0), Window(-32768.0, 65536.0)])
def test_every_int16_has_its_grey(window: Window) -> None:
    hu = np.arange(-32768, 32768, dtype=np.int16).reshape(16, 64, 64)
    plane = planes_of(Grid.from_spacing(hu.shape))["axial"]
    assert np.array_equal(cut(hu, plane, Slab(0, 16), window), slowly(hu, window))


def test_a_mapped_file_is_as_good_as_memory(tmp_path: Path) -> None:
    hu = np.random.default_rng(1).integers(-1000, 400, (20, 30, 40)).astype(np.int16)
    hu.tofile(tmp_path / "hu")
    mapped = np.memmap(tmp_path / "hu", np.int16, "r", shape=hu.shape)
    for plane in planes_of(Grid.from_spacing(hu.shape)).values():
        slab = Slab(3, 9, mip_mm=4.0)
        assert np.array_equal(cut(mapped, plane, slab, LUNG), cut(hu, plane, slab, LUNG))
