"""A bundle's configuration is read, never run."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from training.monai_bundle import read_bundle
from training.monai_config import BundleError, Configuration
from training.practice_bundle import PracticeSpec, bundle_config


def write_bundle(folder: Path, *, weights: bytes = b"weights", **changes: Any) -> Path:
    """A bundle whose entries are those of the small one, but for ``changes``."""
    folder.joinpath("configs").mkdir(parents=True)
    folder.joinpath("models").mkdir()
    config = {**bundle_config(PracticeSpec()), **changes}
    folder.joinpath("configs", "inference.json").write_text(json.dumps(config))
    folder.joinpath("models", "model.pt").write_bytes(weights)
    return folder


def published() -> dict[str, Any]:
    """The entries that the published bundle writes in other words than the small one."""
    return {
        "whether_raw_luna16": False,
        "whether_resampled_luna16": "$(not @whether_raw_luna16)",
        "backbone": "$monai.networks.nets.resnet.resnet50(spatial_dims=3,n_input_channels=1,"
        "conv1_t_stride=[2,2,1],conv1_t_size=[7,7,7])",
        "feature_extractor": "$monai.apps.detection.networks.retinanet_network."
        "resnet_fpn_feature_extractor(@backbone,3,False,[1,2],None)",
        "infer_patch_size": [512, 512, 192],
    }


def test_the_published_form_is_understood(tmp_path: Path) -> None:
    bundle = read_bundle(write_bundle(tmp_path / "b", **published()))
    assert (bundle.network.backbone.name, bundle.network.extractor.name) == ("resnet50", "resnet_fpn_feature_extractor")
    assert bundle.network.extractor.positional[1:] == (3, False, [1, 2], None)
    assert bundle.window_xyz == (512, 512, 192)
    assert bundle.spacing_xyz_mm == (0.703125, 0.703125, 1.25)
    assert bundle.window_hu == (-1024.0, 300.0)
    assert (bundle.selection.nms_thresh, bundle.selection.detections_per_img) == (0.22, 300)
    # Half of 5 is rounded to the even 2, as torch rounds: the anchor is 4 voxels high, not 5.
    assert bundle.anchor_sizes_xyz(0) == [(6, 8, 4), (8, 6, 4), (10, 10, 6)]
    assert bundle.anchor_sizes_xyz(1)[1] == (16, 12, 10)


def test_spacing_counts_though_it_is_disabled_for_resampled_data(tmp_path: Path) -> None:
    transforms = bundle_config(PracticeSpec())["preprocessing"]["transforms"]
    for transform in transforms:
        if transform["_target_"] == "Spacingd":
            transform["_disabled_"] = "@whether_resampled_luna16"
    preprocessing = {"_target_": "Compose", "transforms": transforms}
    bundle = read_bundle(write_bundle(tmp_path / "b", preprocessing=preprocessing, **published()))
    assert bundle.spacing_xyz_mm == (0.703125, 0.703125, 1.25)


def test_a_bundle_that_does_not_resample_needs_to_be_told(tmp_path: Path) -> None:
    transforms = [
        t for t in bundle_config(PracticeSpec())["preprocessing"]["transforms"] if "Spacing" not in t["_target_"]
    ]
    folder = write_bundle(tmp_path / "b", preprocessing={"_target_": "Compose", "transforms": transforms})
    with pytest.raises(BundleError, match="--spacing-mm"):
        read_bundle(folder)
    assert read_bundle(folder, spacing_xyz_mm=(0.7, 0.7, 1.25)).spacing_xyz_mm == (0.7, 0.7, 1.25)


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('true')",
        "$monai.networks.nets.resnet.resnet50(spatial_dims=__import__('os').getpid())",
        "$(lambda: 3)()",
        "$[resnet50(spatial_dims=3)][0]",
        "$resnet50(**{'spatial_dims': 3})",
        "$open('/etc/passwd').read()",
        "$not python at all",
        "$eval('1')",
    ],
)
def test_no_expression_is_run(tmp_path: Path, expression: str) -> None:
    with pytest.raises(BundleError, match=r"not run|known are"):
        read_bundle(write_bundle(tmp_path / "b", backbone=expression))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone": "$monai.networks.nets.densenet121(spatial_dims=3)"}, "densenet121"),
        ({"backbone": "$monai.networks.nets.resnet.resnet50(spatial_dims=3,norm='instance')"}, "norm"),
        ({"num_classes": 2}, "2 classes"),
        ({"anchor_generator": {"_target_": "AnchorGenerator", "sizes": [[8]]}}, "AnchorGeneratorWithAnchorShape"),
        ({"detector_ops": ["$@detector.set_sliding_window_inferer(roi_size=[64,64,64],mode='gaussian')"]}, "constant"),
        ({"detector_ops": ["$@detector.set_something(1)"]}, "set_something"),
        ({"detector_ops": ["$@network.eval()"]}, "not run"),
        ({"detector_ops": []}, "sliding window"),
        ({"backbone": "@backbone"}, "circle"),
    ],
)
def test_what_cannot_be_reproduced_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BundleError, match=says):
        read_bundle(write_bundle(tmp_path / "b", **changes))


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        ("Orientationd", {"axcodes": "LPS"}, "LPS"),
        ("ScaleIntensityRanged", {"clip": False}, "clip"),
        ("Spacingd", {"mode": "nearest"}, "linearly"),
        ("LoadImaged", {"_target_": "NormalizeIntensityd"}, "NormalizeIntensityd"),
    ],
)
def test_a_transform_that_changes_the_array_otherwise_is_refused(
    tmp_path: Path, target: str, changes: dict[str, Any], says: str
) -> None:
    transforms = bundle_config(PracticeSpec())["preprocessing"]["transforms"]
    next(t for t in transforms if t["_target_"] == target).update(changes)
    with pytest.raises(BundleError, match=says):
        read_bundle(write_bundle(tmp_path / "b", preprocessing={"_target_": "Compose", "transforms": transforms}))


def test_a_zip_is_read_wherever_the_bundle_lies_in_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, f"lung_nodule_ct_detection/{path.relative_to(folder)}")
    bundle = read_bundle(tmp_path / "b.zip")
    assert (bundle.weights, bundle.weights_name) == (b"weights", "models/model.pt")


def test_an_incomplete_bundle_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(BundleError, match="holds neither models/model"):
        read_bundle(folder)
    (folder / "configs" / "inference.json").unlink()
    with pytest.raises(BundleError, match="holds no configs/inference"):
        read_bundle(folder)
    (tmp_path / "file").write_bytes(b"neither")
    with pytest.raises(BundleError, match="neither a folder nor a zip"):
        read_bundle(tmp_path / "file")


def test_references_lead_into_lists_and_objects() -> None:
    configuration = Configuration({"a": {"b": [1, "@c"]}, "c": 7, "d": ["@a#b#1"]})
    assert configuration.value("d") == [7]
    with pytest.raises(BundleError, match="no entry 'e'"):
        configuration.value("e")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).resolve().parents[2] / "training").rglob("*.py")), ids=lambda p: p.stem
)
def test_no_module_imports_monai_before_a_command_begins(path: Path) -> None:
    """Its detection stays broken for the whole process unless `before_monai` came first."""
    imported = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            imported += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append(str(node.module))
    assert not [name for name in imported if name.split(".")[0] in {"monai", "torchvision"}]
