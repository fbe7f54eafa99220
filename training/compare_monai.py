"""The same scan through MONAI's own pipeline and through the service's, and whether the boxes are the same.

    python -m training compare-monai BUNDLE_DIR SCAN... [--model model_store/monai-retinanet/1.0.0]

A SCAN is a folder of one DICOM series, or a zip of one; --phantoms adds three phantoms, straight, flipped and oblique.
The bundle is imported into a folder of its own unless a stored model is named. Exits with 1 if boxes are not the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import Grid
from app.inference.boxes import iou
from app.inference.detector_kinds import RetinaNetEntry
from app.inference.findings import Findings
from app.inference.manifest import load_manifest
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse
from app.inference.windows import shrunk
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec
from training.import_monai import import_bundle
from training.monai_bundle import read_bundle
from training.monai_reference import BundleAnswer, BundlePipeline

SAME_IOU, SAME_SCORE = 0.99, 1e-3
_TURN = np.deg2rad(12)
_TILT = np.array([[np.cos(_TURN), -np.sin(_TURN), 0], [np.sin(_TURN), np.cos(_TURN), 0], [0, 0, 1]])
DIRECTIONS_LPS_ZYX = {
    "straight": np.eye(3)[:, ::-1],
    "flipped": np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]),
    "oblique": _TILT @ np.eye(3)[:, ::-1],
}
"""How the phantoms lie: columns are where z, y and x of the array point."""
_PHANTOM_SHAPE_ZYX, _PHANTOM_SPACING_ZYX_MM = (29, 250, 250), (2.5, 1.0, 1.0)
_PHANTOM_SEED = 77
_MEASURE_MEMORY = """
import sys
from pathlib import Path
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse
model = load_model(Path(sys.argv[1]), SessionOptions(device="cpu", threads=1))
analyse(Path(sys.argv[2]), model, AnalysisOptions(threads=1, detector_max_voxels=int(sys.argv[3])))
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


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
    note: str = ""

    @property
    def same(self) -> bool:
        """Whether they are the same boxes, with nothing missing on either side."""
        close = self.least_iou >= SAME_IOU and self.largest_score_difference <= SAME_SCORE
        return self.missing == self.extra == 0 and (close or not self.matched)


def agreement(scan: str, theirs: BundleAnswer, ours: Findings) -> Agreement:
    """Compare in index coordinates of MONAI's array, where both are boxes even if the scan lies oblique.

    A box within `SAME_SCORE` of the operating point may fall to either side of it and is not counted as missing. Both
    end where the scan does: MONAI lets a box reach to one voxel past the middle of its last, where no scan is any more.
    """
    boxes, scores = in_their_index(ours, theirs.affine_lps), np.array([n.probability for n in ours.nodules])
    threshold = ours.operating_point.threshold
    likely = theirs.scores >= threshold
    their_boxes = _within(theirs.boxes_index_xyz[likely], ours.grid, theirs.affine_lps)
    their_scores = theirs.scores[likely]
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


def _within(boxes: NDArray[np.float64], scan: Grid, affine_lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes cut where the scan ends; index coordinates (x, y, z) of an array that lies along the axes of the scan."""
    ends = list(product(*((-0.5, n - 0.5) for n in scan.shape_zyx)))
    index = np.linalg.solve(affine_lps, np.c_[scan.to_patient(ends), np.ones(8)].T)[:3].T
    return np.clip(boxes, np.tile(index.min(axis=0), 2), np.tile(index.max(axis=0), 2))


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
        f"| {row.scan} | {row.note or ('several' if row.windows else 'one pass')} | {row.theirs} | {row.ours} | "
        f"{row.matched} | {row.least_iou:.5f} | {row.largest_score_difference:.1e} | {row.missing} | {row.extra} |"
        for row in rows
    ]
    return "\n".join(lines)


def compare(
    bundle: Path, model: Path, scans: Sequence[Path], threads: int, max_voxels: Sequence[int] = ()
) -> list[Agreement]:
    """Run both pipelines over each scan, the service's again with its windows bounded by each of ``max_voxels``."""
    pipeline = BundlePipeline(bundle)
    loaded = load_model(model, SessionOptions(device="cpu", threads=threads))
    rows = []
    for scan in scans:
        with tempfile.TemporaryDirectory() as folder:
            series = unpacked(scan, Path(folder))
            theirs = pipeline(series)
            for bound in (None, *max_voxels):
                ours = analyse(series, loaded, AnalysisOptions(threads=threads, detector_max_voxels=bound))
                note = next((str(n.values["window_zyx"]) for n in ours.warnings if n.code == "smaller_windows"), "")
                rows.append(replace(agreement(scan.stem, theirs, ours), note=note))
    return rows


def analysis_memory_mib(model: Path, series: Path, max_voxels: int) -> float | None:
    """Peak memory of a fresh process that analyses one scan; None where the system does not tell it."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-c", _MEASURE_MEMORY, str(model), str(series), str(max_voxels)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    return float(done.stdout.split()[-1]) / 1024


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


def write_phantoms(folder: Path) -> list[Path]:
    """A phantom with nine nodules in each of `DIRECTIONS_LPS_ZYX`, none of them one that `practice-monai` trains on."""
    diameters = np.random.default_rng(_PHANTOM_SEED).uniform(6.0, 14.0, 9)
    scans = []
    for name, direction in DIRECTIONS_LPS_ZYX.items():
        phantom = phantom_ct(
            shape_zyx=_PHANTOM_SHAPE_ZYX,
            spacing_zyx_mm=_PHANTOM_SPACING_ZYX_MM,
            direction_lps_zyx=direction,
            nodules=[NoduleSpec(float(diameter)) for diameter in diameters],
            seed=_PHANTOM_SEED,
        )
        scans.append(folder / f"phantom-{name}")
        write_dicom_series(phantom.volume, scans[-1])
    return scans


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("bundle", type=Path, help="the bundle's folder; its configuration is executed")
    parser.add_argument("scans", type=Path, nargs="*", help="folders or zips of one DICOM series each")
    parser.add_argument("--phantoms", action="store_true", help="also three phantoms: straight, flipped, oblique")
    parser.add_argument("--model", type=Path, help="folder of the imported model; otherwise it is imported anew")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--max-voxels",
        type=int,
        nargs="*",
        default=[],
        help="also with windows of at most so many voxels, and the memory that the first scan takes",
    )


def run(options: argparse.Namespace) -> int:
    """Compare from the command line; returns the exit status."""
    if not options.scans and not options.phantoms:
        sys.stderr.write("name a scan, or --phantoms\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            model = Path(folder) / "imported" / "1.0.0"
            import_bundle(read_bundle(options.bundle), model, name="imported", version="1.0.0")
        scans = [*(write_phantoms(Path(folder)) if options.phantoms else []), *options.scans]
        rows = compare(options.bundle, model, scans, options.threads, options.max_voxels)
        sys.stdout.write(table(rows) + "\n")
        if options.max_voxels:
            _print_memory(model, scans[0], options.max_voxels)
    return 0 if all(row.same for row in rows if not row.note) else 1


def _print_memory(model: Path, scan: Path, max_voxels: Sequence[int]) -> None:
    entry = load_manifest(model).detector
    assert isinstance(entry, RetinaNetEntry)
    with tempfile.TemporaryDirectory() as folder:
        series = unpacked(scan, Path(folder))
        for bound in (prod(entry.window.shape_zyx), *max_voxels):
            window = shrunk(entry.window, entry.multiple_zyx, bound).shape_zyx
            memory = analysis_memory_mib(model, series, bound)
            told = "memory not told by this system" if memory is None else f"{memory:.0f} MiB at most"
            sys.stdout.write(f"{scan.stem} in windows of {window} voxels (z, y, x): {told}\n")
