"""Lung-RADS v2022 for what is no ordinary nodule: lesions of airways and atypical cysts."""

from __future__ import annotations

from app.reporting.answers import Ruling, Undecided, lacks
from app.reporting.guidelines.lung_rads_categories import ruling
from app.reporting.nodule_facts import NoduleFacts, change_of


def ruled_apart(nodule: NoduleFacts) -> Ruling | Undecided | None:
    """The category of an airway nodule or a cyst; None for a nodule of the lung."""
    if nodule.lesion == "nodule":
        return None
    if nodule.lesion == "airway_subsegmental":
        return ruling("2", "lr-2-airway-subsegmental", "A nodule of a subsegmental airway.")
    if nodule.lesion == "airway_segmental_or_proximal":
        return _central_airway(nodule)
    return _cyst(nodule)


def _central_airway(nodule: NoduleFacts) -> Ruling | Undecided:
    change = change_of(nodule)
    if change in (None, "new"):
        sentence = "A nodule of a segmental or more central airway, seen for the first time."
        return ruling("4A", "lr-4a-airway", sentence)
    if change == "decreased":
        return Undecided("The table has no row for a nodule of a central airway that has become smaller.")
    return ruling("4B", "lr-4b-airway", "A nodule of a segmental or more central airway that stays or grows.")


def _cyst(nodule: NoduleFacts) -> Ruling | Undecided:
    multilocular = nodule.lesion == "cyst_multilocular"
    change = nodule.cyst_change
    if change == "none":
        return Undecided(
            "A cyst that has not changed is classed by its earlier category.",
            lacks(earlier="lung_rads_category; a reader applies the step down."),
        )
    if change in ("growing", "denser") and multilocular:
        return ruling(
            "4B", "lr-4b-cyst-multilocular", "A multilocular cyst that grows, divides further or turns denser."
        )
    if change == "growing_wall":
        return ruling("4B", "lr-4b-cyst-wall", "A cyst whose wall has become thicker or nodular.")
    if change == "growing_cystic_part" and not multilocular:
        return ruling("3", "lr-3-cyst-growing", "A thick-walled cyst whose cystic part grows.")
    if change in (None, "became_multilocular"):
        return ruling("4A", "lr-4a-cyst", "A thick-walled or multilocular cyst at baseline, or one that became so.")
    return Undecided("The table has no row for this change of this kind of cyst.")
