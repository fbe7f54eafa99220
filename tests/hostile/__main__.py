"""Try every hostile input and print what came of it.

    python -m tests.hostile                                    # the table
    python -m tests.hostile --docs docs/hostile-input.md       # ... and into the document

Rows 1 to 41 and 49 to 53 are sent to a service of its own, with a good job after each row; the tests of the other rows
are run. Exit code 1 when anything was not as it should be.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import requests

from tests.hostile.cases import HOSTILE
from tests.hostile.faults import FAULTS, Fault
from tests.hostile.series_files import good_nifti
from tests.hostile.site import LIMITS, ROOT, Site, site
from tests.hostile.trying import most_children_mib, most_own_mib, settings_of, tried, used_once
from tests.hostile.wording import ROW_NAMES
from tests.tiny_model import write_tiny_model

BEGIN, END = "<!-- begin: python -m tests.hostile -->", "<!-- end -->"


@dataclass
class Row:
    """One row of the list."""

    row: int
    name: str
    inputs: int
    right: int
    mib: float | None
    seconds: float
    faults: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, help="document whose table is replaced")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        write_tiny_model(folder / "models")
        place = stack.enter_context(site(folder / "site", folder / "models", **LIMITS))
        rows, jobs, lost = inputs(place, folder)
        settings = settings_of(place)
    rows = sorted([*rows, *(tested(fault) for fault in FAULTS)], key=lambda row: row.row)
    text = table(rows)
    text += (
        f"\n\nInputs {sum(row.inputs for row in rows)}, answered as expected {sum(row.right for row in rows)}; worst "
        f"memory {max(row.mib or 0 for row in rows):.0f} MiB (limits: {most_own_mib(settings):.0f} of the service, "
        f"{most_children_mib(settings):.0f} of decoding processes), worst time "
        f"{max(row.seconds for row in rows if row.mib is not None):.1f} s; good jobs between them {jobs}, lost {lost}."
    )
    if faults := [f"row {row.row}: {fault}" for row in rows for fault in row.faults]:
        text += f"\n\nNot as expected: {'; '.join(faults)}."
    print(text)
    if asked.docs:
        write_into(asked.docs, text)
    sys.exit(1 if lost or any(row.right < row.inputs for row in rows) else 0)


def inputs(place: Site, folder: Path) -> tuple[list[Row], int, int]:
    """The rows that are inputs; then the number of good jobs in between, and of those that were lost."""
    process, rows, jobs = place.serve(), [], []
    used_once(place, folder / "first")
    for row, cases in groupby(HOSTILE, key=lambda case: case.row):
        results = [tried(case, place, process.pid, folder / "files") for case in cases]
        assert process.poll() is None, place.log.read_text()[-3000:]
        made = place.post("/v1/jobs", [*good_nifti(folder / "good"), *note(folder, row)])
        jobs.append(re.findall(r'"id":"(\w+)"', made.text)[0])
        rows.append(
            Row(
                row,
                ROW_NAMES[row],
                len(results),
                sum(not result.faults for result in results),
                max(result.own_mib + result.children_mib for result in results),
                max(result.seconds for result in results),
                [f"{result.case.id}: {fault}" for result in results for fault in result.faults],
            )
        )
        told(rows[-1])
    return rows, len(jobs), sum(not succeeded(place, job) for job in jobs)


def note(folder: Path, row: int) -> list[Path]:
    """Makes each upload another one."""
    path = folder / "good" / "note.txt"
    path.write_text(str(row))
    return [path]


def succeeded(place: Site, job: str) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = requests.get(f"{place.url}/v1/jobs/{job}", timeout=60).json()["state"]
        if state not in ("queued", "running"):
            return bool(state == "succeeded")
        time.sleep(0.05)
    return False


def tested(fault: Fault) -> Row:
    """The tests of a row, counted."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "junit.xml"
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={found}", *fault.tests],
            cwd=ROOT, stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - began
        cases = list(ET.parse(found).getroot().iter("testcase"))
    wrong = [case.get("name", "") for case in cases if len(case) and any(part.tag != "system-out" for part in case)]
    row = Row(fault.row, fault.name, len(cases), len(cases) - len(wrong), None, seconds, wrong)
    told(row)
    return row


def told(row: Row) -> None:
    """While it runs: a run takes minutes, and what is wrong is to be seen at once."""
    print(f"row {row.row}: {row.right} of {row.inputs}", *row.faults, sep="\n  ", file=sys.stderr, flush=True)


def table(rows: list[Row]) -> str:
    lines = [
        "| # | input or fault | tried | as expected | worst memory, MiB | worst time, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cost = f"{row.mib:.0f} | {row.seconds:.1f}" if row.mib is not None else "tests | "
        lines.append(f"| {row.row} | {row.name} | {row.inputs} | {row.right} | {cost} |")
    return "\n".join(lines)


def write_into(document: Path, text: str) -> None:
    """Between the two marks."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{document} lacks the marks {BEGIN} and {END}"
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
