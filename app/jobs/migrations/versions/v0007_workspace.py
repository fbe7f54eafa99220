"""Reviews of answers, and the figures of each answer for the dashboard."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0004"


def upgrade() -> None:
    """Make both tables; answers from before have no figures."""
    op.create_table(
        "job_reviews",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("revision", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "job_findings",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("nodules", sa.JSON(), nullable=False),
    )
    op.create_index("job_findings_at", "job_findings", ["at"])


def downgrade() -> None:
    """Drop them; what was written of reviews stays in the store until its job is erased."""
    op.drop_table("job_reviews")
    op.drop_table("job_findings")
