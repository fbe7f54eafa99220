"""Average precision of 3-D boxes at one intersection over union, as nnDetection and MONAI report LUNA16 (IoU 0.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.evaluation.estimates import N_BOOTSTRAPS, Estimate, bootstrap
from app.inference.boxes import Boxes, iou
from training.metrics import FloatArray


@dataclass(frozen=True)
class ScanBoxes:
    """What was found and what is there in one scan, in the same index coordinates."""

    found: Boxes
    """(n, 6) in the order of `app.inference.boxes`."""
    scores: FloatArray
    truth: Boxes
    """(m, 6)."""


def average_precision(scans: Sequence[ScanBoxes], iou_threshold: float = 0.1) -> float:
    """Average precision over all scans at one IoU, COCO's way: greedy by score, 101 recall points.

    IoU 0.1 is what nnDetection and MONAI report for LUNA16. NaN where no scan has a box to find.
    """
    n_truth = sum(len(scan.truth) for scan in scans)
    if n_truth == 0:
        return math.nan
    parts = [_box_hits(scan, iou_threshold) for scan in scans]
    scores = np.concatenate([np.asarray(scan.scores, dtype=np.float64) for scan in scans])
    hits = np.concatenate(parts)[np.argsort(-scores, kind="stable")]
    true_positives = np.cumsum(hits)
    recall = true_positives / n_truth
    precision = true_positives / np.arange(1, hits.size + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, np.linspace(0, 1, 101), side="left")].mean())


def average_precision_estimate(
    scans: Sequence[ScanBoxes], iou_threshold: float = 0.1, *, n_bootstraps: int = N_BOOTSTRAPS, seed: int = 0
) -> Estimate:
    """`average_precision` with an interval by resampling scans; n counts scans."""
    return bootstrap(
        lambda drawn: average_precision([scans[index] for index in drawn], iou_threshold),
        np.arange(len(scans)),
        n_bootstraps=n_bootstraps,
        seed=seed,
    )


def _box_hits(scan: ScanBoxes, iou_threshold: float) -> FloatArray:
    """1 for each found box that takes a true one: by falling score, each its best box still free."""
    hits = np.zeros(len(scan.found))
    if not len(scan.found) or not len(scan.truth):
        return hits
    overlap = iou(scan.found, scan.truth)
    for index in np.argsort(-np.asarray(scan.scores), kind="stable"):
        best = int(overlap[index].argmax())
        if overlap[index, best] >= iou_threshold:
            hits[index] = 1.0
            overlap[:, best] = -1.0
    return hits
