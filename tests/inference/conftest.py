"""The tiny model, loaded once; and a prepared volume with bright balls where a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from app.imaging.volume import Grid, PreparedVolume
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from tests.tiny_model import PREPROCESSING

LUNG, NODULE = 0.12, 0.72
"""Network units of -850 and 0 HU in the default window."""


@pytest.fixture(scope="session")
def tiny_model(tiny_model_store: Path) -> LoadedModel:
    return load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))


@pytest.fixture
def prepared_with() -> Callable[..., PreparedVolume]:
    def build(
        centers_zyx: Sequence[Sequence[float]],
        *,
        shape: tuple[int, int, int] = (48, 56, 64),
        radius_voxels: float = 2.0,
        grid: Grid | None = None,
        in_lungs: np.ndarray | None = None,
    ) -> PreparedVolume:
        values = np.random.default_rng(0).normal(LUNG, 0.002, shape).astype(np.float32)
        index = np.moveaxis(np.indices(shape), 0, -1)
        for center in centers_zyx:
            values[np.linalg.norm(index - np.asarray(center), axis=-1) <= radius_voxels] = NODULE
        grid = grid or Grid.from_spacing(shape, (2.0, 2.0, 2.0))
        return PreparedVolume(values, grid, PREPROCESSING.digest, in_lungs=in_lungs)

    return build
