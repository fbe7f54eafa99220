"""Write what `tests.benchmarks.jobs_campaign` measured into docs/jobs.md, between its markers.

python -m tests.benchmarks.jobs_report build/jobs-sqlite.json build/jobs-postgresql.json --docs docs/jobs.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.report import machine_line
from tests.benchmarks.tables import Table

_MARKERS = re.compile(r"(<!-- generated: jobs -->\n).*?(<!-- end of jobs -->)", re.DOTALL)


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """One table for each question, with a row or more for each database."""
    return [_kills(results), _throughput(results), _answers(results), _uploads(results), _soak(results)]


def documented(text: str, results: Sequence[dict[str, Any]]) -> str:
    """The document with its block replaced.

    Raises
    ------
    ValueError
        If the marker is missing.
    """
    if not _MARKERS.search(text):
        raise ValueError("the document has no block 'jobs'")
    machines = "\n".join(f"{result['database']}: {machine_line(result['machine'])}" for result in results)
    block = "\n".join([machines, "", *(table.markdown() for table in tables(results))])
    return _MARKERS.sub(lambda found: f"{found[1]}\n{block}\n{found[2]}", text)


def _kills(results: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            result["database"], str(part["acknowledged"]), str(part["killed"]), str(part["lost"]),
            str(part["doubled"]), str(part["wrong"]), str(part["attempts"] - part["acknowledged"]),
        ]
        for result, part in _parts(results, "kills")
    ]  # fmt: skip
    return Table(
        "Two workers, one killed (kill -9) every few seconds",
        ["database", "acknowledged", "workers killed", "lost", "doubled", "wrong", "attempts in vain"],
        rows,
    )


def _throughput(results: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            result["database"], str(run["workers"]), f"{run['jobs'] / run['seconds']:.2f}",
            f"{(run['jobs'] / run['seconds']) / (runs[0]['jobs'] / runs[0]['seconds']):.2f}",
        ]
        for result, runs in _parts(results, "throughput")
        for run in runs
    ]  # fmt: skip
    return Table(
        "Throughput of jobs that take 0.6 s of waiting", ["database", "workers", "jobs/s", "times one worker"], rows
    )


def _answers(results: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            f"{result['database']}, {name}", str(probe["n"]), f"{probe['median_s'] * 1e3:.1f}",
            f"{probe['p99_s'] * 1e3:.1f}", f"{probe['longest_s'] * 1e3:.1f}",
        ]
        for result, part in _parts(results, "load")
        for name, probe in part["probes"].items()
    ]  # fmt: skip
    return Table(
        "Answers while others upload and every core computes", ["", "n", "median ms", "p99 ms", "longest ms"], rows
    )


def _uploads(results: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            result["database"], str(part["clients"]), str(part["uploads"]),
            ", ".join(f"{count} x {status}" for status, count in sorted(part["statuses"].items())),
            str(part["without_advice"]), f"{part['lost']} / {part['doubled']} / {part['wrong']}",
            f"{part['rss_mib'][0]:.0f}, {part['rss_mib'][1]:.0f}",
        ]
        for result, part in _parts(results, "load")
    ]  # fmt: skip
    return Table(
        "Uploads of 8 MiB, all at once",
        ["database", "clients", "uploads", "answers", "refused without Retry-After", "lost / doubled / wrong",
         "MiB before, after"],
        rows,
    )  # fmt: skip


def _soak(results: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [result["database"], str(part["jobs"]), ", ".join(f"{size:.0f}" for size in part["rss_mib"]), _growth(part)]
        for result, part in _parts(results, "soak")
    ]
    return Table(
        "Memory of the service and its worker, before and after each round of jobs of 8 MiB",
        ["database", "jobs a round", "resident MiB", "MiB for each round, second half"],
        rows,
    )


def _growth(part: dict[str, Any]) -> str:
    """Of the second half: the first fills caches and pools."""
    later = part["rss_mib"][len(part["rss_mib"]) // 2 :]
    return f"{(later[-1] - later[0]) / (len(later) - 1):+.1f}" if len(later) > 1 else ""


def _parts(results: Sequence[dict[str, Any]], name: str) -> list[tuple[dict[str, Any], Any]]:
    return [(result, result[name]) for result in results if name in result]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--docs", type=Path, help="replace the generated block of this document")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    for table in tables(results):
        print(table.text())
    if options.docs:
        options.docs.write_text(documented(options.docs.read_text(), results))


if __name__ == "__main__":
    main()
