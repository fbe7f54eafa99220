"""`lungnodule grand-challenge`: the contract of the LUNA25 containers, a scan and points in, their malignancy out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import ExitCode, errors_in_one_line, fail
from app.cli.setup import find_named_model, quiet_libraries, settings_with

ANSWER = "lung-nodule-malginancy-likelihoods.json"
"""Spelt so by the platform."""


def grand_challenge(
    input_dir: Annotated[Path, typer.Option("--input", help="Has nodule-locations.json, images/chest-ct/.")] = Path(
        "/input"
    ),
    output_dir: Annotated[Path, typer.Option("--output", help=f"Gets {ANSWER}.")] = Path("/output"),
    model: Annotated[str | None, typer.Option(help="NAME or NAME:VERSION; the first of LUNGNODULE_MODELS.")] = None,
) -> None:
    """Judge given points as a LUNA25 container of grand-challenge.org does: the same points with probabilities.

    A probability is that of malignancy, in the sense of the model's card. Research use only, not for diagnosis. Points
    are patient coordinates in mm (LPS). Clinical information beside the scan is not used.

    For example:

    - `lungnodule grand-challenge --input /input --output /output`
    """
    with errors_in_one_line():
        import json

        from app.api.model_choice import store_source
        from app.imaging.read_options import ReadOptions
        from app.imaging.reading import read_ct
        from app.inference.characterisation import malignancy_at

        quiet_libraries()
        points = _points(input_dir / "nodule-locations.json")
        scan = _only_scan(input_dir / "images/chest-ct")
        settings = settings_with(models=model)
        loaded = store_source(settings).load(find_named_model(settings, settings.models[0]))
        volume, _ = read_ct(scan, ReadOptions(limits=settings.read))
        centers = [point for _, point in points]
        for number, center in enumerate(centers):
            index = volume.grid.to_index(center)
            if not all(-0.5 <= i <= size - 0.5 for i, size in zip(index, volume.grid.shape_zyx, strict=True)):
                fail(ExitCode.SCAN, "point_outside", f"Point {number} (counted from 0) lies outside the scan.")
        judged = malignancy_at(volume, centers, loaded)
        document = {
            "name": "Points of interest",
            "type": "Multiple points",
            "points": [
                {"name": name, "point": list(point), "probability": probability}
                for (name, point), probability in zip(points, judged, strict=True)
            ],
            "version": {"major": 1, "minor": 0},
        }
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / ANSWER).write_text(json.dumps(document, indent=2), encoding="utf-8")


def _points(path: Path) -> list[tuple[str, tuple[float, float, float]]]:
    """Name and place of each point."""
    import json

    from pydantic import BaseModel, FiniteFloat, ValidationError

    class Point(BaseModel):
        name: str
        point: tuple[FiniteFloat, FiniteFloat, FiniteFloat]

    class Points(BaseModel):
        points: list[Point]

    try:
        read = Points.model_validate(json.loads(path.read_bytes()))
    except (ValueError, ValidationError):
        fail(ExitCode.SCAN, "points_invalid", "nodule-locations.json holds no points of a name and three numbers.")
    return [(each.name, each.point) for each in read.points]


def _only_scan(folder: Path) -> Path:
    found = sorted(path for path in folder.iterdir() if path.suffix == ".mha")
    if len(found) != 1:
        fail(ExitCode.SCAN, "scan_count", f"images/chest-ct holds {len(found)} .mha files; one is expected.")
    return found[0]
