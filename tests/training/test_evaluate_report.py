"""The report stands alone and says what was measured; the command prints it and fails in words."""

from __future__ import annotations

import argparse
import json
import math
import re

import numpy as np
import pytest

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FrocRules, Mark, froc
from app.evaluation.reference import Annotation, Luna16Error, Reference
from app.evaluation.submission import read_submission
from training.calibration import reliability_bins
from training.evaluate_report import (
    Picture,
    Section,
    Table,
    estimates_table,
    froc_section,
    html_report,
    sensitivity_by,
    size_class,
    size_classes,
)
from training.plots import reliability_plot, roc_plot
from training.submission import add_submission_arguments, run_submission


def nodule(scan, diameter_mm, x=0.0):
    return Annotation(scan, (x, 0.0, 0.0), diameter_mm)


@pytest.fixture
def result():
    """Two scans: a 5 mm nodule found at 0.9, a 10 mm one at 0.3 below a false positive at 0.6, a 20 mm one missed."""
    nodules = {"s0": (nodule("s0", 5.0), nodule("s0", 10.0, 100.0)), "s1": (nodule("s1", 20.0),)}
    marks = [Mark("s0", (0.0, 0.0, 0.0), 0.9), Mark("s0", (100.0, 0.0, 0.0), 0.3), Mark("s0", (50.0, 0.0, 0.0), 0.6)]
    return froc(Reference(("s0", "s1"), nodules, {}), marks, FrocRules(n_bootstraps=20))


@pytest.mark.parametrize(
    ("diameter_mm", "name"),
    [(2.9, "3-4 mm"), (3.0, "3-4 mm"), (4.0, "4-6 mm"), (7.99, "6-8 mm"), (8.0, "8-15 mm"), (15.0, ">= 15 mm")],
)
def test_size_classes_hold_their_lower_edge(diameter_mm, name):
    assert size_class(nodule("s", diameter_mm)) == name


def test_sensitivity_by_size_is_that_at_the_threshold_of_the_rate(result):
    strict = sensitivity_by(result, size_class, fp_per_scan=0.25, order=size_classes())
    loose = sensitivity_by(result, size_class, fp_per_scan=0.5)
    assert [(strict[name].value, strict[name].n) for name in ("4-6 mm", "8-15 mm", ">= 15 mm")] == [
        (1, 1),
        (0, 1),
        (0, 1),
    ]
    assert strict["3-4 mm"].n == 0
    assert loose["8-15 mm"].value == 1.0
    assert loose[">= 15 mm"].value == 0.0


def test_the_report_stands_alone(result):
    text = html_report("Title", [froc_section(result, kinds={nodule("s0", 5.0): "solid"})])
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert text.count("data:image/png;base64,") == 3
    assert "Research use only" in text
    assert "Sensitivity by type" in text
    assert "solid" in text


def test_texts_are_escaped():
    section = Section("<a>", ("<b>",), (Table("<c>", ("<d>",), (("<e>",),)),), (Picture(b"", 'f" onload="g'),))
    text = html_report("<h>", [section])
    assert not re.search("<[abcdeh]>", text.replace("<body>", ""))
    assert 'f" onload' not in text


def test_figures_that_are_not_defined_or_never_reached_are_said_in_words():
    table = estimates_table("", {"a": Estimate(math.inf, math.nan, 0.5, 3)})
    assert table.rows == (("a", "never reached", "not defined to 0.5000", "3"),)


def test_plots_are_png():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.5, 0.7, 0.9])
    for png in (roc_plot({"a": (labels, scores)}), reliability_plot({"a": reliability_bins(labels, scores)})):
        assert png.startswith(b"\x89PNG")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.1,0,0,0,10\n")
    (tmp_path / "annotations_excluded.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,50,0,0,-1\n")
    (tmp_path / "seriesuids.csv").write_text("1.1\n1.2\n")
    (tmp_path / "results.csv").write_text(
        "probability,seriesuid,coordX,coordY,coordZ\n0.9,1.1,1,2,3\n0.5,1.2,52,0,0\n0.7,1.2,0,0,0\n"
    )
    return tmp_path


def run(folder, *more):
    parser = argparse.ArgumentParser()
    add_submission_arguments(parser)
    submission, annotations = str(folder / "results.csv"), str(folder / "annotations.csv")
    return run_submission(parser.parse_args(["--submission", submission, "--annotations", annotations, *more]))


def test_the_command_prints_a_table_and_writes_what_is_asked_for(files, capsys):
    options = ["--bootstraps", "20", "--json", str(files / "out.json"), "--report", str(files / "out.html")]
    assert run(files, *options) == 0
    out = capsys.readouterr().out
    assert "2 scans, 1 nodules, 3 marks" in out
    assert "1 marks on irrelevant findings ignored" in out
    assert re.search(r"CPM\s+1\.0000", out)
    assert "adaptation" in out
    written = json.loads((files / "out.json").read_text())
    assert written["estimates"]["cpm"]["value"] == 1.0
    assert written["estimates"]["fp_per_scan_at_25_percent_sensitivity"]["value"] == 0.0
    assert written["n_false_positives"] == 1
    assert "NODE21" in (files / "out.html").read_text()


def test_a_figure_that_is_not_finite_is_null_in_json(files):
    (files / "results.csv").write_text("seriesuid,coordX,coordY,coordZ,probability\n1.2,0,0,0,0.5\n")
    assert run(files, "--bootstraps", "5", "--json", str(files / "out.json")) == 0
    estimate = json.loads((files / "out.json").read_text())["estimates"]["fp_per_scan_at_25_percent_sensitivity"]
    assert estimate["value"] is None


def test_a_file_that_is_missing_is_named_and_the_status_is_2(files, capsys):
    (files / "seriesuids.csv").unlink()
    assert run(files) == 2
    assert "seriesuids.csv is not in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "fault"), [("1.1,1,2,3,x", "not a number"), ("1.1,1,2,3,nan", "not finite"), ("1.1,1,2", "not a number")]
)
def test_a_faulty_line_is_named(files, row, fault):
    (files / "results.csv").write_text(f"seriesuid,coordX,coordY,coordZ,probability\n1.1,1,2,3,0.5\n{row}\n")
    with pytest.raises(Luna16Error, match=f"line 3.*{fault}"):
        read_submission(files / "results.csv")


def test_a_missing_column_is_named(files):
    (files / "results.csv").write_text("seriesuid,coordX,coordY,coordZ\n")
    with pytest.raises(Luna16Error, match="no column probability"):
        read_submission(files / "results.csv")
