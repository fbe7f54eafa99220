"""A Keras 3 network as the second stage of the service, from patches to a served model: `docs/models.md`.

`python -m training.keras_example --data ../shared/data` trains a small CNN on LUNA16's axial
patches, judges it on patients that it never saw, lets Keras export it to ONNX and writes a model folder: the detector
of ``lungnodule:0.2.0`` with this network behind it, kind ``axial-2d``. Nothing of the service knows Keras.

It judges nodule or not, from one slice. Of malignancy and outlines it says nothing, and neither does the answer.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from app.evaluation.estimates import Estimate
from app.imaging.preprocessing import CropSpec
from app.inference import manifest as contract
from app.inference.network_heads import Head, SliceInput
from app.phantom.reference import reference_digest
from training.crops import CandidatePatches, load_candidate_patches
from training.metrics import auroc

NAME, VERSION, FILE, BATCH = "keras-example", "1.0.0", "characteriser.onnx", 128
CROP = CropSpec(spacing_mm=0.7, size_px=48, slice_offsets_mm=(0.0,), window_hu=(-1000.0, 400.0))
CHOSEN_ON = "Chosen on LUNA16 candidates, not on scans."
JUDGED_ON = "LUNA16 candidates of patients that had no part in training; interval by patient"


@dataclass(frozen=True)
class Outcome:
    """What one run found."""

    folder: Path
    auroc: Estimate
    parity: float
    """Largest difference between a probability's logit in Keras and in ONNX Runtime."""


def group_of(patient_id: NDArray[np.str_]) -> NDArray[np.int64]:
    """Group 0 to 9 of each patient: 0 and 1 judge, 2 chooses thresholds, 3 to 9 are learnt from."""
    digests = {patient: hashlib.sha256(str(patient).encode()).digest()[0] % 10 for patient in np.unique(patient_id)}
    return np.array([digests[patient] for patient in patient_id])


def network(size_px: int = CROP.size_px) -> Any:  # noqa: ANN401 - Keras ships no types
    """A small CNN: (n, rows, columns, 1) in 0..1 to one logit."""
    keras = _keras()
    image = x = keras.Input((size_px, size_px, 1), name="image")
    for width in (16, 32, 64):
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.9)(x))
    # Not pooled: what lies in the middle is asked about, not what lies anywhere in the crop.
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Dropout(0.3)(keras.layers.Flatten()(x)))
    return keras.Model(image, keras.layers.Dense(1, name="nodule")(keras.layers.Dropout(0.3)(x)))


def fit(patches: CandidatePatches, learn: NDArray[np.bool_], *, steps: int, seed: int = 0) -> Any:  # noqa: ANN401
    """Train on half nodules, half not, mirrored and shifted by up to 2 mm at random."""
    keras = _keras()
    keras.utils.set_random_seed(seed)
    rng, model = np.random.default_rng(seed), network()
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(rate), keras.losses.BinaryCrossentropy(from_logits=True))
    by_class = [np.flatnonzero(learn & (patches.is_nodule == is_nodule)) for is_nodule in (False, True)]
    for step in range(steps):
        drawn = np.concatenate([rng.choice(rows, BATCH // 2) for rows in by_class])
        loss = model.train_on_batch(_augmented(patches.crops[drawn], rng), patches.is_nodule[drawn].astype(np.float32))
        if step % 100 == 0:
            sys.stdout.write(f"step {step}: loss {float(loss):.3f}\n")
    return model


def images(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cached crops as the service feeds them, (n, rows, columns, 1) in 0..1."""
    first = (crops.shape[-1] - CROP.size_px) // 2
    cut = slice(first, first + CROP.size_px)
    return np.asarray(crops[..., cut, cut], np.float32)[..., None] / np.float32(255)


def write_model(model: Any, store: Path, shipped: Path, judged: Estimate, thresholds: dict[str, float]) -> Outcome:  # noqa: ANN401
    """Export the network by Keras, compare it with what ONNX Runtime makes of the file, and write the model folder."""
    folder = store / NAME / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras takes torch's older exporter; what it made is checked below
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        model.export(str(folder / FILE), format="onnx", verbose=False)
    base = contract.load_manifest(shipped)
    shutil.copyfile(shipped / base.detector.file, folder / base.detector.file)
    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    probe = np.random.default_rng(0).random((7, CROP.size_px, CROP.size_px, 1), np.float32)
    (output,) = session.get_outputs()
    found = session.run(None, {"image": probe})[0]
    parity = float(np.abs(found - np.asarray(model.predict(probe, verbose=0))).max())
    manifest = contract.ModelManifest(
        name=NAME,
        version=VERSION,
        intended_use="Research use only, not for diagnosis. A worked example of a Keras network in the service.",
        preprocessing=base.preprocessing,
        preprocessing_digest=reference_digest(base.preprocessing, CROP),
        detector=base.detector.model_copy(update={"variants": {}}),
        characteriser=contract.AxialSliceEntry(
            kind="axial-2d",
            file=FILE,
            sha256=hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),
            parity=_parity(parity, folder / FILE),
            crop=CROP,
            input=SliceInput(name="image", layout="nhwc"),
            nodule=Head(output=output.name, activation="logit"),
        ),
        operating_points={
            n: contract.OperatingPointEntry(threshold=at, description=CHOSEN_ON) for n, at in thresholds.items()
        },
        default_operating_point=next(iter(thresholds)),
        metrics=(
            contract.Metric(name="nodule_auroc", value=judged.value, ci95=_known(judged), n=judged.n, data=JUDGED_ON),
        ),
        provenance=contract.Provenance(
            code=f"training/keras_example.py, keras {_keras().__version__}",
            config="training/keras_example.py",
            seed=0,
            data=("LUNA16 axial patches",),
            data_licence="CC BY 4.0",
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Outcome(folder, judged, parity)


def run(patches: CandidatePatches, store: Path, shipped: Path, *, steps: int) -> Outcome:
    """Train, judge, choose thresholds, export."""
    group = group_of(patches.patient_id)
    model = fit(patches, group >= 3, steps=steps)
    score = model.predict(images(patches.crops), batch_size=512, verbose=0)[:, 0]
    held_out, choosing = group < 2, group == 2
    judged = auroc(patches.is_nodule[held_out], score[held_out], patches.patient_id[held_out])
    nodules = 1 / (1 + np.exp(-score[choosing & patches.is_nodule].astype(np.float64)))
    thresholds = {
        name: float(np.quantile(nodules, share)) if len(nodules) else 0.5
        for name, share in (("balanced", 0.1), ("sensitive", 0.05))
    }
    return write_model(model, store, shipped, judged, thresholds)


def _augmented(crops: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    shifted = np.stack([np.roll(crop, tuple(rng.integers(-3, 4, 2)), (0, 1)) for crop in crops])
    batch = images(shifted)
    for axis in (1, 2):
        batch = np.where(rng.random((len(batch), 1, 1, 1)) < 0.5, np.flip(batch, axis), batch)
    return batch


def _known(figure: Estimate) -> tuple[float, float] | None:
    return (figure.low, figure.high) if np.isfinite((figure.low, figure.high)).all() else None


def _parity(difference: float, path: Path) -> contract.Parity:
    versions = {"torch_version": torch.__version__, "onnxruntime_version": onnxruntime.__version__}
    return contract.Parity(max_abs_difference=difference, opset=onnx.load(path).opset_import[0].version, **versions)


def _keras() -> Any:  # noqa: ANN401
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras  # noqa: PLC0415 - reads its backend from the environment when it is imported

    return keras


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, train, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m training.keras_example", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds luna16_axial_patches.npz")
    parser.add_argument("--store", type=Path, default=Path("runs/keras-store"), help="model store to write into")
    parser.add_argument("--detector", type=Path, default=Path("model_store/lungnodule/0.2.0"), help="whose detector")
    parser.add_argument("--steps", type=int, default=1200, help="of 128 patches; default %(default)s")
    given = parser.parse_args(arguments)
    table = given.data / "luna16/annotations.csv"
    patches = load_candidate_patches(given.data / "luna16_axial_patches.npz", table, CROP)
    done = run(patches, given.store, given.detector, steps=given.steps)
    sys.stdout.write(f"AUROC on held-out patients {done.auroc} candidates\n")
    sys.stdout.write(f"Keras against ONNX Runtime: largest difference of a logit {done.parity:.2g}\n{done.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
