import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.volume import Grid
from app.inference.boxes import centers, iou, non_maximum_suppression, to_patient_corners, volumes

coordinate = st.integers(-400, 400).map(lambda n: n / 8)
"""Exact in binary, so that moving a box does not change it."""


@st.composite
def box_lists(draw, min_size=1, max_size=12):
    count = draw(st.integers(min_size, max_size))
    corners = np.array([[draw(coordinate) for _ in range(6)] for _ in range(count)]).reshape(-1, 2, 3)
    return np.sort(corners, axis=1).reshape(-1, 6)


@given(box_lists(), box_lists())
def test_iou_is_symmetric_and_a_fraction(first, second):
    overlap = iou(first, second)
    assert overlap.shape == (len(first), len(second))
    assert ((overlap >= 0) & (overlap <= 1 + 1e-9)).all()
    assert overlap == pytest.approx(iou(second, first).T)


@given(box_lists(), st.tuples(coordinate, coordinate, coordinate))
def test_iou_does_not_depend_on_where_the_boxes_lie(boxes, shift):
    assert iou(boxes + np.tile(shift, 2), boxes + np.tile(shift, 2)) == pytest.approx(iou(boxes, boxes), abs=1e-6)


def test_iou_of_boxes_worked_out_by_hand():
    """2 x 2 x 2 against the same moved by one along z: 4 shared of 12; along all axes: 1 of 15; touching: none."""
    box = np.array([[0.0, 0, 0, 2, 2, 2]])
    others = np.array([[0, 0, 0, 2, 2, 2], [1, 0, 0, 3, 2, 2], [1, 1, 1, 3, 3, 3], [2, 0, 0, 4, 2, 2]], float)
    assert iou(box, others)[0] == pytest.approx([1, 4 / 12, 1 / 15, 0])


def test_empty_boxes_overlap_nothing_not_even_themselves():
    empty = np.array([[3.0, 3, 3, 3, 5, 5], [4, 4, 4, 2, 6, 6]])
    assert not volumes(empty).any()
    assert not iou(empty, empty).any()


@given(box_lists(max_size=20), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_suppression_keeps_the_best_of_every_overlap_and_nothing_else(boxes, seed, threshold):
    scores = np.random.default_rng(seed).choice([0.1, 0.5, 0.9], len(boxes))
    kept = non_maximum_suppression(boxes, scores, threshold)
    overlap = iou(boxes, boxes)
    assert (np.diff(scores[kept]) <= 0).all()
    for position, n in enumerate(kept):
        assert (overlap[n, kept[:position]] <= threshold).all()
    for n in set(range(len(boxes))) - set(kept.tolist()):
        better = kept[(scores[kept] > scores[n]) | ((scores[kept] == scores[n]) & (kept < n))]
        assert (overlap[n, better] > threshold).any()


def test_of_equal_scores_the_first_is_kept():
    boxes = np.array([[0.0, 0, 0, 4, 4, 4]] * 3)
    assert non_maximum_suppression(boxes, np.array([0.5, 0.5, 0.5]), 0.2).tolist() == [0]


def test_an_overlap_of_exactly_the_threshold_is_allowed():
    boxes = np.array([[0.0, 0, 0, 2, 2, 2], [1, 0, 0, 3, 2, 2]])
    limit = float(iou(boxes[:1], boxes[1:])[0, 0])
    assert len(non_maximum_suppression(boxes, np.array([0.9, 0.8]), limit)) == 2
    assert len(non_maximum_suppression(boxes, np.array([0.9, 0.8]), np.nextafter(limit, 0))) == 1


def test_nothing_to_suppress_is_nothing_kept():
    assert non_maximum_suppression(np.zeros((0, 6)), np.zeros(0), 0.5).shape == (0,)


def test_the_corners_of_a_box_on_an_oblique_grid():
    turned = np.array([[0, -0.6, 0.8], [0, 0.8, 0.6], [1, 0, 0]])
    grid = Grid.from_spacing((30, 30, 30), (2.0, 0.5, 0.5), (10, -20, 30), turned)
    box = np.array([1.5, 2.5, 3.5, 4.5, 6.5, 9.5])
    corners = to_patient_corners(box, grid)
    assert corners.shape == (8, 3)
    index = grid.to_index(corners)
    assert index.min(axis=0) == pytest.approx(box[:3])
    assert index.max(axis=0) == pytest.approx(box[3:])
    assert len(np.unique(np.round(index, 6), axis=0)) == 8
    assert corners.mean(axis=0) == pytest.approx(grid.to_patient(centers(box[None])[0]))
