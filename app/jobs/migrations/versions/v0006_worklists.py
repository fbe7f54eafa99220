"""Workitems of UPS worklists that this service performs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "pacs_workitems",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("workitem_uid", sa.String(64), primary_key=True),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("job_id", sa.String(32)),
        sa.Column("began_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_answer", sa.String(64)),
    )
    op.create_index("pacs_workitems_due", "pacs_workitems", ["source", "next_at"])


def downgrade() -> None:
    """Drop it; what was claimed stays in progress at its server."""
    op.drop_table("pacs_workitems")
