"""A bundle small enough for a test, with weights that nobody trained and that speak up all the same."""

from __future__ import annotations

from pathlib import Path

from app.imaging.preprocessing import PreprocessingSpec, preprocess
from app.phantom.chest import phantom_ct
from training.monai_bundle import read_bundle
from training.monai_network import build_network
from training.practice_bundle import PracticeSpec, write_practice_bundle

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
