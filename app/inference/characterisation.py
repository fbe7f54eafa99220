"""Stage 2: what a candidate is, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.imaging.preprocessing import sample_crops
from app.imaging.volume import CtVolume
from app.inference.findings import Candidate, NoduleMask, Point
from app.inference.manifest import AnyCharacteriser, CharacteriserEntry
from app.inference.measurements import center_lps_mm, volume_mm3
from app.inference.model_store import LoadedModel
from app.inference.network import Network
from app.inference.outlining import outline, sphere

_T = TypeVar("_T")

BATCH = 16
"""Candidates a pass. With the shipped model 64 were no more than a seventh faster and took 240 MiB more."""


@dataclass(frozen=True)
class CharacterisedNodule:
    """A candidate above the operating point, with its outline."""

    probability: float
    malignancy_probability: float | None
    attributes: dict[str, float]
    mask: NoduleMask
    center_lps_mm: Point
    """Centre of mass of the outline."""
    radius_mm: float
    """Of the sphere of the outline's volume."""


@dataclass(frozen=True)
class Characterisation:
    """Nodules by falling probability, and what could not be done for them as it should."""

    nodules: tuple[CharacterisedNodule, ...]
    notices: tuple[Notice, ...]
    below: tuple[Candidate, ...] = ()
    """Candidates under the threshold, with their final probability, which falls."""


@dataclass(frozen=True)
class _Verdict:
    """The network's word on one candidate."""

    candidate: Candidate
    probability: float
    malignancy_probability: float | None
    attributes: dict[str, float]


def characterise(
    volume: CtVolume,
    candidates: Sequence[Candidate],
    model: LoadedModel,
    threshold: float,
    on_progress: Callable[[float, str], None] = lambda _fraction, _detail: None,
) -> Characterisation:
    """Judge all candidates, then outline those whose final probability reaches the threshold.

    Parameters
    ----------
    volume
        The scan in HU.
    candidates
        Output of `app.inference.detection.detect`.
    model
        Its characteriser, crop spec and mixing weight.
    threshold
        Operating point on the final probability.
    on_progress
        Told the fraction done and a detail.

    Returns
    -------
    Characterisation
        Two candidates that turn out to lie in one nodule are reported once, as the more probable.
    """
    verdicts = _verdicts(volume, candidates, model, on_progress)
    likely = [verdict for verdict in verdicts if verdict.probability >= threshold]
    likely = without_duplicates(
        likely, [v.candidate.center_lps_mm for v in likely], [v.candidate.diameter_mm / 2 for v in likely]
    )
    nodules: list[CharacterisedNodule] = []
    notices: list[Notice] = []
    for number, verdict in enumerate(likely):
        on_progress(0.5 + 0.5 * number / len(likely), f"nodule {number + 1} of {len(likely)}")
        nodule, remarks = _outlined(volume, verdict, model)
        nodules.append(nodule)
        notices.extend(remarks)
    nodules = without_duplicates(nodules, [n.center_lps_mm for n in nodules], [n.radius_mm for n in nodules])
    on_progress(1.0, f"{len(nodules)} nodules")
    below = tuple(replace(v.candidate, probability=v.probability) for v in verdicts if v.probability < threshold)
    return Characterisation(tuple(nodules), tuple(notices), below)


def malignancy_at(volume: CtVolume, centers_lps_mm: Sequence[Point], model: LoadedModel) -> list[float]:
    """Probability of malignancy of nodules that somebody else has found, in the order given.

    Parameters
    ----------
    volume
        The scan in HU.
    centers_lps_mm
        Points (x, y, z) in it, patient LPS mm.
    model
        Its characteriser and crop spec.

    Raises
    ------
    ModelError
        ``no_malignancy`` when the model does not judge it.
    """
    judged: list[float] = []
    for start in range(0, len(centers_lps_mm), BATCH):
        crops = sample_crops(volume, centers_lps_mm[start : start + BATCH], model.manifest.second_stage.crop)
        said = ask_characteriser(model.judge, crops)
        if "malignancy_probability" not in said:
            raise ModelError(
                f"{model.identity.name} {model.identity.version} does not judge malignancy; choose another model.",
                code="no_malignancy",
                values={"model": f"{model.identity.name}:{model.identity.version}"},
            )
        judged += map(float, said["malignancy_probability"])
    return judged


def mixed_probability(characteriser: float, detector: float, detector_weight: float) -> float:
    """Probability whose log-odds are (1 - w) * characteriser + w * detector.

    Probabilities are taken from 1e-6 to 1 - 1e-6, so that neither network can outvote the other by being certain.
    """
    p = np.clip((characteriser, detector), 1e-6, 1 - 1e-6)
    log_odds = np.log(p / (1 - p)) @ (1 - detector_weight, detector_weight)
    return float(1 / (1 + np.exp(-log_odds)))


def without_duplicates(found: Sequence[_T], centers_lps_mm: Sequence[Point], radii_mm: Sequence[float]) -> list[_T]:
    """Drop what lies within the larger of two radii of something more probable; the input falls by probability."""
    centers, radii = np.asarray(centers_lps_mm).reshape(-1, 3), np.asarray(radii_mm)
    kept: list[int] = []
    for n in range(len(found)):
        distance = np.linalg.norm(centers[kept] - centers[n], axis=1)
        if not (distance < np.maximum(radii[kept], radii[n])).any():
            kept.append(n)
    return [found[n] for n in kept]


def ask_characteriser(network: Network, crops: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
    """Run the characteriser, whole or without its mask, on crops (n, slices, rows, columns).

    Raises
    ------
    ModelError
        ``network_output_invalid``: a probability that is no number would be a nodule missed without a word.
    """
    said = network({"crops": crops})
    faulty = [name for name, values in said.items() if not np.isfinite(values).all()]
    if faulty:
        raise ModelError(
            f"The characteriser's outputs {', '.join(faulty)} hold values that are no numbers.",
            code="network_output_invalid",
            values={"network": "characteriser", "outputs": faulty},
        )
    return said


def _verdicts(
    volume: CtVolume,
    candidates: Sequence[Candidate],
    model: LoadedModel,
    on_progress: Callable[[float, str], None],
) -> list[_Verdict]:
    """All candidates, by falling final probability."""
    entry = model.manifest.second_stage
    verdicts = []
    for start in range(0, len(candidates), BATCH):
        on_progress(0.5 * start / len(candidates), f"candidate {start + 1} of {len(candidates)}")
        batch = candidates[start : start + BATCH]
        crops = sample_crops(volume, [candidate.center_lps_mm for candidate in batch], entry.crop)
        said = ask_characteriser(model.judge, crops)
        for n, candidate in enumerate(batch):
            verdicts.append(_verdict(candidate, {name: values[n] for name, values in said.items()}, entry))
    return sorted(verdicts, key=lambda verdict: -verdict.probability)


def _verdict(candidate: Candidate, said: Mapping[str, Any], entry: AnyCharacteriser) -> _Verdict:
    """Of one candidate. Without a word on the nodule the detector's stands; without one on malignancy there is none."""
    nodule, malignancy = said.get("nodule_probability"), said.get("malignancy_probability")
    attributes = zip(entry.attribute_names, map(float, said.get("attributes", ())), strict=True)
    return _Verdict(
        candidate=candidate,
        probability=candidate.probability
        if nodule is None
        else mixed_probability(float(nodule), candidate.probability, entry.detector_weight),
        malignancy_probability=None if malignancy is None else float(malignancy),
        attributes=dict(attributes),
    )


def _outlined(
    volume: CtVolume, verdict: _Verdict, model: LoadedModel
) -> tuple[CharacterisedNodule, tuple[Notice, ...]]:
    entry = model.manifest.second_stage
    if not isinstance(entry, CharacteriserEntry):
        mask, notices = sphere(volume, verdict.candidate)
    else:
        mask, notices = outline(
            volume,
            verdict.candidate,
            entry.crop,
            lambda stack: ask_characteriser(model.characteriser, stack[None])["mask_probability"][0],
        )
    nodule = CharacterisedNodule(
        probability=verdict.probability,
        malignancy_probability=verdict.malignancy_probability,
        attributes=verdict.attributes,
        mask=mask,
        center_lps_mm=center_lps_mm(mask),
        radius_mm=float(np.cbrt(volume_mm3(mask) * 3 / (4 * np.pi))),
    )
    return nodule, notices
