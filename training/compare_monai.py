"""The same scan through MONAI's own pipeline and through the service's, and whether the boxes are the same.

    python -m training compare-monai BUNDLE_DIR SCAN... [--store model_store --name monai-retinanet]

A SCAN is a folder of one DICOM series, or a zip of one. The bundle is imported into a folder of its own unless a stored
model is named. Exits with 1 if a box is missing on either side.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.inference.boxes import iou
from app.inference.findings import Findings
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse
from training.import_monai import import_bundle
from training.monai_bundle import read_bundle
from training.monai_reference import BundleAnswer, BundlePipeline

SAME_IOU, SAME_SCORE = 0.99, 1e-3


@dataclass(frozen=True)
class Agreement:
    """How two lists of boxes of one scan compare."""

    scan: str
    theirs: int
    ours: int
    matched: int
    least_iou: float
    largest_score_difference: float
    missing: int
    """Boxes of MONAI's, safely above the operating point, that the service lacks."""
    extra: int
    """Boxes of the service's, safely above it, that MONAI lacks."""
    windows: bool

    @property
    def same(self) -> bool:
        """Whether they are the same boxes, with nothing missing on either side."""
        close = self.least_iou >= SAME_IOU and self.largest_score_difference <= SAME_SCORE
        return self.missing == self.extra == 0 and (close or not self.matched)


def agreement(scan: str, theirs: BundleAnswer, ours: Findings) -> Agreement:
    """Compare in index coordinates of MONAI's array, where both are boxes even if the scan lies oblique.

    A box within `SAME_SCORE` of the operating point may fall to either side of it and is not counted as missing.
    """
    boxes, scores = in_their_index(ours, theirs.affine_lps), np.array([n.probability for n in ours.nodules])
    threshold = ours.operating_point.threshold
    likely = theirs.scores >= threshold
    their_boxes, their_scores = theirs.boxes_index_xyz[likely], theirs.scores[likely]
    overlap = iou(their_boxes, boxes) if len(boxes) and len(their_boxes) else np.zeros((len(their_boxes), len(boxes)))
    pairs = _pairs(overlap)
    ious = [float(overlap[a, b]) for a, b in pairs]
    differences = [abs(float(their_scores[a] - scores[b])) for a, b in pairs]
    safe = threshold + SAME_SCORE
    lost = np.setdiff1d(np.flatnonzero(their_scores >= safe), [a for a, _ in pairs])
    added = np.setdiff1d(np.flatnonzero(scores >= safe), [b for _, b in pairs])
    return Agreement(
        scan=scan,
        theirs=len(their_boxes),
        ours=len(boxes),
        matched=len(pairs),
        least_iou=min(ious, default=float("nan")),
        largest_score_difference=max(differences, default=float("nan")),
        missing=len(lost),
        extra=len(added),
        windows=theirs.windows,
    )


def in_their_index(ours: Findings, affine_lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes of the answer in index coordinates (x, y, z) of another array: (n, 6)."""
    found = []
    for nodule in ours.nodules:
        corners = np.array(list(product(*zip(*nodule.box_index_zyx, strict=True))))
        lps = np.c_[ours.grid.to_patient(corners), np.ones(8)]
        index = np.linalg.solve(affine_lps, lps.T)[:3].T
        found.append(np.r_[index.min(axis=0), index.max(axis=0)])
    return np.array(found).reshape(-1, 6)


def _pairs(overlap: NDArray[np.float64]) -> list[tuple[int, int]]:
    """One to one, best first; what overlaps by less than a half is no pair."""
    pairs = []
    left = overlap.copy()
    while left.size and left.max() >= 0.5:
        a, b = np.unravel_index(int(np.argmax(left)), left.shape)
        pairs.append((int(a), int(b)))
        left[a, :] = left[:, b] = 0.0
    return pairs


def table(rows: Sequence[Agreement]) -> str:
    """Markdown."""
    lines = [
        "| scan | windows | MONAI's | the service's | matched | least IoU | most score difference | missing | extra |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.scan} | {'several' if row.windows else 'one pass'} | {row.theirs} | {row.ours} | {row.matched} | "
        f"{row.least_iou:.5f} | {row.largest_score_difference:.1e} | {row.missing} | {row.extra} |"
        for row in rows
    ]
    return "\n".join(lines)


def compare(bundle: Path, model: Path, scans: Sequence[Path], threads: int) -> list[Agreement]:
    """Run both pipelines over each scan."""
    pipeline = BundlePipeline(bundle)
    loaded = load_model(model, SessionOptions(device="cpu", threads=threads))
    rows = []
    for scan in scans:
        with tempfile.TemporaryDirectory() as folder:
            series = unpacked(scan, Path(folder))
            rows.append(
                agreement(scan.stem, pipeline(series), analyse(series, loaded, AnalysisOptions(threads=threads)))
            )
    return rows


def unpacked(scan: Path, folder: Path) -> Path:
    """The folder of a series: the scan itself, or the DICOM files of a zip, all in one folder."""
    if scan.is_dir():
        return scan
    with zipfile.ZipFile(scan) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for number, name in enumerate(names):
            content = archive.read(name)
            if content[128:132] == b"DICM":
                (folder / f"{number:05d}.dcm").write_bytes(content)
    return folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("bundle", type=Path, help="the bundle's folder; its configuration is executed")
    parser.add_argument("scans", type=Path, nargs="+", help="folders or zips of one DICOM series each")
    parser.add_argument("--model", type=Path, help="folder of the imported model; otherwise it is imported anew")
    parser.add_argument("--threads", type=int, default=2)


def run(options: argparse.Namespace) -> int:
    """Compare from the command line; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            model = Path(folder) / "imported" / "1.0.0"
            import_bundle(read_bundle(options.bundle), model, name="imported", version="1.0.0")
        rows = compare(options.bundle, model, options.scans, options.threads)
    sys.stdout.write(table(rows) + "\n")
    return 0 if all(row.same for row in rows) else 1


def main(arguments: list[str] | None = None) -> int:
    """As `python -m training compare-monai`."""
    parser = argparse.ArgumentParser(
        prog="python -m training compare-monai",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
