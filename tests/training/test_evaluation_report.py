"""The report of an evaluation made up by hand: whole, standing alone, and saying what is and is not defined."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from app.evaluation.froc import Mark
from app.imaging.volume import CtVolume, Grid
from app.inference.manifest import Metric, OperatingPointEntry
from app.phantom.files import write_metaimage
from training.characteriser_evaluation import JudgedNodules, JudgedPatches
from training.config import DataConfig, TrainingConfig
from training.decisions import Decisions
from training.detection_evaluation import ScanTrial
from training.evaluate import all_metrics
from training.evaluation_report import write_evaluation_report
from training.evaluation_result import Evaluation
from training.inserted_scans import TrueNodule
from training.lung_background import Finding
from training.lung_evaluation import LungTrials
from training.metric_tables import BARS, Bar, metric_row, verdict
from training.model_card import KNOWN_FAILURES

NOT_IN_ANY = "<script>alert(1)</script>"


def judged_patches(rng, n=120):
    is_nodule = np.arange(n) % 4 == 0
    log_odds = rng.normal(0, 1, n) + np.where(is_nodule, 2.0, -2.0)
    patient = np.array([f"P{i // 3}" for i in range(n)])
    key = np.where(is_nodule, np.arange(n), -1)
    return JudgedPatches(log_odds, 1 / (1 + np.exp(-log_odds)), is_nodule, key, patient, patient)


def judged_nodules(rng, n=60):
    malignant, rated = np.arange(n) % 3 == 0, np.arange(n) % 5 != 0
    log_odds = rng.normal(0, 1, n) + np.where(malignant, 2.0, -2.0)
    reference = rng.uniform(3, 25, n)
    return JudgedNodules(
        log_odds,
        np.where(rated, 1 / (1 + np.exp(-log_odds)), np.nan),
        malignant,
        rated,
        np.arange(n) % 4 + 1,
        rng.uniform(0.5, 1.0, n),
        reference + rng.normal(0, 1, n),
        reference,
        np.array([f"P{i}" for i in range(n)]),
    )


def truth(x, diameter_mm, kind):
    return TrueNodule((float(x), 20.0, 20.0), diameter_mm, kind, "free", 3.0, 4)


def marked(name, *places):
    return tuple(Mark(name, (float(x), 20.0, 20.0), probability) for x, probability in places)


def inserted_trial(name):
    truths = (truth(10, 5.0, "solid"), truth(30, 10.0, "ground-glass"), truth(60, 2.5, "part-solid"))
    return ScanTrial(name, truths, (), marked(name, (10, 0.9), (30, 0.3), (45, 0.6), (50, 0.5)))


def lung_trials(fold, scan, *, annotated):
    truths = (truth(20, 8.0, "annotated"),) if annotated else ()
    acquired = ScanTrial(scan, truths, (Finding((40.0, 20.0, 20.0), 6.0),), marked(scan, (20, 0.8), (40, 0.7)))
    return LungTrials(fold, (inserted_trial(f"{scan}-0"), inserted_trial(f"{scan}-1")), (acquired,), 0.5)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(3)
    for scan in ("A", "B"):
        hu = rng.normal(-600, 200, (20, 40, 60)).astype(np.int16)
        write_metaimage(CtVolume(hu, Grid.from_spacing(hu.shape, (2.0, 1.0, 1.0))), root / f"{scan}.mha")
    return TrainingConfig(
        name="made-up", runs=root / "runs", data=DataConfig(root=root, lung_folds=(("A.mha",), ("B.mha",)))
    )


def evaluation_of(folds):
    rng = np.random.default_rng(5)
    point = OperatingPointEntry(threshold=0.5, description="1 per scan", sensitivity=0.8, measured_on="other lungs")
    decisions = Decisions(operating_points={"balanced": point}, default_operating_point="balanced")
    return Evaluation(
        fold=0,
        decisions=dict.fromkeys(range(folds), decisions),
        patches={k: judged_patches(rng) for k in range(folds)},
        nodules={k: judged_nodules(rng) for k in range(folds)},
        lungs={k: lung_trials(k, "AB"[k], annotated=k == 0) for k in range(folds)},
    )


class Page(HTMLParser):
    """Tags that are open, texts, addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.addresses, self.rows, self.headings = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in {"src", "href"}]
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(path):
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def report(config, tmp_path_factory):
    """Two folds, written once: page, folder, metrics."""
    folder, evaluation = tmp_path_factory.mktemp("report"), evaluation_of(2)
    metrics = all_metrics(config, evaluation)
    write_evaluation_report(folder / "evaluation-fold0.html", config, evaluation, metrics)
    return read(folder / "evaluation-fold0.html"), folder, metrics


def test_every_metric_is_in_the_report_with_its_value_and_n(report):
    page, _, metrics = report
    assert len({metric.name for metric in metrics}) > 25
    for metric in metrics:
        assert list(metric_row(metric)) in page.rows


def test_nothing_is_fetched_and_every_picture_can_be_read(report):
    page, folder, _ = report
    assert len(page.addresses) > 12
    for address in page.addresses:
        head, _, data = address.partition(",")
        assert head == "data:image/png;base64"
        assert imread(io.BytesIO(base64.b64decode(data)), format="png").size > 0
    assert not re.search(r"https?://|<script|@import|url\(", (folder / "evaluation-fold0.html").read_text())


def test_it_says_what_it_is_for(report):
    text = " ".join(report[0].texts)
    assert "Research use only. Not for diagnosis." in text
    assert "adaptation" in text
    assert "not pathology" in text


def test_marks_of_each_scan_are_in_the_report_and_beside_it(report):
    page, folder, _ = report
    files = sorted(path.name for path in (folder / "evaluation-fold0-marks").iterdir())
    assert files == ["marks-fold0-A.png", "marks-fold1-B.png"]
    assert ["A", "fold 0", "0.5000", "1 of 1", "0", "1"] in page.rows
    assert ["B", "fold 1", "0.5000", "none annotated", "1", "1"] in page.rows


def test_what_is_not_defined_is_said_where_every_scan_has_a_nodule(report):
    page, _, _ = report
    text = " ".join(page.texts)
    assert "In fold 0, which ships: 2 scans with and 0 without a nodule. No scan is negative" in text
    assert "1 scans with and 1 without a nodule" in text
    aurocs = [row for row in page.rows if row[0] == "scan_auroc"]
    assert [row[1] for row in aurocs] == ["not defined", "not defined", "0.5000"]


def test_sensitivity_by_size_and_kind_is_at_one_false_mark_per_scan(report):
    """Two false marks in each scan: at 1 FP/scan the nodule that both outrank is missed."""
    page, _, _ = report
    assert [row[1] for row in page.rows if row[0] == "4-6"] == ["1.0000"] * 2
    assert [row[1] for row in page.rows if row[0] == "ground-glass"] == ["0.0000"] * 2
    assert any("2 lie outside 3 to 40 mm" in text for text in page.texts)


def test_a_single_fold_has_a_report_too(config, tmp_path):
    """A first look at one fold, before the others are trained."""
    metrics = [Metric(name="x", value=0.5, n=3, data=NOT_IN_ANY)]
    write_evaluation_report(tmp_path / "one.html", config, evaluation_of(1), metrics)
    page = read(tmp_path / "one.html")
    assert "all" not in {row[0] for row in page.rows}
    assert NOT_IN_ANY in page.texts
    assert "Every figure of the model card" in page.headings
    assert any("Not measured here: nodule_auroc" in text for text in page.texts)


def test_bars_are_met_at_their_value_and_print_as_what_they_are():
    below = Metric(name="nodule_auroc", value=0.9849, ci95=(0.97, 0.99), n=9, data="d")
    assert verdict(below) == "at least 0.985: not met"
    assert metric_row(below)[1] == "0.9849"
    assert verdict(below.model_copy(update={"value": 0.985})) == "at least 0.985: met"
    assert Bar(0.05, is_least=False).is_met(0.05)
    assert not Bar(0.05, is_least=False).is_met(0.051)
    assert verdict(below.model_copy(update={"name": "of no bar"})) == ""


def test_every_bar_names_a_metric_that_evaluation_makes(report):
    assert BARS.keys() <= {metric.name for metric in report[2]}


def test_known_failures_promise_no_figure():
    """They are printed for every model: what they say must not depend on one."""
    assert not any(re.search(r"\d\.\d", failure) for failure in KNOWN_FAILURES)
