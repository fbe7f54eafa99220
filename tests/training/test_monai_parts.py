"""The parts of the service that do what parts of MONAI do, against those."""

from __future__ import annotations

import numpy as np
import pytest

from app.inference.boxes import iou, non_maximum_suppression
from app.inference.detector_kinds import WindowRule
from app.inference.windows import maps_of_volume
from tests.training.monai_bundles import needs_monai

__all__ = ["needs_monai"]

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of what it will change and of what is not installed


def test_suppression_keeps_what_monais_keeps() -> None:
    import torch  # noqa: PLC0415
    from monai.data.box_utils import non_max_suppression  # noqa: PLC0415

    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (400, 3))
    boxes, scores = np.c_[low, low + rng.uniform(3, 15, (400, 3))], rng.uniform(0, 1, 400)
    ours = non_maximum_suppression(boxes, scores, 0.22)
    assert 10 < len(ours) < 400
    assert ours.tolist() == non_max_suppression(torch.tensor(boxes), torch.tensor(scores), 0.22).tolist()
    assert np.triu(iou(boxes[ours], boxes[ours]), 1).max() <= 0.22


@pytest.mark.parametrize(
    "shape_zyx",
    [
        (16, 48, 48),  # the window itself
        (24, 80, 112),  # several along each axis
        (10, 50, 80),  # no multiple, and flatter than a window
        (40, 33, 95),
    ],
)
def test_windows_are_blended_as_monai_blends_them(shape_zyx: tuple[int, int, int]) -> None:
    """A made-up network whose maps depend on the whole window, as normalised ones do."""
    import torch  # noqa: PLC0415
    from monai.inferers import SlidingWindowInferer  # noqa: PLC0415

    def network(volume: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        told = volume + volume.mean()
        return torch.nn.functional.avg_pool3d(told, (4, 4, 2)), torch.nn.functional.avg_pool3d(told, (8, 8, 4))

    def ours(cut: np.ndarray) -> dict[str, np.ndarray]:
        said = network(torch.from_numpy(np.ascontiguousarray(cut.transpose(0, 1, 4, 3, 2))))
        return {str(n): level.numpy().transpose(0, 1, 4, 3, 2) for n, level in enumerate(said)}

    values = np.random.default_rng(0).random(shape_zyx, dtype=np.float32)
    maps, padded = maps_of_volume(values, ours, WindowRule(shape_zyx=(16, 48, 48), overlap=0.25), (4, 8, 8))
    volume = torch.zeros(1, 1, *padded[::-1])
    volume[0, 0, : shape_zyx[2], : shape_zyx[1], : shape_zyx[0]] = torch.from_numpy(values.transpose(2, 1, 0).copy())
    expected = SlidingWindowInferer(roi_size=(48, 48, 16), overlap=0.25, mode="constant")(volume, network)
    for n, level in enumerate(expected):
        assert maps[str(n)].transpose(0, 1, 4, 3, 2) == pytest.approx(level.numpy(), abs=1e-5)
