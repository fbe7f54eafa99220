"""Variants of an exported model in cheaper arithmetic, each measured against fp32 before it may be chosen.

    python -m training.variants --config training/configs/NAME.toml --fold 0 --model model_store/NAME/VERSION

Makes int8 (and, if asked, float16) graphs, tries them and OpenVINO's arithmetics on held-out lungs, patches and
nodules, writes what lost less than half a point into the manifest, and all that was tried, accepted or not, into
VARIANTS.md beside it. Run it on idle cores: it also measures seconds, in turns, and memory.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.inference.manifest import FP32, DetectorEntry, ModelManifest, NetworkFile, NetworkVariant, load_manifest
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from app.inference.openvino_network import has_openvino
from training.config import TrainingConfig, load_config
from training.prepare import Prepared, prepare
from training.quantise import float16, int8
from training.variant_judgement import (
    KINDS,
    ROLES,
    Trial,
    bytes_per_voxel,
    judge_characteriser,
    judge_detector,
    judge_together,
    report,
)
from training.variant_trials import (
    Sizes,
    characteriser_samples,
    crop_trial,
    detector_samples,
    lung_trials,
    score_crops,
    try_detectors,
)
from training.verdict import VERDICT_FILE, without_mask, write_verdict

DEFAULT_SIZES = Sizes()
INPUTS = {"detector": "volume", "characteriser": "crops"}


def make_variants(
    config: TrainingConfig, fold: int, model: Path, names: Sequence[str], sizes: Sizes = DEFAULT_SIZES
) -> list[Trial]:
    """Make, try, and write what is accepted; returns every trial. Variants that the manifest had are replaced.

    Raises
    ------
    app.imaging.errors.ModelError
        If the model folder is not sound.
    """
    prepared = prepare(config)
    with tempfile.TemporaryDirectory(prefix="lungnodule-variants-") as scratch:
        workshop = Path(shutil.copytree(model, Path(scratch) / "model"))
        manifest = _with_variants(_with_verdict(workshop, load_manifest(model)), [])
        untried = _build(config, prepared, fold, manifest, workshop, names, sizes)
        _write(workshop, _with_variants(manifest, untried))
        session = SessionOptions(device="cpu", threads=config.threads)
        loaded = {name: load_model(workshop, session, name) for name in (FP32, *names)}
        trials = _tried(config, prepared, fold, loaded, untried, sizes)
        memory = {name: bytes_per_voxel(workshop, name) for name in (FP32, *names)}
        trials = [
            replace(t, variant=t.variant.model_copy(update={"bytes_per_voxel": memory[t.name]}))
            if t.role == "detector"
            else t
            for t in trials
        ]
        _ship(model, workshop, manifest, trials, memory[FP32])
    (model / "VARIANTS.md").write_text(report(manifest, trials, fold), encoding="utf-8")
    return trials


def _build(
    config: TrainingConfig,
    prepared: Prepared,
    fold: int,
    manifest: ModelManifest,
    workshop: Path,
    names: Sequence[str],
    sizes: Sizes,
) -> list[Trial]:
    """Files where a kind needs its own, and entries that let every kind run here."""
    entries = manifest.networks
    trials = []
    for role in ROLES:
        content = (workshop / entries[role].file).read_bytes()
        for name in names:
            if name == "int8":
                sampled = detector_samples if role == "detector" else characteriser_samples
                made = int8(content, INPUTS[role], sampled(config, prepared, fold, sizes.calibration))
            else:
                made = float16(content) if name == "fp16" else content
            file = f"{role}.{name}.onnx" if KINDS[name].has_own_file else entries[role].file
            (workshop / file).write_bytes(made)
            variant = NetworkVariant(
                file=file,
                sha256=hashlib.sha256(made).hexdigest(),
                runtime=KINDS[name].runtime,
                arithmetic=KINDS[name].arithmetic,
                max_abs_difference=0.0,
            )
            part = _verdict_part(workshop, made, name, variant) if role == "characteriser" else None
            trials.append(Trial(role, name, variant, part))
    return trials


def _with_verdict(workshop: Path, manifest: ModelManifest) -> ModelManifest:
    """Models that were exported without a verdict get one."""
    if manifest.second_stage.verdict is not None:
        return manifest
    verdict = write_verdict(workshop, manifest.second_stage.file)
    return manifest.model_copy(update={"characteriser": manifest.second_stage.model_copy(update={"verdict": verdict})})


def _verdict_part(workshop: Path, made: bytes, name: str, variant: NetworkVariant) -> NetworkVariant:
    content = without_mask(made)
    file = f"characteriser.{name}.verdict.onnx" if KINDS[name].has_own_file else VERDICT_FILE
    (workshop / file).write_bytes(content)
    return variant.model_copy(update={"file": file, "sha256": hashlib.sha256(content).hexdigest()})


def _tried(
    config: TrainingConfig,
    prepared: Prepared,
    fold: int,
    loaded: dict[str, LoadedModel],
    untried: list[Trial],
    sizes: Sizes,
) -> list[Trial]:
    lungs = lung_trials(config, prepared, fold, sizes.populations)
    crop = loaded[FP32].manifest.second_stage.crop
    crops = crop_trial(config.data, crop, prepared, fold, sizes)
    runs = try_detectors(lungs, loaded)
    scores = {name: score_crops(crops, model) for name, model in loaded.items()}
    trials = [
        judge_detector(trial, lungs, runs) if trial.role == "detector" else judge_characteriser(trial, crops, scores)
        for trial in untried
    ]
    return judge_together(trials, lungs, runs, loaded)


def _ship(model: Path, workshop: Path, manifest: ModelManifest, trials: list[Trial], fp32_bytes: float | None) -> None:
    """Accepted files and entries into the model folder; files of earlier variants out of it."""
    accepted = [trial for trial in trials if trial.accepted]
    for name, kind in KINDS.items():
        if kind.has_own_file:
            for stem in (*(f"{role}.{name}" for role in ROLES), f"characteriser.{name}.verdict"):
                (model / f"{stem}.onnx").unlink(missing_ok=True)
    shutil.copyfile(workshop / VERDICT_FILE, model / VERDICT_FILE)
    for trial in accepted:
        if KINDS[trial.name].has_own_file:
            for variant in (trial.variant, trial.verdict_part):
                if variant is not None:
                    shutil.copyfile(workshop / variant.file, model / variant.file)
    placed = [
        replace(trial, variant=trial.variant.model_copy(update={"device": KINDS[trial.name].device}))
        for trial in accepted
    ]
    measured = manifest.detector.model_copy(update={"bytes_per_voxel": fp32_bytes})
    _write(model, _with_variants(manifest.model_copy(update={"detector": measured}), placed))


def _with_variants(manifest: ModelManifest, trials: Sequence[Trial]) -> ModelManifest:
    detector, characteriser = ({trial.name: trial.variant for trial in trials if trial.role == role} for role in ROLES)
    # The part is the same arithmetic: what was measured of the whole holds for it.
    parts = {
        trial.name: trial.variant.model_copy(
            update={"file": trial.verdict_part.file, "sha256": trial.verdict_part.sha256}
        )
        for trial in trials
        if trial.verdict_part is not None
    }
    verdict = manifest.second_stage.verdict and manifest.second_stage.verdict.model_copy(update={"variants": parts})
    changed: dict[str, DetectorEntry | NetworkFile] = {
        "detector": manifest.detector.model_copy(update={"variants": detector}),
        "characteriser": manifest.second_stage.model_copy(update={"variants": characteriser, "verdict": verdict}),
    }
    return manifest.model_copy(update=changed)


def _write(folder: Path, manifest: ModelManifest) -> None:
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.variants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="the experiment that the model was trained by")
    parser.add_argument("--fold", type=int, default=0, help="fold kept out of training")
    parser.add_argument("--model", type=Path, required=True, help="model folder; changed in place")
    parser.add_argument(
        "--variants", nargs="+", choices=tuple(KINDS), help="default: all for the CPU that can run here"
    )
    parser.add_argument("--populations", type=int, default=Sizes.populations, help="copies of the held-out lungs")
    parser.add_argument("--nodules", type=int, default=Sizes.nodules, help="held-out nodules, as slices")
    parser.add_argument("--patches", type=int, default=Sizes.patches, help="held-out candidate patches")
    parser.add_argument("--calibration", type=int, default=Sizes.calibration, help="crops to calibrate int8 with")
    asked = parser.parse_args(arguments)
    runnable = [
        name for name, kind in KINDS.items() if kind.device == "cpu" and (kind.runtime != "openvino" or has_openvino())
    ]
    sizes = Sizes(asked.calibration, asked.populations, asked.patches, asked.nodules)
    trials = make_variants(load_config(asked.config), asked.fold, asked.model, asked.variants or runnable, sizes)
    for trial in trials:
        sys.stdout.write(f"{trial.role} {trial.name}: {trial.verdict}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
