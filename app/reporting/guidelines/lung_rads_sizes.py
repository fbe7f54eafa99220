"""Lung-RADS v2022 by size: the columns of solid, part-solid and ground-glass nodules."""

from __future__ import annotations

from dataclasses import replace

from app.reporting.answers import Ruling, Undecided, lacks
from app.reporting.guidelines.lung_rads_categories import T4, T6, T8, T15, T30, Size, ruling
from app.reporting.nodule_facts import EarlierNodule, NoduleFacts, change_of, half_up, solid_component_change_of

_SIX_MONTHS_DAYS, _THREE_MONTHS_DAYS = 150.0, 75.0
"""From here on a CT counts as the one at 6 or 3 months: appointments come early. Our reading."""


def baseline(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    """Category of a nodule seen for the first time at a baseline CT; its kind is told."""
    if nodule.kind == "solid":
        return _solid_baseline(size)
    if nodule.kind == "part_solid":
        return _part_solid_baseline(nodule, size)
    if size.reaches(T30):
        return ruling("3", "lr-3-ground-glass-baseline", "Ground glass of 30 mm or more at baseline.")
    return ruling("2", "lr-2-ground-glass", "Ground glass below 30 mm.")


def followed_up(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    """Category of a nodule that is compared with an earlier CT; its kind is told."""
    change = change_of(nodule)
    if nodule.kind == "part_solid" and change != "new" and solid_component_change_of(nodule) in ("new", "growing"):
        return _new_or_growing_solid_component(nodule)
    if change is None:
        return Undecided(
            "The earlier measurement does not say how the nodule changed.",
            lacks(change="New, growing, slowly growing, stable or decreased."),
        )
    if change in ("stable", "decreased"):
        return _not_growing(nodule, size)
    return _ground_glass_changed(nodule, size) if nodule.kind == "ground_glass" else _more_solid(nodule, size)


def _more_solid(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    """A solid or part-solid nodule that is new or grows."""
    change = change_of(nodule)
    if change == "slowly_growing":
        sentence = "A solid or part-solid nodule that grows slowly, by at most 1.5 mm in any 12 months."
        return ruling("4B", "lr-4b-slow-growth", sentence)
    if nodule.kind == "solid":
        return _solid_new(size) if change == "new" else _solid_growing(size)
    return _part_solid_new(nodule, size) if change == "new" else _part_solid_growing(nodule, size)


def _solid_baseline(size: Size) -> Ruling:
    if size.reaches(T15):
        return ruling("4B", "lr-4b-solid-baseline", "Solid, 15 mm or more at baseline.")
    if size.reaches(T8):
        return ruling("4A", "lr-4a-solid-baseline", "Solid, 8 mm to below 15 mm at baseline.")
    if size.reaches(T6):
        return ruling("3", "lr-3-solid-baseline", "Solid, 6 mm to below 8 mm at baseline.")
    return ruling("2", "lr-2-solid-baseline", "Solid, below 6 mm at baseline.")


def _solid_new(size: Size) -> Ruling:
    if size.reaches(T8):
        return ruling("4B", "lr-4b-solid-new", "Solid, new, 8 mm or more.")
    if size.reaches(T6):
        return ruling("4A", "lr-4a-solid-new", "Solid, new, 6 mm to below 8 mm.")
    if size.reaches(T4):
        return ruling("3", "lr-3-solid-new", "Solid, new, 4 mm to below 6 mm.")
    return ruling("2", "lr-2-solid-new", "Solid, new, below 4 mm.")


def _solid_growing(size: Size) -> Ruling:
    if size.reaches(T8):
        return ruling("4B", "lr-4b-solid-growing", "Solid, growing, 8 mm or more.")
    return ruling("4A", "lr-4a-solid-growing", "Solid, growing, below 8 mm.")


def _part_solid_baseline(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    if not size.reaches(T6):
        return ruling("2", "lr-2-part-solid-baseline", "Part-solid, below 6 mm in total at baseline.")
    solid = Size.of_solid_component(nodule)
    if solid is None:
        return _no_solid_component()
    if solid.reaches(T8):
        return ruling(
            "4B", "lr-4b-part-solid-baseline", "Part-solid with a solid component of 8 mm or more at baseline."
        )
    if solid.reaches(T6):
        sentence = "Part-solid, 6 mm or more in total, with a solid component of 6 mm to below 8 mm at baseline."
        return ruling("4A", "lr-4a-part-solid-baseline", sentence)
    sentence = "Part-solid, 6 mm or more in total, with a solid component below 6 mm at baseline."
    return ruling("3", "lr-3-part-solid-baseline", sentence)


def _part_solid_new(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    if not size.reaches(T6):
        return ruling("3", "lr-3-part-solid-new", "Part-solid, new, below 6 mm in total.")
    return _new_or_growing_solid_component(nodule)


def _part_solid_growing(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    """Its solid component does not grow, or it is not told."""
    if solid_component_change_of(nodule) is None:
        return Undecided(
            "A part-solid nodule grows; it is not told whether its solid component does.",
            lacks(solid_component_change="A new or growing solid component is 4A or 4B."),
        )
    outcome = _part_solid_baseline(nodule, size)
    note = "It grows, but not its solid component: the table has no row for that, so the size decided."
    return replace(outcome, notes=(*outcome.notes, note))


def _new_or_growing_solid_component(nodule: NoduleFacts) -> Ruling | Undecided:
    solid = Size.of_solid_component(nodule)
    if solid is None:
        return _no_solid_component()
    if solid.reaches(T4):
        return ruling(
            "4B", "lr-4b-solid-component", "Part-solid with a new or growing solid component of 4 mm or more."
        )
    return ruling("4A", "lr-4a-solid-component", "Part-solid with a new or growing solid component below 4 mm.")


def _no_solid_component() -> Undecided:
    return Undecided(
        "The solid component of the part-solid nodule is not measured.",
        lacks(solid_diameter_mm="The solid component decides between 3, 4A and 4B."),
    )


def _ground_glass_changed(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    """New, growing or slowly growing."""
    change = change_of(nodule)
    if not size.reaches(T30):
        return ruling("2", "lr-2-ground-glass", "Ground glass below 30 mm, also when new or growing.")
    if change == "new":
        return ruling("3", "lr-3-ground-glass-new", "Ground glass of 30 mm or more, new.")
    if change == "slowly_growing":
        return ruling("2", "lr-2-ground-glass-slow", "Ground glass of 30 mm or more that is stable or grows slowly.")
    if _crossed(nodule, size):
        return ruling(
            "3", "lr-3-ground-glass-grown", "Ground glass that has reached 30 mm is classed anew by its size."
        )
    return Undecided(
        "The table has no row for ground glass of 30 mm or more that was as large before and grows. A reader decides; "
        "doubling within a year is a reason for 4X."
    )


def _not_growing(nodule: NoduleFacts, size: Size) -> Ruling | Undecided:
    """Stable or decreased: a step down where the time for it has passed, else by size."""
    if nodule.kind == "ground_glass" and size.reaches(T30) and not _crossed(nodule, size):
        return ruling("2", "lr-2-ground-glass-stable", "Ground glass of 30 mm or more that is stable or grows slowly.")
    by_size = baseline(nodule, size)
    if isinstance(by_size, Ruling) and (by_size.category == "2" or _crossed(nodule, size)):
        return by_size
    earlier = nodule.earlier
    if earlier is None or earlier.lung_rads_category is None:
        return Undecided(
            "A nodule that does not grow is classed by its earlier category.",
            lacks(earlier="lung_rads_category: 3 steps down to 2 at 6 months, 4A to 3 at 3 months."),
        )
    return _stepped_down(earlier, by_size)


def _stepped_down(earlier: EarlierNodule, by_size: Ruling | Undecided) -> Ruling | Undecided:
    """That 4A steps down to 3 is from memory, to be checked against the ACR's table."""
    category, days = earlier.lung_rads_category, earlier.interval_days
    if category == "3" and days >= _SIX_MONTHS_DAYS:
        return ruling("2", "lr-2-stepped-down", "Category 3, stable or decreased at the CT after 6 months.")
    if category == "4A" and days >= _THREE_MONTHS_DAYS:
        return ruling("3", "lr-3-stepped-down", "Category 4A, stable or decreased at the CT after 3 months.")
    if category in ("1", "2"):
        return by_size
    if category in ("3", "4A"):
        return Undecided(f"Category {category} before, not growing, but the time for a step down has not passed.")
    return Undecided(
        f"Category {category} before and not growing: the table has no step down from it but proof that it is benign.",
        lacks(is_proven_benign="4B that is proven benign is category 2."),
    )


def _crossed(nodule: NoduleFacts, size: Size) -> bool:
    """Whether it has reached a threshold that it lay below before; what has is classed anew by size, growth or not."""
    earlier = nodule.earlier
    if earlier is None:
        return False
    if size.mean_mm is not None and earlier.mean_diameter_mm is not None:
        before = Size(half_up(earlier.mean_diameter_mm, 1))
    elif size.mean_mm is None and earlier.volume_mm3 is not None:
        before = Size(None, half_up(earlier.volume_mm3, 0))
    else:
        return False
    return size.thresholds_reached > before.thresholds_reached
