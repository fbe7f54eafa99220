"""What a variant costs and gains beside fp32 on the same cases, and whether it may be shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.inference.findings import Candidate
from app.inference.manifest import FP32, ModelManifest, NetworkVariant, VariantFigure
from app.inference.model_store import LoadedModel
from training.variant_trials import CropScores, CropTrial, DetectorRun, LungTrial, final_probabilities

LARGEST_LOSS = 0.005
"""Half a point: a variant must lose less than this of every figure."""
CANDIDATE_COUNTS = (5, 10, 20, 40, 100)
MARK_COUNTS = (1, 2, 4, 8)
"""Candidates, and final marks, a scan at which recalls are taken and averaged: both networks mark equally often."""
REPORTED_ONLY = ("sensitivity_at_default_operating_point", "false_marks_per_scan_at_default_operating_point")
"""Too coarse to judge by, a nodule more or less being over half a point, but what an operator would see change."""
SAME_MM = 3.0
"""Candidates of two networks this close are the same."""
ROLES = ("detector", "characteriser")

MEASURE_MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
model = load_model(Path(sys.argv[1]), SessionOptions(device="cpu", threads=1), sys.argv[2])
peaks = []
for side in (96, 128, 192):
    model.detector({"volume": np.full((1, 1, side, side, side), 0.1, np.float32)})
    peaks.append(int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024)
print(json.dumps((peaks[2] - peaks[1]) / (192**3 - 128**3)))
"""


@dataclass(frozen=True)
class Kind:
    """How a variant is made and run."""

    runtime: Literal["onnxruntime", "openvino"]
    arithmetic: Literal["float32", "float16", "bfloat16", "int8"]
    device: Literal["cpu", "gpu"] = "cpu"
    has_own_file: bool = False


KINDS = {
    "int8": Kind("onnxruntime", "int8", has_own_file=True),
    "bf16": Kind("openvino", "bfloat16"),
    "fp32-openvino": Kind("openvino", "float32"),
    "fp16": Kind("onnxruntime", "float16", device="gpu", has_own_file=True),
}


@dataclass(frozen=True)
class Trial:
    """One network in one variant, with what was measured."""

    role: str
    name: str
    variant: NetworkVariant
    verdict_part: NetworkVariant | None = None
    """Of the characteriser: the same, cut off before the mask."""

    @property
    def largest_loss(self) -> float:
        """By how much the worst figure fell; negative when all rose."""
        judged = [figure for figure in self.variant.figures if figure.name not in REPORTED_ONLY]
        return max(figure.fp32 - figure.value for figure in judged)

    @property
    def accepted(self) -> bool:
        """Whether it may be shipped."""
        return self.largest_loss < LARGEST_LOSS

    @property
    def verdict(self) -> str:
        """In words."""
        change = f"largest loss {100 * max(self.largest_loss, 0):.2f} points"
        return f"{'accepted' if self.accepted else 'written off'}, {change}"


def judge_detector(trial: Trial, lungs: Sequence[LungTrial], runs: Mapping[str, Sequence[DetectorRun]]) -> Trial:
    """Recall at equal numbers of candidates, differences of scores, seconds."""
    own, plain = runs[trial.name], runs[FP32]
    scores = [_ranked(run.candidates) for run in own], [_ranked(run.candidates) for run in plain]
    hits = _hits(lungs, own), _hits(lungs, plain)
    value, fp32 = (mean_recall(h, s, CANDIDATE_COUNTS) for h, s in zip(hits, scores, strict=True))
    nodules = sum(len(lung.radii_mm) for lung in lungs)
    where = f"inserted nodules of held-out patients in {len(lungs)} copies of held-out lungs"
    counts = ", ".join(map(str, CANDIDATE_COUNTS))
    figure = VariantFigure(
        name="candidate_recall", value=value, fp32=fp32, n=nodules, data=f"{where}; mean at {counts} candidates a scan"
    )
    difference = max(
        (_score_difference(a.candidates, b.candidates) for a, b in zip(own, plain, strict=True)), default=0
    )
    return _with(trial, [figure], difference, _ratio([r.seconds for r in own], [r.seconds for r in plain]))


def judge_characteriser(trial: Trial, crops: CropTrial, scores: Mapping[str, CropScores]) -> Trial:
    """AUROCs, the mask's Dice, differences of probabilities, seconds."""
    own, plain = scores[trial.name], scores[FP32]
    patches, nodules = "held-out LUNA16 candidate patches", "held-out LIDC nodules"
    figures = [
        VariantFigure(name=name, value=float(measure(own)), fp32=float(measure(plain)), n=n, data=data)
        for name, measure, n, data in (
            ("nodule_auroc", crops.nodule_auroc, len(crops.is_nodule), patches),
            ("malignancy_auroc", crops.malignancy_auroc, int(crops.is_rated.sum()), nodules),
            ("mask_dice", lambda s: s.mask_dice.mean(), len(crops.stacks), f"{nodules}, majority outline"),
        )
    ]
    difference = max(
        float(np.abs(own.patch_probability - plain.patch_probability).max()),
        float(np.abs(own.malignancy_probability - plain.malignancy_probability).max()),
    )
    return _with(trial, figures, difference, _ratio([own.seconds], [plain.seconds]))


def judge_together(
    trials: Sequence[Trial],
    lungs: Sequence[LungTrial],
    runs: Mapping[str, Sequence[DetectorRun]],
    loaded: Mapping[str, LoadedModel],
) -> list[Trial]:
    """The service's own probabilities with what was accepted of each name; the figures are added to each network's."""
    plain = _final(lungs, runs[FP32], loaded[FP32])
    judged = list(trials)
    for name in dict.fromkeys(trial.name for trial in trials):
        accepted = {trial.role for trial in trials if trial.name == name and trial.accepted}
        own = runs[name if "detector" in accepted else FP32]
        second = loaded[name if "characteriser" in accepted else FP32]
        figures = _final_figures(lungs, own, _final(lungs, own, second), runs[FP32], plain, second.manifest)
        judged = [
            _with(t, [*t.variant.figures, *figures], t.variant.max_abs_difference, t.variant.seconds_ratio)
            if t.name == name and t.role in accepted
            else t
            for t in judged
        ]
    return judged


def _final_figures(
    lungs: Sequence[LungTrial],
    own: Sequence[DetectorRun],
    own_final: Sequence[NDArray[np.float64]],
    plain: Sequence[DetectorRun],
    plain_final: Sequence[NDArray[np.float64]],
    manifest: ModelManifest,
) -> list[VariantFigure]:
    nodules, copies = sum(len(lung.radii_mm) for lung in lungs), len(lungs)
    hits = _hits(lungs, own), _hits(lungs, plain)
    threshold = manifest.operating_points[manifest.default_operating_point].threshold
    at_threshold = [_at(threshold, h, f) for h, f in zip(hits, (own_final, plain_final), strict=True)]
    data = f"both stages as served, {copies} copies of held-out lungs"
    recall = VariantFigure(
        name="final_recall",
        value=mean_recall(hits[0], own_final, MARK_COUNTS),
        fp32=mean_recall(hits[1], plain_final, MARK_COUNTS),
        n=nodules,
        data=f"{data}; mean at {', '.join(map(str, MARK_COUNTS))} marks a scan",
    )
    (sensitivity, false), (sensitivity_fp32, false_fp32) = at_threshold
    values = ((sensitivity, sensitivity_fp32, nodules), (false, false_fp32, copies))
    return [
        recall,
        *(
            VariantFigure(name=name, value=value, fp32=fp32, n=n, data=data)
            for name, (value, fp32, n) in zip(REPORTED_ONLY, values, strict=True)
        ),
    ]


def _at(
    threshold: float, hits: Sequence[NDArray[np.bool_]], final: Sequence[NDArray[np.float64]]
) -> tuple[float, float]:
    """Share of the nodules hit by a mark at or above the threshold, and marks a scan that hit none."""
    marked = [h[f >= threshold] for h, f in zip(hits, final, strict=True)]
    total = sum(h.shape[1] for h in hits)
    found = sum(int(h.any(axis=0).sum()) for h in marked)
    false = sum(int((~h.any(axis=1)).sum()) for h in marked)
    return found / max(total, 1), false / max(len(hits), 1)


def mean_recall(
    hits: Sequence[NDArray[np.bool_]], scores: Sequence[NDArray[np.float64]], counts: Sequence[int]
) -> float:
    """Share of the nodules hit by the ``count`` best marks of each scan on average, averaged over the counts.

    Parameters
    ----------
    hits
        For each scan (marks, nodules).
    scores
        For each scan (marks,).
    counts
        Marks a scan, on average over the scans: one threshold holds for all of them.
    """
    total = sum(h.shape[1] for h in hits)
    everything = np.sort(np.concatenate(list(scores)))[::-1]
    shares = []
    for count in counts:
        threshold = everything[min(count * len(scores), len(everything)) - 1] if len(everything) else np.inf
        found = sum(int(h[s >= threshold].any(axis=0).sum()) for h, s in zip(hits, scores, strict=True))
        shares.append(found / total if total else 0.0)
    return float(np.mean(shares))


def bytes_per_voxel(model: Path, name: str) -> float | None:
    """Growth of a fresh process's peak memory with the detector's input; None where the system does not tell it."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-c", MEASURE_MEMORY, str(model), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    return round(float(json.loads(done.stdout)), 1)


def report(manifest: ModelManifest, trials: Sequence[Trial], fold: int) -> str:
    """All trials as Markdown, accepted or not."""
    lines = [
        f"# Variants of {manifest.name} {manifest.version}",
        "",
        (
            f"Made and measured by `python -m training.variants`, fold {fold}. Research use only, not for diagnosis. "
            f"A variant is shipped when it loses less than {100 * LARGEST_LOSS:g} points of every figure against fp32 "
            "on the same cases. Calibration saw training patients and lungs only."
        ),
        "",
        "| network | variant | verdict | seconds / fp32 | largest difference | bytes a voxel |",
        "|---|---|---|---|---|---|",
    ]
    for t in trials:
        seconds, memory = t.variant.seconds_ratio, t.variant.bytes_per_voxel
        lines.append(
            f"| {t.role} | {t.name} | {t.verdict} | {'-' if seconds is None else f'{seconds:.2f}'} | "
            f"{t.variant.max_abs_difference:.4f} | {'-' if memory is None else f'{memory:g}'} |"
        )
    lines += [
        "",
        "| network | variant | figure | fp32 | variant | points | n | data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for t in trials:
        for f in t.variant.figures:
            lines.append(
                f"| {t.role} | {t.name} | {f.name} | {f.fp32:.4f} | {f.value:.4f} | {100 * (f.value - f.fp32):+.2f} | "
                f"{f.n} | {f.data} |"
            )
    return "\n".join(lines) + "\n"


def _with(trial: Trial, figures: Sequence[VariantFigure], difference: float, seconds_ratio: float | None) -> Trial:
    update = {
        "figures": tuple(figures),
        "max_abs_difference": difference,
        "seconds_ratio": seconds_ratio if KINDS[trial.name].device == "cpu" else None,
    }
    return replace(trial, variant=trial.variant.model_copy(update=update))


def _ratio(own: Sequence[float], plain: Sequence[float]) -> float:
    return round(median(a / b for a, b in zip(own, plain, strict=True)), 3)


def _ranked(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    return np.asarray([c.probability for c in candidates], dtype=np.float64)


def _hits(lungs: Sequence[LungTrial], runs: Sequence[DetectorRun]) -> list[NDArray[np.bool_]]:
    return [lung.hits(run.candidates) for lung, run in zip(lungs, runs, strict=True)]


def _final(lungs: Sequence[LungTrial], runs: Sequence[DetectorRun], model: LoadedModel) -> list[NDArray[np.float64]]:
    return [final_probabilities(lung, run.candidates, model) for lung, run in zip(lungs, runs, strict=True)]


def _score_difference(own: Sequence[Candidate], plain: Sequence[Candidate]) -> float:
    """Largest difference of the scores of candidates that both found."""
    if not own or not plain:
        return 0.0
    a, b = (np.asarray([c.center_lps_mm for c in side]) for side in (own, plain))
    away = np.linalg.norm(a[:, None] - b, axis=2)
    nearest = away.argmin(axis=1)
    same = away.min(axis=1) < SAME_MM
    return float(np.abs(_ranked(own) - _ranked(plain)[nearest])[same].max(initial=0.0))
