"""The LUNA25 container's contract: the same points come back, in their order, each with its own probability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli.grand_challenge import ANSWER
from app.imaging.volume import CtVolume, Grid
from app.phantom.files import write_metaimage


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """An oblique scan with a bright ball at index (20, 30, 40), and 18 points that alternate between it and air."""
    affine = np.array([[0, 0, 0.8, -50], [-1.2, 0.64, 0, -60], [1.6, 0.48, 0, 70], [0, 0, 0, 1.0]])
    hu = np.full((40, 64, 64), -850, np.int16)
    z, y, x = np.indices(hu.shape)
    hu[(2 * (z - 20)) ** 2 + (0.8 * (y - 30)) ** 2 + (0.8 * (x - 40)) ** 2 < 14**2] = 300
    volume = CtVolume(hu, Grid((40, 64, 64), affine))
    (folder := tmp_path / "input/images/chest-ct").mkdir(parents=True)
    write_metaimage(volume, folder / "any-name.mha")
    places = [(20, 30, 40), (8, 12, 10)] * 9
    points = [
        {"name": f"n{number}", "point": volume.grid.to_patient(place).tolist()} for number, place in enumerate(places)
    ]
    (tmp_path / "input/nodule-locations.json").write_text(json.dumps({"points": points, "type": "Multiple points"}))
    return tmp_path


@pytest.mark.usefixtures("on_tiny_model")
def test_the_same_points_come_back_with_probabilities(run: Any, given: Path) -> None:
    done = run("grand-challenge", "--input", given / "input", "--output", given / "output")
    assert done.exit_code == 0, done.output
    answer = json.loads((given / "output" / ANSWER).read_text())
    sent = json.loads((given / "input/nodule-locations.json").read_text())["points"]
    assert [{key: point[key] for key in ("name", "point")} for point in answer["points"]] == sent
    probabilities = [point["probability"] for point in answer["points"]]
    assert min(probabilities[::2]) > 0.5 > max(probabilities[1::2])
    assert answer["type"] == "Multiple points"


@pytest.mark.usefixtures("on_tiny_model")
@pytest.mark.parametrize(
    ("points", "code"),
    [({"points": [{"name": "x", "point": [1e6, 0, 0]}]}, "point_outside"), ({"points": [{}]}, "points_invalid")],
)
def test_points_that_cannot_be_judged_are_refused(run: Any, given: Path, points: Any, code: str) -> None:
    (given / "input/nodule-locations.json").write_text(json.dumps(points))
    done = run("grand-challenge", "--input", given / "input", "--output", given / "output")
    assert (done.exit_code, f"error[{code}]" in done.output + done.stderr) == (3, True)
    assert not (given / "output").exists()


@pytest.mark.usefixtures("on_tiny_model")
def test_two_scans_are_refused(run: Any, given: Path) -> None:
    (given / "input/images/chest-ct/another.mha").write_bytes(b"")
    done = run("grand-challenge", "--input", given / "input", "--output", given / "output")
    assert done.exit_code == 3
