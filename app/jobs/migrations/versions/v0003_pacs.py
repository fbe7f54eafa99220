"""What comes from a PACS and what goes back to one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    _series()
    _instances()
    _returns()
    _orthanc()


def downgrade() -> None:
    """Drop them, with all that is in them."""
    for table in ("pacs_fetches", "pacs_cursors", "pacs_returns", "pacs_instances", "pacs_series"):
        op.drop_table(table)


def _series() -> None:
    op.create_table(
        "pacs_series",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("rule", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("job_id", sa.String(32)),
        sa.Column("code", sa.String(64)),
    )
    op.create_index("pacs_series_due", "pacs_series", ["state", "due_at"])
    op.create_index("pacs_series_job", "pacs_series", ["job_id"])


def _instances() -> None:
    op.create_table(
        "pacs_instances",
        sa.Column("series_id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("slices", sa.Integer(), nullable=False),
    )


def _returns() -> None:
    op.create_table(
        "pacs_returns",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("target", sa.String(64), primary_key=True),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("confirmed", sa.JSON(), nullable=False),
        sa.Column("last_answer", sa.String(64)),
        sa.Column("sent_at", sa.Double()),
    )
    op.create_index("pacs_returns_due", "pacs_returns", ["target", "next_at"])


def _orthanc() -> None:
    op.create_table(
        "pacs_cursors",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "pacs_fetches",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("remote_id", sa.String(64), primary_key=True),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_answer", sa.String(64)),
    )
    op.create_index("pacs_fetches_due", "pacs_fetches", ["source", "next_at"])
