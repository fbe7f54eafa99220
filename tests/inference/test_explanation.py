"""Occlusion finds what a network looks at."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.imaging.errors import LungNoduleError, ModelError
from app.imaging.preprocessing import CropSpec
from app.imaging.volume import CtVolume, Grid
from app.inference.explanation import Explanation, cells, explain
from app.inference.model_store import LoadedModel
from tests.api.standins import make_model

SPEC = CropSpec(spacing_mm=0.7, size_px=64, slice_offsets_mm=(-2.0, -1.0, 0.0, 1.0, 2.0))
CENTER = (0.0, 0.0, 0.0)


def ball(radius_mm: float = 5.0) -> CtVolume:
    shape = (61, 80, 80)
    grid = Grid.from_spacing(shape, (1.0, 0.7, 0.7), (-28.0, -28.0, -30.0))
    points = grid.to_patient(np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3)).reshape(*shape, 3)
    return CtVolume(np.where(np.linalg.norm(points, axis=-1) <= radius_mm, 40, -860).astype(np.int16), grid)


def model_that(says: Callable[[np.ndarray], np.ndarray], spec: CropSpec = SPEC) -> LoadedModel:
    """A characteriser whose probability is what ``says`` makes of crops (n, slices, rows, columns)."""

    def network(inputs: Any) -> dict[str, Any]:
        crops = inputs["crops"]
        said = says(crops)
        return {
            "nodule_probability": said,
            "malignancy_probability": 1 - said,
            "attributes": np.zeros((len(crops), 0)),
            "mask_probability": (crops > 0.5).astype(np.float32),
        }

    model = make_model()
    entry = model.manifest.characteriser.model_copy(update={"crop": spec})
    return replace(model, manifest=model.manifest.model_copy(update={"characteriser": entry}), characteriser=network)


def brightness_of(*place: slice) -> Callable[[np.ndarray], np.ndarray]:
    return lambda crops: 0.05 + 0.9 * crops[(slice(None), *place)].mean(axis=(1, 2, 3))


def explained(says: Callable[[np.ndarray], np.ndarray]) -> Explanation:
    return explain(ball(), CENTER, 10.0, model_that(says))


@pytest.mark.parametrize(("row", "column"), [(32, 32), (26, 36)])
def test_a_network_that_looks_at_one_place_gives_that_place(row, column):
    """The place lies within the ball, so that covering it with lung changes what is seen."""
    looks_at = brightness_of(slice(2, 3), slice(row, row + 2), slice(column, column + 2))
    importance = explained(looks_at).nodule_importance
    _, y, x = np.unravel_index(importance.argmax(), importance.shape)
    cell = 4
    assert (y // cell, x // cell) == (row // cell, column // cell)
    assert importance[2, row, column] > 0
    assert np.abs(importance[:, :16]).max() == pytest.approx(0, abs=1e-6)


def test_in_a_deep_crop_the_slice_is_told_too():
    deep = SPEC.model_copy(update={"slice_offsets_mm": (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)})
    model = model_that(brightness_of(slice(4, 5), slice(30, 34), slice(30, 34)), deep)
    importance = explain(ball(), CENTER, 10.0, model).nodule_importance
    assert np.unravel_index(importance.argmax(), importance.shape)[0] == 4
    assert not importance[0].any()


def test_the_nodule_matters_more_than_the_background():
    found = explained(brightness_of(slice(None), slice(None), slice(None)))
    assert found.nodule_importance[found.outline].mean() > 20 * abs(found.nodule_importance[~found.outline].mean())
    assert found.share_within_outline > 0.5
    # A network that takes brightness for harmless is told apart by the sign.
    assert found.malignancy_importance[found.outline].mean() < 0


def test_the_outline_is_that_of_the_ball():
    outline = explained(brightness_of(slice(None), slice(None), slice(None))).outline
    rows, columns = np.nonzero(outline[2])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((25, 39, 25, 39), abs=1)


def test_a_network_that_looks_at_nothing_gives_nothing():
    found = explained(lambda crops: np.full(len(crops), 0.7))
    assert not found.nodule_importance.any()
    assert found.share_within_outline is None
    assert found.nodule_probability == pytest.approx(0.7)


def test_a_cell_is_all_there_is_to_know():
    """Within a cell all voxels are covered by the same blocks."""
    found = explained(brightness_of(slice(None), slice(20, 40), slice(20, 40)))
    small = cells(found.nodule_importance, found.cell_px)
    assert small.repeat(found.cell_px, axis=1).repeat(found.cell_px, axis=2) == pytest.approx(found.nodule_importance)


def test_it_ends_at_the_next_step_when_it_is_told_to():
    class Enough(LungNoduleError):
        pass

    def stop(fraction: float) -> None:
        if fraction > 0:
            raise Enough("enough")

    with pytest.raises(Enough):
        explain(ball(), CENTER, 10.0, model_that(lambda crops: np.full(len(crops), 0.7)), stop)


def test_a_network_that_answers_no_numbers_is_refused():
    with pytest.raises(ModelError):
        explained(lambda crops: np.full(len(crops), np.nan))
