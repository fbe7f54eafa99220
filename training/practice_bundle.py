"""A small bundle in the form of MONAI's `lung_nodule_ct_detection`, trained here, in MONAI's own code, on phantoms.

    python -m training practice-monai BUNDLE_DIR --steps 150

The published weights are not needed to prove the import: any weights show whether two pipelines give the same boxes,
as long as the boxes are real and many. The network is narrower than the published one, and its shape stands in the
bundle's configuration, so the importer meets nothing here that it does not meet there. It is no detector to be used: it
has seen a handful of phantoms.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.imaging.preprocessing import PreprocessingSpec, preprocess
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.nodules import NoduleSpec
from training.torchvision_on_cpu import declare_operators

_CROPS_AT_ONCE = 12
"""Of one phantom, two a step: the transform looks at the whole phantom each time, which costs more than a step."""


@dataclass(frozen=True)
class PracticeSpec:
    """What the small bundle is like; axes as MONAI's, (x, y, z) of an array that runs right, front and head."""

    spacing_xyz_mm: tuple[float, float, float] = (0.703125, 0.703125, 1.25)
    window_xyz: tuple[int, int, int] = (256, 256, 96)
    patch_xyz: tuple[int, int, int] = (64, 64, 32)
    planes: tuple[int, int, int, int] = (8, 16, 16, 16)
    pyramid_channels: int = 16
    score_threshold: float = 0.02
    steps: int = 150
    learning_rate: float = 0.01
    phantoms: int = 2
    phantom_shape_zyx: tuple[int, int, int] = (96, 224, 224)
    seed: int = 0


def bundle_config(spec: PracticeSpec) -> dict[str, Any]:
    """`configs/inference.json` of the small bundle."""
    x, y, z = spec.window_xyz
    return {
        "imports": [],
        "bundle_root": ".",
        "spatial_dims": 3,
        "num_classes": 1,
        "size_divisible": [16, 16, 8],
        "infer_patch_size": [x, y, z],
        "device": "$torch.device('cpu')",
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": [1, 2, 4],
            "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]],
        },
        "backbone": "$monai.networks.nets.resnet.ResNet(block='basic',layers=[1,1,1,1],"
        f"block_inplanes={list(spec.planes)},spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1],"
        "conv1_t_size=[7,7,7])",
        "feature_extractor": {
            "_target_": "monai.networks.blocks.backbone_fpn_utils.BackboneWithFPN",
            "backbone": "@backbone",
            "return_layers": {"layer1": "0", "layer2": "1"},
            "in_channels_list": list(spec.planes[:2]),
            "out_channels": spec.pyramid_channels,
            "spatial_dims": "@spatial_dims",
        },
        "network_def": {
            "_target_": "RetinaNet",
            "spatial_dims": "@spatial_dims",
            "num_classes": "@num_classes",
            "num_anchors": 3,
            "feature_extractor": "@feature_extractor",
            "size_divisible": "@size_divisible",
            "use_list_output": False,
        },
        "network": "$@network_def.to(@device)",
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
            "spatial_dims": "@spatial_dims",
            "num_classes": "@num_classes",
            "size_divisible": "@size_divisible",
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            (
                f"$@detector.set_box_selector_parameters(score_thresh={spec.score_threshold},"
                "topk_candidates_per_level=1000,nms_thresh=0.22,detections_per_img=300)"
            ),
            (
                "$@detector.set_sliding_window_inferer(roi_size=@infer_patch_size,overlap=0.25,sw_batch_size=1,"
                "mode='constant',device='cpu')"
            ),
        ],
        "preprocessing": {"_target_": "Compose", "transforms": _transforms(spec)},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "ClipBoxToImaged",
                    "box_keys": "box",
                    "label_keys": "label",
                    "box_ref_image_keys": "image",
                    "remove_empty": True,
                },
                {
                    "_target_": "AffineBoxToWorldCoordinated",
                    "box_keys": "box",
                    "box_ref_image_keys": "image",
                    "affine_lps_to_ras": True,
                },
            ],
        },
    }


def _transforms(spec: PracticeSpec) -> list[dict[str, Any]]:
    scale = {"a_min": -1024.0, "a_max": 300.0, "b_min": 0.0, "b_max": 1.0, "clip": True}
    return [
        {"_target_": "LoadImaged", "keys": "image", "reader": "PydicomReader", "affine_lps_to_ras": True},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": list(spec.spacing_xyz_mm)},
        {"_target_": "ScaleIntensityRanged", "keys": "image", **scale},
        {"_target_": "EnsureTyped", "keys": "image"},
    ]


def write_practice_bundle(folder: Path, spec: PracticeSpec) -> list[float]:
    """Train, and write ``configs/`` and ``models/model.pt``.

    Returns
    -------
    list of float
        The loss at every step.
    """
    folder.joinpath("configs").mkdir(parents=True, exist_ok=True)
    folder.joinpath("models").mkdir(exist_ok=True)
    config = bundle_config(spec)
    folder.joinpath("configs", "inference.json").write_text(json.dumps(config, indent=1))
    metadata = {
        "version": "0.0.1",
        "description": "Trained for minutes on phantoms; proves an import, finds nothing in patients.",
        "intended_use": "Tests only. Not for diagnosis.",
    }
    folder.joinpath("configs", "metadata.json").write_text(json.dumps(metadata, indent=1))
    network, losses = _trained(config, spec)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return losses


def _trained(config: dict[str, Any], spec: PracticeSpec) -> tuple[torch.nn.Module, list[float]]:
    """Train as the published `train.json` does: ATSS matcher, hard negatives, SGD with momentum."""
    declare_operators()
    from monai.bundle.config_parser import ConfigParser  # noqa: PLC0415
    from monai.utils.misc import set_determinism  # noqa: PLC0415

    set_determinism(spec.seed)
    parser = ConfigParser(config)
    detector = parser.get_parsed_content("detector")
    parser.get_parsed_content("detector_ops")
    detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
    detector.set_hard_negative_sampler(batch_size_per_image=64, positive_fraction=0.3, pool_size=20, min_neg=16)
    detector.train()
    optimizer = torch.optim.SGD(
        detector.network.parameters(), spec.learning_rate, momentum=0.9, weight_decay=3e-5, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))
    losses = []
    for images, targets in _batches(spec):
        said = detector(images, targets)
        loss = said[detector.cls_key] + said[detector.box_reg_key]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if len(losses) % 20 == 0:
            sys.stdout.write(f"step {len(losses)} loss {np.mean(losses[-20:]):.3f}\n")
            sys.stdout.flush()
    return detector.network.eval(), losses


def _batches(spec: PracticeSpec) -> Iterator[tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]]:
    from monai.apps.detection.transforms.dictionary import RandCropBoxByPosNegLabeld  # noqa: PLC0415

    if not spec.steps:
        return
    crop: Any = RandCropBoxByPosNegLabeld(
        image_keys="image", box_keys="box", label_keys="label", spatial_size=spec.patch_xyz, whole_box=True,
        num_samples=_CROPS_AT_ONCE, pos=1, neg=1,
    )  # fmt: skip
    crop.set_random_state(spec.seed)
    examples = [_example(spec, n) for n in range(spec.phantoms)]
    waiting: list[dict[str, Any]] = []
    for step in range(spec.steps):
        if not waiting:
            waiting = list(crop(examples[step % len(examples)]))
        crops = [waiting.pop(0), waiting.pop(0)]
        targets = [{"box": torch.as_tensor(c["box"]).float(), "label": torch.as_tensor(c["label"])} for c in crops]
        yield [torch.as_tensor(c["image"]).float() for c in crops], targets


def _example(spec: PracticeSpec, number: int) -> dict[str, Any]:
    """A phantom as MONAI's array (1, x, y, z), and its nodules as boxes (x, y, z, x, y, z) in index coordinates."""
    x, y, z = spec.spacing_xyz_mm
    rng = np.random.default_rng([spec.seed, number])
    specs = [NoduleSpec(float(d)) for d in rng.uniform(6.0, 14.0, 9)]
    phantom = phantom_ct(
        shape_zyx=spec.phantom_shape_zyx, spacing_zyx_mm=(z, y, x), nodules=specs, seed=1000 * spec.seed + number
    )
    return example_of(phantom, spec)


def example_of(phantom: PhantomCt, spec: PracticeSpec) -> dict[str, Any]:
    """Image and boxes in the orientation of the bundle."""
    x, y, z = spec.spacing_xyz_mm
    prepared = preprocess(
        phantom.volume,
        None,
        PreprocessingSpec(
            spacing_zyx_mm=(z, y, x), window_hu=(-1024.0, 300.0), extent="scan", directions_zyx="SAR", shape_multiple=1
        ),
    )
    centers = prepared.grid.to_index([nodule.center_lps_mm for nodule in phantom.nodules])[:, ::-1]
    half = np.array([[nodule.diameter_mm / 2] for nodule in phantom.nodules]) / np.array(spec.spacing_xyz_mm)
    boxes = np.concatenate([centers - half, centers + half], axis=1).astype(np.float32)
    values = np.ascontiguousarray(prepared.values.transpose(2, 1, 0)[None])
    return {"image": values, "box": boxes, "label": np.zeros(len(boxes), np.int64)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `python -m training practice-monai`."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=int, default=PracticeSpec.steps)


def run(options: argparse.Namespace) -> int:
    """Train a small bundle; gives the exit status."""
    write_practice_bundle(options.bundle, PracticeSpec(steps=options.steps))
    return 0
