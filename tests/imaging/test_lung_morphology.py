"""Balls made of shifted bits, against distance maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.lung_morphology import closed, dilated, eroded, grown_together, without_holes

MARGIN = 15


def within(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    if not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= radius_mm + 1e-9


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    density = draw(st.sampled_from([0.0, 0.01, 0.1, 0.9]))
    return np.random.default_rng(draw(st.integers(0, 999))).random(shape) < density


# Radii and spacings whose multiples cannot meet by rounding.
radii = st.sampled_from([0.0, 1.7, 3.14159, 5.5555])
spacings = st.tuples(*[st.sampled_from([0.71, 1.13, 2.83])] * 3).map(np.array)


@settings(deadline=None, max_examples=40)
@given(masks(), radii, spacings)
def test_dilated_is_all_that_lies_within_the_radius(
    mask: NDArray[np.bool_], radius_mm: float, spacing_mm: NDArray[np.float64]
) -> None:
    assert np.array_equal(dilated(mask, radius_mm, spacing_mm), within(mask, radius_mm, spacing_mm))


@settings(deadline=None, max_examples=40)
@given(masks(), radii, spacings)
def test_closed_is_dilated_then_eroded_in_empty_space(
    mask: NDArray[np.bool_], radius_mm: float, spacing_mm: NDArray[np.float64]
) -> None:
    grown = within(np.pad(mask, MARGIN), radius_mm, spacing_mm)
    expected = ~within(~grown, radius_mm, spacing_mm)
    inner = (slice(MARGIN, -MARGIN),) * 3
    assert np.array_equal(closed(mask, radius_mm, spacing_mm), expected[inner])


def test_eroded_along_axes_with_full_surroundings() -> None:
    mask = np.ones((3, 4, 5), bool)
    assert eroded(mask).all()
    mask[1, 1, 2] = False
    cross = ndimage.generate_binary_structure(3, 1)
    assert np.array_equal(eroded(mask), ndimage.binary_erosion(mask, cross, border_value=1))
    assert np.count_nonzero(~eroded(mask, axes=(1, 2))) == 5


def test_seeds_meet_in_the_middle_and_stay_inside() -> None:
    inside = np.ones((1, 3, 11), bool)
    inside[0, 1:, 4] = False
    inside[0, :, 8] = False
    seeds = np.zeros(inside.shape, np.uint8)
    seeds[0, 2, 0], seeds[0, 2, 7] = 1, 2
    grown = grown_together(seeds, inside)
    assert not grown[~inside].any()
    assert not grown[:, :, 9:].any(), "nothing leads there"
    assert (grown[0, 2, :4] == 1).all()
    assert (grown[0, 2, 5:8] == 2).all()
    assert grown[0, 0, 4] in (1, 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_lone_seed_takes_all_it_can_reach(seed: int) -> None:
    inside = np.ones((4, 4, 4), bool)
    seeds = np.zeros((4, 4, 4), np.uint8)
    seeds[1, 2, 3] = seed
    assert (grown_together(seeds, inside) == seed).all()


@given(masks())
def test_holes_are_what_the_outside_cannot_reach(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(without_holes(mask), ndimage.binary_fill_holes(mask))
    assert np.array_equal(without_holes(~mask), ndimage.binary_fill_holes(~mask))
