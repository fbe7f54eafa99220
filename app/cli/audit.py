"""`lungnodule audit`: who did what, when, with which job."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from app.cli.exits import errors_in_one_line
from app.cli.setup import quiet_libraries, settings_with


def audit(
    limit: Annotated[int, typer.Option(min=1, help="Entries, the newest first.")] = 50,
    actor: Annotated[str | None, typer.Option(help="Only of this one, e.g. key:radiology.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. job.erase.")] = None,
    job: Annotated[str | None, typer.Option(help="Only of the job with this id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Show the audit trail, of every tenant. It holds nothing of a patient.

    For example:

    - `lungnodule audit --limit 20`

    - `lungnodule audit --action job.erase --json`
    """
    with errors_in_one_line():
        from app.jobs.audit_trail import AuditFilters, read_audit
        from app.jobs.installation import opened_database

        quiet_libraries()
        with opened_database(settings_with()) as database:
            entries = read_audit(database, AuditFilters(actor, action, job), limit)
        for entry in entries:
            at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="seconds")
            if as_json:
                typer.echo(json.dumps({**asdict(entry), "at": at}))
            else:
                values = " ".join(f"{name}={value}" for name, value in entry.values.items())
                typer.echo(f"{at}  {entry.actor}  {entry.action}  {entry.job_id or '-'}  {values}".rstrip())
