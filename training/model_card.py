"""MODEL_CARD.md from the manifest alone: nothing in it is typed by hand."""

from __future__ import annotations

from app.inference.manifest import Metric, ModelManifest

KNOWN_FAILURES = (
    (
        "All scans whose lungs the detector learnt on, and the one it was tried on, are from one vendor (GE); other "
        "vendors enter only through the candidate patches and nodule slices of the second stage."
    ),
    (
        "Nodules under 3 mm, masses over 30 mm, lesions within consolidation or atelectasis, and endobronchial lesions "
        "were hardly in the training data."
    ),
    (
        "Inserted nodules are real nodules in other lungs, not real findings: sensitivity on them estimates what "
        "LUNA16 would give; it is not LUNA16's figure."
    ),
    "No pathology: malignancy is radiologists' suspicion. No children, no contrast-phase study, no follow-up scans.",
)

NODULE_MEANING = (
    "Nodule: the log-odds of both networks, the detector's with weight {first:g}. The second network's is calibrated: "
    "the probability that a LUNA16 candidate at this place is a nodule of 3 mm or more that at least three of four "
    "radiologists accepted, where about one candidate in ten is. The mixture ranks; it is not calibrated itself."
)


def model_card(manifest: ModelManifest) -> str:
    """Markdown text."""
    points = [
        f"| {name}{' (default)' if name == manifest.default_operating_point else ''} | {point.threshold:.3f} "
        f"| {point.description} |"
        for name, point in manifest.operating_points.items()
    ]
    files = [
        f"| {entry.file} | `{entry.sha256}` | {entry.parity.max_abs_difference:.1e} | {entry.parity.opset} |"
        for entry in (manifest.detector, manifest.characteriser)
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
        NODULE_MEANING.format(first=manifest.characteriser.detector_weight),
        "",
        f"Malignancy: {manifest.malignancy.meaning}",
        "",
        "## Figures",
        "",
        "On patients and lungs that were not trained on; intervals are 95 %, by patient or by scan.",
        "",
        "| figure | value | interval | n | data |",
        "|---|---|---|---|---|",
        *(_row(metric) for metric in manifest.metrics),
        "",
        "## Operating points",
        "",
        "| name | threshold | meaning |",
        "|---|---|---|",
        *points,
        "",
        "## Data",
        "",
        *(f"- {item}" for item in provenance.data),
        f"- Licence: {provenance.data_licence}",
        "- Split by patient: `split.json` beside this file; fold 0 was held out.",
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
    ]
    return "\n".join(lines)


def _row(metric: Metric) -> str:
    interval = "" if metric.ci95 is None else f"{metric.ci95[0]:.3f} to {metric.ci95[1]:.3f}"
    return f"| {metric.name} | {metric.value:.3f} | {interval} | {metric.n} | {metric.data} |"
