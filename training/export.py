"""Trained networks to a verified folder of the model store: graphs, manifest, model card, split."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from app.inference.manifest import (
    CharacteriserEntry,
    DetectorEntry,
    Malignancy,
    ModelManifest,
    Parity,
    Provenance,
)
from app.phantom.reference import reference_digest
from training.characteriser import Characteriser
from training.checkpoint import Checkpoint, averaged
from training.config import TrainingConfig
from training.decisions import Decisions, read_decisions
from training.detector import DecodedDetector, Detector
from training.model_card import model_card
from training.onnx_files import parity, write_onnx
from training.served import ServedCharacteriser
from training.starting_point import RECORD
from training.train import fold_folder
from training.verdict import write_verdict

INTENDED_USE = "Research use only, not for diagnosis. Finds lung nodules of 3 to 30 mm in chest CT of adults."
MALIGNANCY_MEANING = (
    "Probability that radiologists' mean LIDC-IDRI malignancy rating (1 to 5) is above 3 rather than below 3: "
    "readers' suspicion on one CT, not pathology."
)
DATA = (
    "LUNA16 candidate patches of 802 series (cut from LIDC-IDRI)",
    "LIDC-IDRI nodule slices with readers' outlines and ratings, 2,320 nodules",
    "LIDC-IDRI scans whose lungs received inserted nodules",
)
WHOLE_LUNA16_DATA = (
    "LUNA16: whole scans with their own nodules, irrelevant findings left out, and the candidates of candidates_V2",
    "LIDC-IDRI readers' outlines and ratings of nodules in these scans",
)
DATA_LICENCE = "LIDC-IDRI: CC BY 3.0 (The Cancer Imaging Archive); LUNA16: CC BY 4.0"


def load_characteriser(config: TrainingConfig, fold: int) -> Characteriser:
    """The averaged weights of a finished or running training."""
    network = Characteriser(config.characteriser.widths, len(config.characteriser.attributes))
    _load(network, fold_folder(config, fold) / "characteriser.ckpt")
    return network.eval()


def load_detector(config: TrainingConfig, fold: int) -> Detector:
    """The averaged weights of a finished or running training."""
    network = Detector(config.detector.widths, config.detector.blocks)
    _load(network, fold_folder(config, fold) / "detector.ckpt")
    return network.eval()


def _load(network: nn.Module, path: Path) -> None:
    average = averaged(network, 0.0)
    average.load_state_dict(Checkpoint.read(path)["average"])
    network.load_state_dict(average.module.state_dict())


def export_model(config: TrainingConfig, fold: int, folder: Path, decisions: Decisions) -> ModelManifest:
    """Write both graphs and the manifest; the graphs must answer as torch does.

    Raises
    ------
    ParityError
        If ONNX Runtime and torch differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    detector = DecodedDetector(
        load_detector(config, fold), spacing_mm=config.preprocessing.spacing_mm, top=config.detector.top
    )
    characteriser = ServedCharacteriser(
        load_characteriser(config, fold), decisions.nodule, decisions.malignancy, decisions.mask_shift
    )
    detector_parity = _export_detector(detector.eval(), folder / "detector.onnx", config)
    characteriser_parity = _export_characteriser(characteriser.eval(), folder / "characteriser.onnx", config)
    manifest = ModelManifest(
        name=config.name,
        version=config.version,
        intended_use=INTENDED_USE,
        preprocessing=config.preprocessing,
        preprocessing_digest=reference_digest(config.preprocessing, config.crop),
        detector=DetectorEntry(
            file="detector.onnx",
            sha256=_sha256(folder / "detector.onnx"),
            parity=detector_parity,
            score_threshold=decisions.score_threshold,
            halo_voxels=decisions.halo_voxels,
        ),
        characteriser=CharacteriserEntry(
            file="characteriser.onnx",
            sha256=_sha256(folder / "characteriser.onnx"),
            parity=characteriser_parity,
            crop=config.crop,
            verdict=write_verdict(folder),
            attribute_names=tuple(name.lower() for name in config.characteriser.attributes),
            detector_weight=decisions.detector_weight,
        ),
        operating_points=decisions.operating_points,
        default_operating_point=decisions.default_operating_point,
        malignancy=Malignancy(meaning=MALIGNANCY_MEANING),
        metrics=tuple(decisions.metrics),
        provenance=Provenance(
            code=_training_code(config, fold),
            config=config.name,
            seed=config.seed,
            data=DATA if config.data.luna16 is None else WHOLE_LUNA16_DATA,
            data_licence=DATA_LICENCE,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _export_detector(network: DecodedDetector, path: Path, config: TrainingConfig) -> Parity:
    multiple = config.preprocessing.shape_multiple
    sizes = {axis: multiple * torch.export.Dim(name) for axis, name in ((2, "z"), (3, "y"), (4, "x"))}
    write_onnx(network, path, torch.rand(1, 1, 96, 112, 128), "volume", ["boxes", "scores"], sizes)
    generator = torch.Generator().manual_seed(config.seed)
    smooth = nn.functional.avg_pool3d(torch.rand(1, 1, 82, 98, 114, generator=generator), 3, 1)
    return parity(network, path, "volume", smooth)


def _export_characteriser(network: ServedCharacteriser, path: Path, config: TrainingConfig) -> Parity:
    size = config.crop.size_px
    outputs = ["nodule_probability", "malignancy_probability", "attributes", "mask_probability"]
    sizes = {0: torch.export.Dim("n"), 1: torch.export.Dim("s")}
    write_onnx(network, path, torch.rand(3, 2, size, size), "crops", outputs, sizes)
    generator = torch.Generator().manual_seed(config.seed)
    return parity(network, path, "crops", torch.rand(7, 3, size, size, generator=generator))


def export(config: TrainingConfig, *, fold: int, store: Path) -> Path:
    """Write ``store/<name>/<version>`` from a run that `evaluate` has measured; nothing in it is typed by hand.

    Raises
    ------
    FileNotFoundError
        If the run has not been evaluated.
    """
    decisions = read_decisions(config.folder / f"evaluation-fold{fold}.json")
    folder = store / config.name / config.version
    manifest = export_model(config, fold, folder, decisions)
    (folder / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    shutil.copyfile(config.folder / "split.json", folder / "split.json")
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _training_code(config: TrainingConfig, fold: int) -> str:
    """Commits that the two checkpoints were trained with, and the model that they went on from."""
    parts = {
        stage: Checkpoint.read(fold_folder(config, fold) / f"{stage}.ckpt")["code"]
        for stage in ("detector", "characteriser")
    }
    record = fold_folder(config, fold) / RECORD
    went_on = f", both gone on from {record.read_text(encoding='utf-8').strip()}" if record.exists() else ""
    return ", ".join(f"{stage} {code}" for stage, code in parts.items()) + went_on
