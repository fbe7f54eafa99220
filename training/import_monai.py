"""Turns MONAI's lung nodule detection bundle into a verified folder of the model store.

    python -m training import-monai BUNDLE_DIR_OR_ZIP --name monai-retinanet --with-characteriser lungnodule:0.2.0

What is read of the bundle, and how nothing of it is run, stands in `training.monai_bundle`;
docs/bring-your-own-network.md says what the service then does with it.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from app.imaging.errors import ModelError
from app.imaging.preprocessing import PreprocessingSpec
from app.inference.detector_kinds import AnchorLevel, WindowRule
from app.inference.manifest import (
    CharacteriserEntry,
    DetectorEntry,
    ModelManifest,
    OperatingPointEntry,
    Provenance,
    PublishedFigure,
    RetinaNetEntry,
)
from app.phantom.reference import reference_digest
from training.monai_bundle import Bundle, read_bundle
from training.monai_config import BundleError
from training.onnx_files import ParityError

_GRAPH = "detector.onnx"
_ONE_GRAPH_MULTIPLE, _ONE_GRAPH_HALO = 16, 64
INTENDED_USE = "Research use only, not for diagnosis. Imported detector: {described}"


def import_bundle(
    bundle: Bundle,
    folder: Path,
    *,
    name: str,
    version: str,
    one_graph: bool = False,
    lung_box: bool = False,
    within_lungs: bool = False,
    characteriser_of: Path | None = None,
    detector_weight: float = 1.0,
    operating_point: float | None = None,
) -> ModelManifest:
    """Write ``folder``: the graph, the manifest, a model card.

    Parameters
    ----------
    bundle
        From `training.monai_bundle.read_bundle`.
    folder
        ``<store>/<name>/<version>``; must not exist.
    name, version
        Of the new model.
    one_graph
        Decode in the graph (``boxes-3d``) instead of blending windows before decoding (``retinanet-heads``).
    lung_box
        Prepare only the box around the lungs: less to compute, other answers than the bundle's.
    within_lungs
        Drop what lies outside the lungs, which the bundle does not.
    characteriser_of
        Folder of another model, whose second stage is copied beside the detector.
    detector_weight
        Share of the detector in the final log-odds; 1 keeps the bundle's own scores.
    operating_point
        Score from which on boxes are reported unless a caller asks for another point; None: all that the bundle gives.

    Raises
    ------
    BundleError
        If the bundle cannot be reproduced or gives no boxes that low, or ONNX Runtime differs from torch.
    ModelError
        If the other model is not what its manifest says.
    """
    points = _operating_points(bundle, operating_point)
    folder.mkdir(parents=True)
    spec = _spec(bundle, one_graph=one_graph, lung_box=lung_box)
    # First what is over soonest: the export takes longest.
    other = None if characteriser_of is None else _copied(characteriser_of, folder, detector_weight)
    detector = _detector(bundle, folder, one_graph=one_graph, within_lungs=within_lungs)
    second = None if other is None else other[0]
    manifest = ModelManifest(
        name=name,
        version=version,
        intended_use=INTENDED_USE.format(
            described=bundle.metadata.get("description", "its bundle does not say of what")
        ),
        preprocessing=spec,
        preprocessing_digest=reference_digest(spec, None if second is None else second.crop),
        detector=detector,
        characteriser=second,
        operating_points=points,
        default_operating_point="stated" if "stated" in points else "bundle",
        malignancy=None if other is None else other[1].malignancy,
        published=_published(bundle),
        provenance=_provenance(bundle),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(_card(manifest), encoding="utf-8")
    return manifest


def _spec(bundle: Bundle, *, one_graph: bool, lung_box: bool) -> PreprocessingSpec:
    x, y, z = bundle.spacing_xyz_mm
    return PreprocessingSpec(
        spacing_zyx_mm=(z, y, x),
        window_hu=bundle.window_hu,
        extent="lungs" if lung_box else "scan",
        directions_zyx="SAR",
        # Heads are padded where they are run, as MONAI pads.
        shape_multiple=_ONE_GRAPH_MULTIPLE if one_graph else 1,
    )


def _detector(bundle: Bundle, folder: Path, *, one_graph: bool, within_lungs: bool) -> DetectorEntry | RetinaNetEntry:
    from training.monai_export import bundle_parity, export_network  # noqa: PLC0415 - torch, once the bundle is understood
    from training.monai_network import (  # noqa: PLC0415
        MAX_LOG_SIZE,
        DecodedRetinaNet,
        HeadsZyx,
        build_network,
        strides_zyx,
    )

    network = build_network(bundle)
    strides = strides_zyx(network, bundle)
    x, y, z = bundle.network.size_divisible_xyz
    multiple = (_ONE_GRAPH_MULTIPLE,) * 3 if one_graph else (z, y, x)
    numbers = range(len(strides))
    if one_graph:
        if any(_ONE_GRAPH_MULTIPLE % n for n in (x, y, z)):
            raise BundleError(f"one graph needs sizes that divide {_ONE_GRAPH_MULTIPLE}, the network {(x, y, z)}")
        served: nn.Module = DecodedRetinaNet(network, bundle, strides)
        outputs = ["boxes", "scores"]
    else:
        served = HeadsZyx(network)
        outputs = [f"{head}_{number}" for head in ("logits", "deltas") for number in numbers]
    served.eval()
    export_network(served, folder / _GRAPH, outputs, multiple)
    selection = bundle.selection
    shared = {
        "file": _GRAPH,
        "sha256": hashlib.sha256((folder / _GRAPH).read_bytes()).hexdigest(),
        "parity": bundle_parity(served, folder / _GRAPH, multiple),
        "score_threshold": selection.score_thresh,
        "nms_iou": selection.nms_thresh,
        "max_candidates": selection.detections_per_img,
        "within_lungs": within_lungs,
    }
    if one_graph:
        return DetectorEntry(halo_voxels=_ONE_GRAPH_HALO, **shared)
    wx, wy, wz = bundle.window_xyz
    return RetinaNetEntry(
        kind="retinanet-heads",
        levels=tuple(
            AnchorLevel(
                stride_zyx=stride,
                first_cell_zyx=tuple(float(n // 2) for n in stride),
                sizes_zyx=tuple(size[::-1] for size in bundle.anchor_sizes_xyz(number)),
            )
            for number, stride in enumerate(strides)
        ),
        multiple_zyx=multiple,
        window=WindowRule(shape_zyx=(wz, wy, wx), overlap=bundle.overlap),
        delta_weights_zyx=tuple(bundle.coder_weights[i] for i in (2, 1, 0, 5, 4, 3)),
        max_log_size=MAX_LOG_SIZE,
        top_per_level=selection.topk_candidates_per_level,
        **shared,
    )


def _copied(source: Path, folder: Path, detector_weight: float) -> tuple[CharacteriserEntry, ModelManifest]:
    """The second stage of another model, its files beside the detector; variants stay behind."""
    from app.inference.model_store import verify_model  # noqa: PLC0415 - opens nothing that the importer needs otherwise

    other = verify_model(source)
    entry = other.second_stage
    if not isinstance(entry, CharacteriserEntry):
        raise BundleError(
            f"the characteriser of {other.name} is of kind {entry.kind}; only axial-crops can be taken over"
        )
    files = [entry.file] if entry.verdict is None else [entry.file, entry.verdict.file]
    for file in files:
        if file == _GRAPH:
            raise BundleError(f"the characteriser of {other.name} is called {file}, as the detector would be")
        shutil.copyfile(source / file, folder / file)
    verdict = entry.verdict and entry.verdict.model_copy(update={"variants": {}})
    changes: dict[str, Any] = {
        "variants": {},
        "verdict": verdict,
        "detector_weight": detector_weight,
        "taken_from": f"{other.name}:{other.version}",
    }
    return entry.model_copy(update=changes), other


def _operating_points(bundle: Bundle, stated: float | None) -> dict[str, OperatingPointEntry]:
    least = bundle.selection.score_thresh
    points = {"bundle": OperatingPointEntry(threshold=least, description="Every box that the bundle itself gives.")}
    if least < 0.5:
        points["half"] = OperatingPointEntry(threshold=0.5, description="Boxes with a score of a half; not measured.")
    if stated is not None:
        if not least <= stated < 1:
            raise BundleError(f"operating point {stated:g}: the bundle gives boxes with scores from {least:g} up to 1")
        points["stated"] = OperatingPointEntry(threshold=stated, description="Chosen at import; not measured here.")
    return points


def _published(bundle: Bundle) -> tuple[PublishedFigure, ...]:
    """What the bundle's metadata says of itself. Zeros stand there where nothing was filled in."""
    told, by = bundle.metadata.get("eval_metrics", {}), bundle.metadata.get("authors", "authors not named")
    where = f"{by}, metadata.json of the bundle, version {bundle.metadata.get('version', 'not told')}"
    data = str(bundle.metadata.get("data_source", "data not named"))
    return tuple(
        PublishedFigure(name=str(name), value=float(value), data=data, published_by=where)
        for name, value in told.items()
        if isinstance(value, int | float) and math.isfinite(value) and value != 0
    )


def _provenance(bundle: Bundle) -> Provenance:
    digest = hashlib.sha256(bundle.weights).hexdigest()
    return Provenance(
        code=f"MONAI bundle {bundle.metadata.get('version', 'of no version')}, {bundle.weights_name} sha256 {digest}",
        config="configs/inference.json of the bundle",
        seed=0,
        data=(str(bundle.metadata.get("data_source", "not told by the bundle")),),
        data_licence="not told by the bundle's metadata; see the licence that came with it",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _card(manifest: ModelManifest) -> str:
    told = [f"- {f.name}: {f.value:g}, {f.data} ({f.published_by})" for f in manifest.published]
    second = manifest.characteriser if isinstance(manifest.characteriser, CharacteriserEntry) else None
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        manifest.intended_use,
        "",
        f"Imported, not trained here: {manifest.provenance.code}.",
        f"Head: {manifest.detector.kind}. Preprocessing: the manifest. Nothing was measured on patients here.",
        "",
        "Second stage: none, so no malignancy, outline or volume."
        if second is None
        else f"Second stage: that of {second.taken_from}; the final probability is the detector's with weight "
        f"{second.detector_weight:g}. The two were never tuned to each other.",
        "",
        "## Figures of whoever made the network",
        "",
        *(told or ["The bundle states none."]),
        "",
    ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("bundle", type=Path, help="the bundle's folder, or a zip of it")
    parser.add_argument("--name", default="monai-retinanet")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    parser.add_argument("--with-characteriser", metavar="NAME:VERSION", help="copy that stored model's second stage")
    parser.add_argument("--detector-weight", type=float, default=1.0, help="1: the final score is the detector's")
    parser.add_argument("--operating-point", type=float, metavar="SCORE", help="report boxes from this score on")
    parser.add_argument("--one-graph", action="store_true", help="decode boxes in the graph; windows are not blended")
    parser.add_argument("--lung-box", action="store_true", help="run over the lungs' box only: faster, other answers")
    parser.add_argument("--within-lungs", action="store_true", help="drop boxes outside the lungs")
    parser.add_argument("--spacing-mm", type=float, nargs=3, metavar=("X", "Y", "Z"), help="where the bundle sets none")


def run(options: argparse.Namespace) -> int:
    """Import from the command line; returns the exit status."""
    folder = options.store / options.name / options.version
    if folder.exists():
        sys.stderr.write(f"{folder} is there already; choose another --version\n")
        return 2
    try:
        bundle = read_bundle(options.bundle, spacing_xyz_mm=options.spacing_mm and tuple(options.spacing_mm))
        other = options.with_characteriser
        manifest = import_bundle(
            bundle,
            folder,
            name=options.name,
            version=options.version,
            one_graph=options.one_graph,
            lung_box=options.lung_box,
            within_lungs=options.within_lungs,
            characteriser_of=None if other is None else options.store.joinpath(*other.split(":", 1)),
            detector_weight=options.detector_weight,
            operating_point=options.operating_point,
        )
    except (BundleError, ModelError, ParityError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.write(f"{error}\n")
        return 2
    parity = manifest.detector.parity
    assert parity is not None
    sys.stdout.write(
        f"{folder}: {manifest.detector.kind}, torch and ONNX Runtime differ by {parity.max_abs_difference:.1e}\n"
    )
    return 0
