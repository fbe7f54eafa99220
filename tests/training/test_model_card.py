"""The model card says all that the manifest does, in tables by what was measured on what."""

import pytest

from app.inference.manifest import Metric, NetworkVariant, VariantFigure, load_manifest
from training.metric_tables import metric_row, metrics_by_data
from training.model_card import KNOWN_FAILURES, model_card

METRICS = (
    Metric(name="nodule_auroc", value=0.991, ci95=(0.98, 0.995), n=2496, data="patches, fold 0"),
    Metric(name="mask_dice_all", value=0.8149, ci95=(0.8, 0.83), n=467, data="slices, fold 0"),
    Metric(name="nodule_ece", value=0.008, ci95=(0.006, 0.017), n=2496, data="patches, fold 0"),
    Metric(name="real_scan_false_positives", value=2.0, n=1, data="one scan as acquired"),
)


@pytest.fixture
def manifest(tiny_model_store):
    return load_manifest(tiny_model_store / "tiny" / "1.0.0").model_copy(update={"metrics": METRICS})


def tables(card):
    """Heading -> rows of cells."""
    found, heading = {}, ""
    for line in card.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| "):
            found.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_figures_are_grouped_by_their_data_beside_their_bars(manifest):
    found = tables(model_card(manifest))
    for data, metrics in metrics_by_data(METRICS).items():
        assert found[data][2:] == [list(metric_row(metric)) for metric in metrics]
    assert found["patches, fold 0"][2] == ["nodule_auroc", "0.991", "0.980 to 0.995", "2496", "at least 0.985: met"]
    assert found["slices, fold 0"][2][-1] == "at least 0.82: not met"
    assert found["one scan as acquired"][2] == ["real_scan_false_positives", "2", "", "1", ""]


def test_it_says_what_the_model_is_for_how_it_is_used_and_where_it_fails(manifest):
    card = model_card(manifest)
    assert card.startswith("# tiny 1.0.0\n\nTests only. Not for diagnosis.\n")
    points = tables(card)["Operating points"]
    assert next(row for row in points if row[0].startswith("balanced"))[:2] == ["balanced (default)", "0.5000"]
    assert all(f"- {failure}" in card for failure in KNOWN_FAILURES)
    assert "split.json" in card


def test_variants_are_shown_where_there_are_any(manifest):
    assert "Variants" not in tables(model_card(manifest))
    figure = VariantFigure(name="CPM", value=0.611, fp32=0.613, n=100, data="lungs")
    variant = NetworkVariant(
        file="detector.int8.onnx", sha256="0" * 64, arithmetic="int8", max_abs_difference=0.0123, figures=(figure,)
    )
    detector = manifest.detector.model_copy(update={"variants": {"int8": variant}})
    (row,) = tables(model_card(manifest.model_copy(update={"detector": detector})))["Variants"][2:]
    assert row == [
        "detector.onnx: int8",
        "int8, onnxruntime, cpu",
        "1.2e-02",
        "CPM 0.611 (fp32 0.613, n = 100, lungs)",
        "not measured",
    ]
