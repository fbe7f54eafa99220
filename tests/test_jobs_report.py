"""The campaign's tables: every figure is a measured one, and the document takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.jobs_report import documented, tables
from tests.test_benchmarks import MACHINE

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/jobs.md"
ONCE = {"acknowledged": 20, "lost": 1, "doubled": 2, "wrong": 3, "attempts": 24}


def measured(database: str) -> dict[str, Any]:
    probe = {"n": 500, "median_s": 0.0015, "p99_s": 0.02, "longest_s": 0.3}
    return {
        "machine": MACHINE, "database": database,
        "kills": {"killed": 5, "seconds": 30.0, **ONCE},
        "throughput": [
            {"workers": 1, "jobs": 40, "seconds": 40.0}, {"workers": 4, "jobs": 40, "seconds": 12.5},
        ],
        "load": {
            "clients": 50, "uploads": 200, "uploaded_s": 9.0, "uploads_at_once": 16, "without_advice": 7,
            "probes": {"/healthz, under load": probe}, "statuses": {"429 uploads_full": 60, "202": 200},
            "rss_mib": [150.4, 180.6], **ONCE,
        },
        "soak": {"rounds": 4, "jobs": 20, "rss_mib": [100.0, 160.0, 170.0, 171.0, 173.0]},
    }  # fmt: skip


def test_the_tables_say_what_was_measured() -> None:
    kills, throughput, answers, uploads, soak = tables([measured("SQLite"), measured("PostgreSQL")])
    assert kills.rows[0] == ["SQLite", "20", "5", "1", "2", "3", "4"]
    assert [row[2:] for row in throughput.rows] == [["1.00", "1.00"], ["3.20", "3.20"]] * 2
    assert answers.rows[1] == ["PostgreSQL, /healthz, under load", "500", "1.5", "20.0", "300.0"]
    assert uploads.rows[0][3:] == ["200 x 202, 60 x 429 uploads_full", "7", "1 / 2 / 3", "150, 181"]
    assert soak.rows[0][2:] == ["100, 160, 170, 171, 173", "+1.5"]


def test_what_was_not_measured_has_no_row() -> None:
    one = {"machine": MACHINE, "database": "SQLite", "kills": measured("SQLite")["kills"]}
    assert [len(table.rows) for table in tables([one])] == [1, 0, 0, 0, 0]


def test_the_document_has_the_block_and_takes_it_twice() -> None:
    written = documented(DOCUMENT.read_text(), [measured("SQLite")])
    assert "| SQLite | 20 | 5 | 1 | 2 | 3 | 4 |" in written
    again = documented(written, [measured("PostgreSQL")])
    assert "| SQLite | 20 |" not in again
    assert again.count("| PostgreSQL | 20 | 5 |") == 1
    with pytest.raises(ValueError, match="no block"):
        documented("# Jobs", [])
