"""MODEL_CARD.md from the manifest alone: nothing in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.inference.manifest import Metric, ModelManifest
from training.metric_tables import METRIC_HEADER, metric_row, metrics_by_data

KNOWN_FAILURES = (
    (
        "All four scans whose lungs the detector learns in or is tried in are from one vendor (GE); other vendors "
        "enter only through the candidate patches and nodule slices of the second stage."
    ),
    (
        "Four pairs of lungs are few: false positives per scan are counted in copies of the same lungs, which are not "
        "independent, so other scanners, reconstructions and diseases may give more than the operating points say."
    ),
    (
        "Inserted nodules are real nodules in other lungs, not real findings: sensitivity on them estimates what "
        "LUNA16 would give; it is not LUNA16's figure."
    ),
    (
        "Figures by size and kind rest on few nodules each, those of ground glass and over 15 mm above all: read their "
        "n and interval. A total says little of a kind that is rare in it."
    ),
    (
        "Nodules under 3 mm, masses over 30 mm, lesions within consolidation or atelectasis, and endobronchial lesions "
        "were hardly in the training data."
    ),
    (
        "No pathology: malignancy is radiologists' suspicion on one CT. No children, no contrast-phase study, no "
        "follow-up scans."
    ),
)
"""What stays true of every model that is trained on these data, whatever its figures."""

NODULE_MEANING = (
    "Nodule: the log-odds of both networks, the detector's with weight {first:g}. The second network's is calibrated: "
    "the probability that a LUNA16 candidate at this place is a nodule of 3 mm or more that at least three of four "
    "radiologists accepted, where about one candidate in ten is. The mixture ranks; it is not calibrated itself."
)


def model_card(manifest: ModelManifest) -> str:
    """Markdown text."""
    points = [
        _cells(
            (
                f"{name}{' (default)' if name == manifest.default_operating_point else ''}",
                f"{point.threshold:.4f}",
                "" if point.sensitivity is None else f"{point.sensitivity:.3f}",
                point.description,
                point.measured_on or "",
            )
        )
        for name, point in manifest.operating_points.items()
    ]
    files = [
        f"| {entry.file} | `{entry.sha256}` | {entry.parity.max_abs_difference:.1e} | {entry.parity.opset} |"
        for entry in manifest.networks.values()
        if entry.parity is not None
    ]
    provenance = manifest.provenance
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        manifest.intended_use,
        "",
        "## Meaning of the probabilities",
        "",
        NODULE_MEANING.format(first=manifest.second_stage.detector_weight),
        "",
        f"Malignancy: {manifest.malignancy.meaning if manifest.malignancy else 'not told'}",
        "",
        "## Figures",
        "",
        "On patients and lungs that were not trained on; intervals are 95 %, by patient or by scan. A bar is what the",
        "project asks of a figure before it calls a model good enough.",
        "",
        *_figures(manifest.metrics),
        "## Operating points",
        "",
        "| name | threshold | sensitivity there | meaning | chosen on |",
        "|---|---|---|---|---|",
        *points,
        "",
        "## Data",
        "",
        *(f"- {item}" for item in provenance.data),
        f"- Licence: {provenance.data_licence}",
        "- Split by patient: `split.json` beside this file; the fold that the figures name was held out.",
        "",
        "## Known failures",
        "",
        *(f"- {item}" for item in KNOWN_FAILURES),
        "",
        "## Provenance",
        "",
        f"Code `{provenance.code}`, configuration `{provenance.config}`, seed {provenance.seed}, {provenance.created}.",
        "",
        "| file | sha256 | torch against ONNX Runtime | opset |",
        "|---|---|---|---|",
        *files,
        "",
        *_variants(manifest),
    ]
    return "\n".join(lines)


def _figures(metrics: Sequence[Metric]) -> Iterator[str]:
    """One table for each set of data."""
    for data, measured in metrics_by_data(metrics).items():
        yield from (f"### {data}", "", _cells(METRIC_HEADER), _cells(["---"] * len(METRIC_HEADER)))
        yield from (_cells(metric_row(metric)) for metric in measured)
        yield ""


def _variants(manifest: ModelManifest) -> Iterator[str]:
    """What each cheaper form of a network costs in accuracy; nothing where there is none."""
    rows = [
        (
            f"{entry.file}: {name}",
            f"{variant.arithmetic}, {variant.runtime}, {variant.device}",
            f"{variant.max_abs_difference:.1e}",
            "; ".join(f"{f.name} {f.value:.3f} (fp32 {f.fp32:.3f}, n = {f.n}, {f.data})" for f in variant.figures),
            "not measured" if variant.seconds_ratio is None else f"{variant.seconds_ratio:.2f}",
        )
        for entry in manifest.networks.values()
        for name, variant in entry.variants.items()
    ]
    if rows:
        header = ("variant", "arithmetic", "largest difference from fp32", "figures", "seconds over those of fp32")
        yield from ("## Variants", "", _cells(header), _cells(["---"] * len(header)), *map(_cells, rows), "")


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
