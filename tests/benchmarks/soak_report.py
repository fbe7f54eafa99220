"""The table of a soak, from what it saved."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

QUIET = (0.4, 0.9)
"""Shares of the time between which nothing is killed."""
MEASURED_FROM = 0.5
"""Share of the time from which memory is looked at: what comes before is warming up."""
FLAT_MIB_PER_HOUR = 20.0


def report(told: dict[str, Any]) -> int:
    """Print it; 0 when everything was as it should be."""
    faults = list(told["wrong"])
    print(f"Soak of {told['hours']:g} h, commit {told['commit'][:12]}, {told['machine']}\n")
    print("| what | count |\n|---|---|")
    for what, count in sorted(told["seen"].items()):
        print(f"| {what} | {count} |")
    checked, end = told.get("checked"), told.get("end")
    if checked is None or end is None:
        faults.append(f"not ended: {told['elapsed_s']:.0f} s of {3600 * told['hours']:.0f} s")
    else:
        for what, count in {**checked, **end}.items():
            print(f"| {what.replace('_', ' ')} | {count} |")
        faults += _faults(checked, end)
    for row in memory(told):
        print(
            f"| memory of the {row['who']}, MiB, first and last quarter of {row['minutes']:.0f} min without kills "
            f"| {row['first_mib']:.0f}, {row['last_mib']:.0f} |"
        )
        print(f"| its slope, MiB/h | {row['mib_per_hour']:+.1f} |")
        print(f"| its open files, least and most | {row['fds'][0]}, {row['fds'][1]} |")
        if row["mib_per_hour"] > FLAT_MIB_PER_HOUR:
            faults.append(f"memory of the {row['who']} grows")
    print(f"\n{'All as it should be.' if not faults else 'NOT as it should be:'}")
    for fault in faults[:20]:
        print(f"- {fault}")
    return 1 if faults else 0


def _faults(checked: dict[str, Any], end: dict[str, Any]) -> list[str]:
    found = [what for what in ("lost", "twice", "jobs_nobody_was_told_of", "secrets_told") if checked[what]]
    found += [kind for kind in ("good", "hostile") if checked[kind] != checked[f"{kind}_right"]]
    found += [what for what in ("orphans", "left_on_disk") if end[what]]
    return found + (["exit codes"] if any(end["exit_codes"]) else [])


def memory(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the processes that lived through the quiet time, from ``measured_from`` on."""
    length_s = told["hours"] * 3600
    low, high = told["measured_from"] * length_s, told["quiet"][1] * length_s
    rows = []
    for who in ("service", "worker"):
        seen = [one for one in told["samples"] if one["who"] == who and low <= one["t"] < high]
        if len(seen) < 8:
            continue
        times, sizes = [one["t"] / 3600 for one in seen], [one["mib"] for one in seen]
        quarter = len(seen) // 4
        rows.append(
            {
                "who": who,
                "minutes": (seen[-1]["t"] - seen[0]["t"]) / 60,
                "first_mib": statistics.median(sizes[:quarter]),
                "last_mib": statistics.median(sizes[-quarter:]),
                "mib_per_hour": float(np.polyfit(times, sizes, 1)[0]),
                "fds": (min(one["fds"] for one in seen), max(one["fds"] for one in seen)),
            }
        )
    return rows
