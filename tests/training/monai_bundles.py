"""A bundle small enough for a test, with weights that nobody trained and that speak up all the same."""

from __future__ import annotations

from pathlib import Path

from training.practice_bundle import PracticeSpec, write_practice_bundle

SPEC = PracticeSpec(
    spacing_xyz_mm=(3.0, 3.0, 4.0), window_xyz=(96, 96, 48), planes=(8, 8, 8, 8), pyramid_channels=8, steps=0, seed=3
)


def write_talkative_bundle(folder: Path) -> Path:
    """Random weights, with the heads' last layers scaled so that scores spread over 0..1 and boxes differ in size."""
    import torch  # noqa: PLC0415 - slow, and absent where only the service is installed

    write_practice_bundle(folder, SPEC)
    path = folder / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    state["classification_head.cls_logits.weight"] *= 60
    state["classification_head.cls_logits.bias"] += 1.5
    state["regression_head.bbox_reg.weight"] *= 8
    torch.save(state, path)
    return folder
