"""Which is which: nodules laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reporting.nodule_matching import Placed, gate_mm, match_nodules


def ball(x: float, y: float = 0.0, z: float = 0.0, diameter: float = 8.0, error: float = 0.0) -> Placed:
    return Placed((x, y, z), diameter, float(np.pi / 6 * diameter**3), error)


def pairs(current: list[Placed], prior: list[Placed]) -> list[tuple[int, int]]:
    return [(match.current, match.prior) for match in match_nodules(current, prior)]


def test_each_with_its_own_whatever_the_order():
    places = [ball(0), ball(30), ball(60), ball(90)]
    assert pairs(places, [places[2], places[0], places[3], places[1]]) == [(0, 1), (1, 3), (2, 0), (3, 2)]


def test_none_on_either_side():
    assert pairs([], [ball(0)]) == []
    assert pairs([ball(0)], []) == []


def test_the_gate_widens_with_the_error_and_has_an_end():
    assert pairs([ball(0)], [ball(4.9)]) == [(0, 0)]
    assert pairs([ball(0)], [ball(5.1)]) == []
    assert pairs([ball(0, error=3.0)], [ball(5.1)]) == [(0, 0)]
    assert pairs([ball(0, error=3.0)], [ball(11.1)]) == []
    assert gate_mm(ball(0, error=50.0), ball(0)) == 20.0


def test_sizes_that_no_nodule_grows_by():
    assert pairs([ball(0, diameter=12.0)], [ball(0, diameter=4.0)]) == [(0, 0)]
    assert pairs([ball(0, diameter=17.0)], [ball(0, diameter=4.0)]) == []
    assert pairs([ball(0, diameter=4.0)], [ball(0, diameter=17.0)]) == []


def test_a_new_one_beside_does_not_take_the_place():
    """The nearer keeps its own; a far pair is not made up for the sake of the number of pairs."""
    current, prior = [ball(0.5), ball(4.5)], [ball(0)]
    assert pairs(current, prior) == [(0, 0)]
    assert pairs([ball(4.0), ball(8.3)], [ball(4.1), ball(-0.3)]) == [(0, 0)]


def test_two_that_moved_together_stay_themselves():
    assert pairs([ball(3), ball(9)], [ball(0), ball(6)]) == [(0, 0), (1, 1)]


def test_of_two_near_the_one_of_its_size():
    assert pairs([ball(0, diameter=4.0)], [ball(1.5, diameter=12.0), ball(-1.5, diameter=4.0)]) == [(0, 1)]


@given(st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=1, max_size=12, unique=True), st.integers(0, 2**31))
def test_a_shuffled_and_shaken_set_is_matched_to_itself(places, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(places))
    current = [ball(*(20.0 * np.array(place) + rng.uniform(-2, 2, 3))) for place in places]
    prior = [ball(*(20.0 * np.array(places[n]))) for n in order]
    assert pairs(current, prior) == [(n, int(np.flatnonzero(order == n)[0])) for n in range(len(places))]


@pytest.mark.parametrize("count", [1, 5])
def test_no_nodule_is_used_twice(count):
    found = match_nodules([ball(0.1 * n) for n in range(count)], [ball(0), ball(0.3)])
    assert len({match.current for match in found}) == len({match.prior for match in found}) == len(found)
