"""`models evaluate` and `compare` on a few synthetic chests in LUNA16's layout."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from app.cli.exits import ExitCode
from app.evaluation.froc import froc
from app.evaluation.reference import read_reference
from app.evaluation.submission import read_submission
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse
from tests.tiny_model import write_tiny_model
from tests.training.luna16_phantoms import PHANTOMS, write_luna16


@pytest.fixture(scope="module")
def luna16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("luna16")
    write_luna16(root)
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, which reports nothing unless asked for more, and `blind`, which gives one candidate a scan."""
    store = tmp_path_factory.mktemp("store")
    write_tiny_model(store, changes={"default_operating_point": "none"})
    write_tiny_model(store, name="blind", changes={"detector.max_candidates": 1})
    return store


@pytest.fixture(autouse=True)
def here(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUNGNODULE_MODEL_STORE", str(models))
    monkeypatch.setenv("LUNGNODULE_DEVICE", "cpu")
    monkeypatch.setenv("LUNGNODULE_THREADS", "1")
    monkeypatch.chdir(tmp_path)


def linked(source: Path, target: Path, *, without: str = "") -> Path:
    """The same folder to spoil, its files linked."""
    for path in source.rglob("*"):
        if path.is_file() and not (without and path.stem == without):
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).symlink_to(path)
    return target


def test_the_table_is_that_of_its_own_submission(run, luna16):
    result = run("models", "evaluate", "tiny", "--luna16", luna16, "--bootstraps", "50")
    assert result.exit_code == 0, result.output
    (submission,) = Path("evaluation").glob("tiny-1.0.0-*.csv")
    tables = [luna16 / f"{name}.csv" for name in ("annotations", "annotations_excluded", "seriesuids")]
    expected = froc(read_reference(*tables), read_submission(submission))
    assert f"{len(PHANTOMS)} scans, {expected.n_nodules} nodules" in result.stdout
    assert f"    CPM   {expected.cpm.value:11.4f}" in result.stdout
    assert expected.n_hits > 0
    for said in ("sensitivity_at_0.25_fp_per_scan", "fp_per_scan_at_25_percent_sensitivity", "adaptation"):
        assert said in result.stdout
    with submission.open() as file:
        assert next(csv.reader(file)) == ["seriesuid", "coordX", "coordY", "coordZ", "probability"]


def test_marks_are_the_pipelines_own_whatever_its_operating_point(run, luna16, models):
    run("models", "evaluate", "tiny", "--luna16", luna16, "--bootstraps", "1")
    (submission,) = Path("evaluation").glob("tiny-1.0.0-*.csv")
    phantom = PHANTOMS[0]
    marks = [mark for mark in read_submission(submission) if mark.series_uid == phantom.series_uid]
    model = load_model(models / "tiny/1.0.0", SessionOptions(device="cpu", threads=1))
    files = [luna16 / f"subset{phantom.subset}" / f"{phantom.series_uid}.{end}" for end in ("mhd", "raw")]
    reported = analyse(files, model, AnalysisOptions(operating_point="sensitive")).nodules
    assert len(marks) >= len(reported) > 0
    likely = sorted((mark for mark in marks if mark.probability >= 0.1), key=lambda mark: -mark.probability)
    assert [mark.probability for mark in likely] == pytest.approx([nodule.probability for nodule in reported])
    np.testing.assert_allclose(
        [mark.center_lps_mm for mark in likely], [nodule.center_lps_mm for nodule in reported], atol=1e-6
    )


def test_a_run_goes_on_where_it_was_stopped(run, luna16):
    whole = run("models", "evaluate", "tiny", "--luna16", luna16, "--bootstraps", "20")
    assert [line.split()[0] for line in whole.stderr.splitlines()] == ["1/4", "2/4", "3/4", "4/4"]
    (folder,) = (path for path in Path("evaluation").iterdir() if path.is_dir())
    (folder / f"{PHANTOMS[2].series_uid}.json").unlink()
    (folder / f".{PHANTOMS[2].series_uid}.part").write_text('{"marks": [[0')
    again = run("models", "evaluate", "tiny", "--luna16", luna16, "--bootstraps", "20")
    assert [line.split()[:2] for line in again.stderr.splitlines()] == [["4/4", PHANTOMS[2].series_uid]]
    assert again.stdout == whole.stdout


def test_two_processes_say_what_one_does(run, luna16):
    one = run("models", "evaluate", "tiny", "--luna16", luna16, "-o", "one", "--bootstraps", "20")
    two = run("models", "evaluate", "tiny", "--luna16", luna16, "-o", "two", "--bootstraps", "20", "--workers", "2")
    assert two.exit_code == 0, two.output
    assert two.stdout == one.stdout
    texts = [next(Path(name).glob("*.csv")).read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]


def test_a_scan_that_the_service_refuses_counts_without_marks(run, luna16, tmp_path):
    root = linked(luna16, tmp_path / "spoilt")
    spoilt = root / f"subset{PHANTOMS[3].subset}" / f"{PHANTOMS[3].series_uid}.raw"
    spoilt.unlink()
    spoilt.write_bytes(b"\0" * 100)
    result = run("models", "evaluate", "tiny", "--luna16", root, "--json", "--bootstraps", "20")
    figures = json.loads(result.stdout)
    assert (figures["refused"], figures["n_scans"], figures["n_nodules"]) == (1, 4, 8)


def test_a_listed_scan_that_is_missing_is_an_error_unless_told(run, luna16, tmp_path):
    root = linked(luna16, tmp_path / "part", without=PHANTOMS[1].series_uid)
    result = run("models", "evaluate", "tiny", "--luna16", root)
    assert result.exit_code == ExitCode.SCAN
    assert f"error[luna16_unusable]: 1 of 4 series have no scan in {root}" in result.stderr
    result = run("models", "evaluate", "tiny", "--luna16", root, "--present-only", "--bootstraps", "20")
    assert result.stdout.startswith("Only 3 of the 4 listed scans: no figure of LUNA16.\n3 scans, 6 nodules")


def test_files_of_other_names_are_found_by_the_table(run, luna16, tmp_path):
    root = tmp_path / "named"
    root.mkdir()
    rows = []
    for number, phantom in enumerate(PHANTOMS):
        for end in ("mhd", "raw"):
            source = luna16 / f"subset{phantom.subset}" / f"{phantom.series_uid}.{end}"
            text = source.read_bytes().replace(phantom.series_uid.encode(), f"ct-{number}".encode())
            (root / f"ct-{number}.{end}").write_bytes(text)
        rows.append(f"{phantom.series_uid},ct-{number}.mhd\n")
    (root / "scans.csv").write_text("seriesuid,path\n" + "".join(rows))
    for name in ("annotations", "annotations_excluded", "seriesuids"):
        (root / f"{name}.csv").symlink_to(luna16 / f"{name}.csv")
    ours = run("models", "evaluate", "tiny", "--luna16", root, "-o", "ours", "--bootstraps", "20")
    theirs = run("models", "evaluate", "tiny", "--luna16", luna16, "-o", "theirs", "--bootstraps", "20")
    assert ours.exit_code == 0, ours.output
    assert ours.stdout == theirs.stdout


def test_a_series_whose_name_is_a_path_is_refused(run, luna16, tmp_path):
    root = linked(luna16, tmp_path / "odd")
    (root / "seriesuids.csv").unlink()
    (root / "seriesuids.csv").write_text("../../elsewhere\n")
    result = run("models", "evaluate", "tiny", "--luna16", root)
    assert (result.exit_code, "characters that no UID has" in result.stderr) == (ExitCode.SCAN, True)


def test_two_models_are_compared_on_the_same_scans(run, luna16):
    result = run("models", "compare", "tiny", "blind", "--luna16", luna16, "--bootstraps", "200")
    assert result.exit_code == 0, result.output
    cpm = next(line for line in result.stdout.splitlines() if line.startswith("  CPM"))
    assert float(cpm.split()[1]) > 0
    assert "n = 4), p = " in cpm
    same = run("models", "compare", "tiny", "tiny", "--luna16", luna16, "--bootstraps", "200")
    assert "CPM                       0.000 (0.000 to 0.000, n = 4), p = 1.000" in same.stdout
