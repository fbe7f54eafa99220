"""A bundle small enough for a test, with weights that nobody trained and that speak up all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.imaging.preprocessing import PreprocessingSpec, preprocess
from app.phantom.chest import phantom_ct
from training.monai_bundle import read_bundle
from training.monai_network import build_network
from training.practice_bundle import PracticeSpec, write_practice_bundle
from training.torchvision_on_cpu import declare_operators, installed

SPEC = PracticeSpec(
    spacing_xyz_mm=(3.0, 3.0, 4.0), window_xyz=(96, 96, 48), planes=(8, 8, 8, 8), pyramid_channels=8, steps=0, seed=3
)


def write_talkative_bundle(folder: Path) -> Path:
    """Random weights, with the heads' last layers scaled so that on a chest scores spread and boxes differ in size."""
    import torch  # noqa: PLC0415 - slow, and absent where only the service is installed

    write_practice_bundle(folder, SPEC)
    path = folder / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    network = build_network(read_bundle(folder))
    x, y, z = SPEC.spacing_xyz_mm
    spec = PreprocessingSpec(
        spacing_zyx_mm=(z, y, x), window_hu=(-1024, 300), extent="scan", directions_zyx="SAR", shape_multiple=16
    )
    chest = preprocess(phantom_ct(shape_zyx=(24, 64, 64), spacing_zyx_mm=(8.0, 6.0, 6.0)).volume, None, spec).values
    with torch.no_grad():
        said = network(torch.from_numpy(chest.transpose(2, 1, 0).copy())[None, None])
    for head, key, mean, spread in (
        ("classification_head.cls_logits", "classification", -6.5, 2.0),
        ("regression_head.bbox_reg", "box_regression", 0.0, 0.25),
    ):
        values = torch.cat([level.flatten() for level in said[key]])
        factor = spread / values.std()
        state[f"{head}.weight"] *= factor
        state[f"{head}.bias"] = (state[f"{head}.bias"] - values.mean()) * factor + mean
    torch.save(state, path)
    return folder


@pytest.fixture(scope="module", autouse=True)
def needs_monai() -> Iterator[None]:
    """Parity is measured against MONAI itself; its Orientationd needs nibabel."""
    missing = [] if installed() else ["torchvision (sh requirements/install_torch.sh)"]
    try:
        import nibabel  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        missing.append("nibabel")
    if missing:
        message = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    import torch  # noqa: PLC0415

    declare_operators()
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])
