"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    _audit()
    _scans()
    _workers()
    _jobs()
    _attempts()
    _events()
    _idempotency_keys()
    _outbox()


def downgrade() -> None:
    """Drop them, with all that is in them."""
    for table in ("outbox", "idempotency_keys", "events", "attempts", "jobs", "workers", "scans", "audit"):
        op.drop_table(table)


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("values", sa.JSON(), nullable=False),
    )
    op.create_index("audit_at", "audit", ["at"])
    op.create_index("audit_job", "audit", ["job_id"])


def _scans() -> None:
    op.create_table(
        "scans",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64)),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("erased_at", sa.Double()),
    )
    op.create_index("scans_digest", "scans", ["digest"], unique=True)


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("slot", sa.String(128), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("stopped_at", sa.Double()),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("scan_id", sa.String(32), sa.ForeignKey("scans.id")),
        sa.Column("ticket", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(32)),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("work_digest", sa.String(64)),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("stages_s", sa.JSON(), nullable=False),
        sa.Column("problem", sa.JSON()),
        sa.Column("result_name", sa.String(128)),
        sa.Column("result_sha256", sa.String(64)),
        sa.Column("result_size", sa.BigInteger()),
        sa.Column("answered_from", sa.String(32)),
        sa.Column("retry_of", sa.String(32)),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.Column("erased_at", sa.Double()),
    )
    op.create_index("jobs_created", "jobs", ["created_at", "id"])
    op.create_index("jobs_scan", "jobs", ["scan_id"])
    op.create_index("jobs_state", "jobs", ["state", "created_at"])
    op.create_index("jobs_work", "jobs", ["work_digest", "state"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("worker_id", sa.String(32), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.Column("outcome", sa.String(16)),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("code", sa.String(64)),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
    )


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key_sha256", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_index("idempotency_keys_job", "idempotency_keys", ["job_id"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_answer", sa.String(64)),
        sa.Column("delivered_at", sa.Double()),
    )
    op.create_index("outbox_due", "outbox", ["next_at"])
    op.create_index("outbox_job", "outbox", ["job_id"])
