"""Sentences that stand in more than one form of the result."""

from __future__ import annotations

from app.inference.findings import Findings, Nodule

PRELIMINARY = "Preliminary, unverified result of a computer program."


def operating_point(findings: Findings) -> str:
    """Which threshold was in force."""
    point = findings.operating_point
    return f"Operating point {point.name}: nodules with a probability of at least {point.threshold:g}."


def outcome(findings: Findings) -> str:
    """How many nodules there are, in a sentence."""
    count, point = len(findings.nodules), findings.operating_point
    if not count:
        return (
            f"No nodule reached the operating point {point.name} (probability {point.threshold:g}). "
            "Nodules below it are not reported; this does not exclude any."
        )
    return f"{count} nodule{'s' if count > 1 else ''} at or above the operating point {point.name}."


def meaning_of_probability() -> str:
    """What the probability of a nodule says."""
    return "Probability: the program's own estimate, 0 to 100 %, that the mark is a nodule."


def meaning_of_malignancy(findings: Findings) -> str:
    """What the probability of malignancy was trained to say."""
    return f"Malignancy: estimate, 0 to 100 %, in this sense: {findings.malignancy_meaning}"


def model(findings: Findings) -> str:
    """Model and version."""
    return f"{findings.model.name} {findings.model.version}"


def place(nodule: Nodule) -> str:
    """Side and lobe as far as they are known."""
    lobe = nodule.location.lobe if nodule.location else None
    if lobe is not None and nodule.side is not None:
        return f"{nodule.side} {lobe} lobe"
    return f"{nodule.side} lung" if nodule.side else "outside the lung mask"


def kind(nodule: Nodule) -> str:
    """Composition in words; empty where it was not told."""
    return (nodule.kind or "").replace("_", "-")


def whereabouts(nodule: Nodule) -> str:
    """Place with how sure the lobe is, and how far the pleura."""
    where = nodule.location
    told = place(nodule)
    if where is None:
        return told
    if where.lobe is not None:
        sure = "" if where.lobe_confidence is None else f", {percent(where.lobe_confidence)} sure"
        told += f" (estimate{sure})"
    pleura = where.distance_to_pleura_mm
    return told if pleura is None else f"{told}, {pleura:.0f} mm from the pleura"


def character(nodule: Nodule) -> str:
    """Type, solid part, margin and signs, each where it was told."""
    solid = nodule.solid_diameter_mm
    return ", ".join(
        (
            *([kind(nodule)] if nodule.kind else []),
            *([] if solid is None else [f"solid part {solid:.1f} mm"]),
            *([] if nodule.is_spiculated is None else ["spiculated" if nodule.is_spiculated else "not spiculated"]),
            *(sign for sign in nodule.signs if sign != "calcification" or nodule.kind != "calcified"),
        )
    )


def images(nodule: Nodule) -> str:
    """Images that show it, as a PACS counts them; else slices of the volume from 0."""
    if not nodule.slices:
        return "-"
    if nodule.slices[0].frame_number is not None:
        counted, word = [box.frame_number or 0 for box in nodule.slices], "frames"
    elif nodule.slices[0].instance_number is not None:
        counted, word = [box.instance_number or 0 for box in nodule.slices], "images"
    else:
        counted, word = [box.index_z for box in nodule.slices], "slices"
    return f"{word} {min(counted)}-{max(counted)}"


def malignancy(nodule: Nodule) -> str:
    """Probability of malignancy in per cent, or that the model does not judge it."""
    return "not judged" if nodule.malignancy_probability is None else percent(nodule.malignancy_probability)


def percent(probability: float) -> str:
    """Whole per cent; no program is certain, so neither 0 nor 100 is ever said."""
    whole = round(100 * probability)
    return "< 1 %" if whole < 1 else "> 99 %" if whole > 99 else f"{whole} %"
