"""A stored model over many scans, in several processes, each scan's marks written as they are known.

A run that was stopped goes on where it was: what lies in its folder is not computed again. The folder belongs to one
model in one arithmetic; another has another.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.evaluation.froc import Mark
from app.evaluation.scans import EvaluationSet
from app.imaging.errors import ModelError, ScanError
from app.imaging.read_options import ReadLimits, ReadOptions
from app.inference.manifest import load_manifest_and_sha256
from app.inference.model_registry import StoreSource
from app.inference.model_store import LoadedModel, ModelFolder
from app.inference.pipeline import AnalysisOptions, analyse

LEAST_PROBABILITY = 0.01
"""Marks below it are left out: they are outnumbered a hundred to one and decide nothing below 8 false marks a scan."""

_CONTEXT = "spawn"
"""A forked ONNX Runtime hangs."""


@dataclass(frozen=True)
class Task:
    """What every process is told once.

    Parameters
    ----------
    source, folder
        The model, and how its networks are opened.
    limits
        Of the reader.
    threads
        Of each process.
    detector_memory_mib
        As `app.inference.pipeline.AnalysisOptions`.
    """

    source: StoreSource
    folder: ModelFolder
    limits: ReadLimits
    threads: int
    detector_memory_mib: float | None = None


@dataclass(frozen=True)
class ScanMarks:
    """What a model said of one scan; ``refused`` is the code of the error where the service does not take it."""

    series_uid: str
    marks: tuple[Mark, ...]
    refused: str | None = None


OnScan = Callable[[int, int, ScanMarks], None]
"""Told how many scans are done, of how many, and the last one."""


def marks_folder(output: Path, task: Task) -> Path:
    """Where the marks of this model in this arithmetic lie."""
    manifest, sha256 = load_manifest_and_sha256(task.folder.path)
    return output / f"{manifest.name}-{manifest.version}-{sha256[:12]}-{task.source.precision}"


def run_model(
    task: Task, scans: EvaluationSet, output: Path, *, workers: int, on_scan: OnScan = lambda _n, _of, _scan: None
) -> tuple[ScanMarks, ...]:
    """Analyse what has not been analysed yet; every scan's marks, in the order of the reference.

    A scan that the service refuses has no marks and stays in every denominator.

    Raises
    ------
    ModelError
        The model cannot be used.
    """
    folder = marks_folder(output, task)
    folder.mkdir(parents=True, exist_ok=True)
    uids = scans.reference.series_uids
    known = {uid: marks for uid in uids if (marks := _read(folder, uid)) is not None}
    todo = [uid for uid in uids if uid not in known]
    for scan in _fresh(task, scans, folder, todo, workers):
        known[scan.series_uid] = scan
        on_scan(len(known), len(uids), scan)
    return tuple(known[uid] for uid in uids)


def _fresh(task: Task, scans: EvaluationSet, folder: Path, todo: list[str], workers: int) -> Iterator[ScanMarks]:
    if not todo:
        return
    if workers == 1:
        model = _loaded(task)
        for uid in todo:
            yield _analysed(uid, scans.paths[uid], model, task, folder)
        return
    context = multiprocessing.get_context(_CONTEXT)
    with ProcessPoolExecutor(min(workers, len(todo)), context) as pool:
        running = [pool.submit(_in_worker, uid, scans.paths[uid], task, folder) for uid in todo]
        try:
            for done in as_completed(running):
                yield done.result()
        except BrokenProcessPool as error:
            raise ModelError(
                "A process of the evaluation was killed, as happens when memory runs out. Run it again with fewer "
                "--workers; the scans that are done stay done.",
                code="worker_died",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _loaded(task: Task) -> LoadedModel:
    return task.source.load(task.folder)


@cache
def _model_of_process(task: Task) -> LoadedModel:
    """Loaded for a process's first scan, and kept for its others."""
    return _loaded(task)


def _in_worker(uid: str, paths: tuple[Path, ...], task: Task, folder: Path) -> ScanMarks:
    return _analysed(uid, paths, _model_of_process(task), task, folder)


def _analysed(uid: str, paths: tuple[Path, ...], model: LoadedModel, task: Task, folder: Path) -> ScanMarks:
    is_dicom = paths[0].suffix not in {".mhd", ".mha"}
    options = AnalysisOptions(
        read=ReadOptions(series_uid=uid if is_dicom else None, limits=task.limits),
        least_probability=LEAST_PROBABILITY,
        threads=task.threads,
        detector_memory_mib=task.detector_memory_mib,
    )
    try:
        findings = analyse(paths[0] if len(paths) == 1 else list(paths), model, options)
    except ScanError as error:
        scan = ScanMarks(uid, (), error.code)
    else:
        marks = tuple(Mark(uid, nodule.center_lps_mm, nodule.probability) for nodule in findings.nodules)
        scan = ScanMarks(uid, marks)
    _write(folder, scan)
    return scan


def _write(folder: Path, scan: ScanMarks) -> None:
    """Beside and renamed, so that a killed process leaves no half file."""
    document = {"marks": [[*mark.center_lps_mm, mark.probability] for mark in scan.marks], "refused": scan.refused}
    half_written = folder / f".{scan.series_uid}.part"
    half_written.write_text(json.dumps(document), encoding="utf-8")
    half_written.replace(folder / f"{scan.series_uid}.json")


def _read(folder: Path, uid: str) -> ScanMarks | None:
    path = folder / f"{uid}.json"
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    return ScanMarks(uid, tuple(Mark(uid, (x, y, z), p) for x, y, z, p in document["marks"]), document["refused"])
