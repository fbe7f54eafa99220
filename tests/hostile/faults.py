"""Rows 42 to 48, 54 and 55 of the list: no inputs but faults around the service. Which tests show what is promised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One row."""

    row: int
    name: str
    tests: tuple[str, ...]
    """As pytest names them."""


_KILLED = "tests/jobs/test_killed.py::"
_HERE = "tests/hostile/test_faults.py::"
_DOORS = "tests/hostile/test_doors.py::"

FAULTS = (
    Fault(
        42,
        "service or worker killed (kill -9) in mid job",
        (
            f"{_KILLED}test_service_killed_in_each_stage",
            f"{_KILLED}test_worker_killed_in_each_stage_while_the_service_lives",
            f"{_KILLED}test_acknowledged_and_killed_at_once",
            f"{_KILLED}test_killed_during_an_upload_nothing_is_left",
            f"{_HERE}test_killed_with_the_real_analysis",
        ),
    ),
    Fault(
        43,
        "a job that always kills its worker",
        (f"{_KILLED}test_a_job_that_kills_its_worker_is_parked_and_the_next_one_runs",),
    ),
    Fault(
        44,
        "disk full or read-only, SQLite locked, database gone",
        (
            "tests/jobs/test_faults.py",
            "tests/hostile/test_disks.py",
            f"{_HERE}test_a_locked_database_is_waited_for",
            f"{_HERE}test_without_its_database_a_service_is_not_ready",
        ),
    ),
    Fault(45, "queue full", (f"{_HERE}test_a_full_queue_says_so_and_forgets_nothing",)),
    Fault(
        46,
        "GPU asked for and not there",
        (
            f"{_HERE}test_the_cpu_instead_of_a_gpu_is_told_everywhere",
            f"{_HERE}test_no_start_without_the_gpu_that_is_required",
        ),
    ),
    Fault(
        47,
        "model truncated, swapped, or reaching outside its folder",
        (f"{_HERE}test_a_model_that_is_not_what_it_says",),
    ),
    Fault(48, "a PACS that lies, refuses, redirects or is down", ("tests/pacs/test_targets.py",)),
    Fault(
        54,
        "a worklist that lies: large, deep, wrong types",
        (f"{_DOORS}test_a_worklist_that_lies", f"{_DOORS}test_events_that_lie"),
    ),
    Fault(55, "a router's task.json: large, deep, wrong types", (f"{_DOORS}test_a_task_that_lies",)),
)
