"""Print what was measured, and write it into docs/performance.md between its markers.

    python -m tests.benchmarks.report build/benchmark.json [MORE.json ...] [--docs docs/performance.md]

Several files are joined part by part, the later one winning: a GPU is measured elsewhere than a CPU. A part from
another machine or day than the first file's says so.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.cost import floor, sizing
from tests.benchmarks.goals import goals
from tests.benchmarks.tables import TABLES, Table

BLOCKS = ("machine", "goals", "measured", "floors", "sizing")


def joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of several; parts remember where they were measured when it was not with the first."""
    first = results[0]
    parts = dict(first["parts"])
    for other in results[1:]:
        where = f"{machine_line(other['machine'])}"
        parts.update({name: {**part, "elsewhere": where} for name, part in other["parts"].items()})
    return {**first, "parts": parts}


def tables(result: dict[str, Any]) -> dict[str, list[Table]]:
    """Tables by block of the document."""
    parts = {name: part for name, part in result["parts"].items() if part}
    return {
        "goals": [goals(parts)],
        "measured": list(_measured(parts)),
        "floors": floor(parts["floor"]) if "floor" in parts else [],
        "sizing": sizing(parts, result["machine"]["cores"]),
    }


def printed(result: dict[str, Any]) -> str:
    """Everything for the terminal, the goals last."""
    found = tables(result)
    order = [*found["measured"], *found["floors"], *found["sizing"]]
    # Small scans say nothing about goals that name large ones.
    ending = ["\nQuick: small scans, one run. The figures show that all parts run, no more."] if result["quick"] else []
    order += [] if result["quick"] else found["goals"]
    return "\n".join([machine_line(result["machine"]), *(table.text() for table in order), *ending])


def documented(text: str, result: dict[str, Any]) -> str:
    """The document with its generated blocks replaced.

    Raises
    ------
    ValueError
        If a marker is missing, or the result is a quick one.
    """
    if result["quick"]:
        raise ValueError("a quick run is no result to write down")
    # A block of one table stands under a heading of the document's own.
    content = {
        name: "\n".join(table.markdown(titled=len(found) > 1) for table in found)
        for name, found in tables(result).items()
    }
    content["machine"] = machine_line(result["machine"]) + "\n"
    for name in BLOCKS:
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the document has no block '{name}'")
        block = content[name] or "Not measured.\n"
        text = pattern.sub(lambda found, block=block: f"{found[1]}\n{block}\n{found[2]}", text)
    return text


def _measured(parts: dict[str, Any]) -> Iterator[Table]:
    for name, make in TABLES.items():
        part = parts.get(name)
        if part and "left_out" not in part:
            for table in make(part):
                elsewhere = [f"Measured elsewhere: {part['elsewhere']}"] if "elsewhere" in part else []
                yield Table(table.title, table.columns, table.rows, [*table.notes, *elsewhere])
        elif part:
            yield Table(f"{name}: left out", ["why"], [[part["left_out"]]])


def machine_line(machine: dict[str, Any]) -> str:
    """What the figures were measured on, in one line."""
    changed = " with uncommitted changes" if machine["uncommitted_changes"] else ""
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    gpus = f"{machine['gpus']} GPU" if machine["gpus"] else "no GPU"
    return (
        f"{machine['date']}, commit {machine['commit']}{changed}. {machine['cores']} cores of {machine['cpu']} "
        f"({' '.join(machine['flags'])}), {machine['memory_gib']} GiB, {gpus}, load before {machine['load_before']}; "
        f"Python {machine['python']}, {packages}."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--docs", type=Path, help="replace the generated blocks of this document")
    options = parser.parse_args()
    result = joined([json.loads(path.read_text()) for path in options.results])
    print(printed(result))
    if options.docs:
        options.docs.write_text(documented(options.docs.read_text(), result))


if __name__ == "__main__":
    main()
