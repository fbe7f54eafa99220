"""`lungnodule demo`: the whole path once, as a client sees it, judged against what is known to be there.

Phantom CT as a DICOM series -> the service in a process of its own -> one multipart upload -> JSON, compared with the
phantom's truth by LUNA16's rule: a mark hits a nodule when it is closer to its centre than the nodule's radius.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import ExitCode, errors_in_one_line, fail

MAX_FALSE_POSITIVES = 4


@dataclass(frozen=True)
class Truth:
    """One nodule of the phantom."""

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True)
class Score:
    """Marks against truth."""

    hit: tuple[bool, ...]
    """One for each true nodule."""
    false_positives: int

    @property
    def is_good(self) -> bool:
        """Every nodule hit, and no more false positives than a reader would bear."""
        return all(self.hit) and self.false_positives <= MAX_FALSE_POSITIVES


def demo(
    seed: Annotated[int, typer.Option(min=0, help="Which phantom.")] = 1,
    url: Annotated[str | None, typer.Option(help="Use the service that runs there instead of starting one.")] = None,
    operating_point: Annotated[str | None, typer.Option(help="Named threshold; the model's default.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Keep the phantom and result.json here.")
    ] = None,
) -> None:
    """Send a phantom CT with known nodules through the service and judge the answer.

    Exits with 1 when a nodule is missed or there are more than four false positives.

    For example:

    - `lungnodule demo`

    - `lungnodule demo --url http://127.0.0.1:8000 --seed 3 --output demo-output/`
    """
    with errors_in_one_line(), tempfile.TemporaryDirectory() as temporary:
        folder = output or Path(temporary)
        truths, files = _make_phantom(folder, seed)
        result = _ask(url, files, operating_point)
        document = json.dumps(result, indent=2)
        typer.echo(document)
        (folder / "result.json").write_text(document + "\n", encoding="utf-8")
        score = compare([tuple(nodule["center_lps_mm"]) for nodule in result["nodules"]], truths)
        _report(truths, score)
        if not score.is_good:
            raise typer.Exit(ExitCode.CHECK_FAILED)


def compare(marks_lps_mm: Sequence[tuple[float, float, float]], truths: Sequence[Truth]) -> Score:
    """Judge marks by LUNA16's rule.

    Parameters
    ----------
    marks_lps_mm
        Centres of the reported nodules, patient LPS mm.
    truths
        What is there.

    Returns
    -------
    Score
        A further mark on a nodule that is already hit counts neither way.
    """
    hits = [[_is_hit(mark, truth) for truth in truths] for mark in marks_lps_mm]
    return Score(
        hit=tuple(any(row[i] for row in hits) for i in range(len(truths))),
        false_positives=sum(not any(row) for row in hits),
    )


def _is_hit(mark_lps_mm: tuple[float, float, float], truth: Truth) -> bool:
    squared_mm2 = sum((a - b) ** 2 for a, b in zip(mark_lps_mm, truth.center_lps_mm, strict=True))
    return squared_mm2 < (truth.diameter_mm / 2) ** 2


def _make_phantom(folder: Path, seed: int) -> tuple[list[Truth], list[Path]]:
    from app.phantom import write_phantom

    _say(f"Writing a chest CT phantom (seed {seed}) as a DICOM series to {folder}")
    write_phantom(folder, "dicom", seed=seed)
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    truths = [Truth(tuple(nodule["center_lps_mm"]), nodule["diameter_mm"]) for nodule in truth["nodules"]]
    return truths, sorted((folder / "series").glob("*.dcm"))


def _ask(url: str | None, files: list[Path], operating_point: str | None) -> dict[str, Any]:
    from app.cli.client import RequestRefused, predict, running_service

    form = {"operating_point": operating_point} if operating_point else {}
    started = time.perf_counter()
    try:
        if url is not None:
            answer = predict(url, files, form)
        else:
            with running_service() as service:
                _say(f"The service is ready at {service.url} after {time.perf_counter() - started:.1f} s")
                started = time.perf_counter()
                answer = predict(service.url, files, form)
    except RequestRefused as error:
        fail(ExitCode.CHECK_FAILED, error.code, error.message)
    _say(f"Uploaded {len(files)} files and got the answer in {time.perf_counter() - started:.1f} s")
    return answer


def _report(truths: Sequence[Truth], score: Score) -> None:
    for truth, hit in zip(truths, score.hit, strict=True):
        where = ", ".join(f"{value:.1f}" for value in truth.center_lps_mm)
        _say(f"{'hit   ' if hit else 'MISSED'}  {truth.diameter_mm:.1f} mm nodule at LPS ({where}) mm")
    _say(f"{sum(score.hit)} of {len(truths)} nodules hit, {score.false_positives} false positives: "
         f"{'good' if score.is_good else 'NOT GOOD'}")  # fmt: skip


def _say(text: str) -> None:
    """To standard error, so that standard output is the JSON alone."""
    typer.echo(text, err=True)
