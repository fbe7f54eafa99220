"""Several jobs of one upload; a name for the installation, which its object store is marked with."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables of batches, and the name."""
    made = op.create_table("installation", sa.Column("id", sa.String(32), primary_key=True))
    op.bulk_insert(made, [{"id": uuid.uuid4().hex}])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key_sha256", sa.String(64)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("left_out", sa.JSON(), nullable=False),
        sa.Column("erased_at", sa.Double()),
    )
    op.create_index("batches_key", "batches", ["key_sha256"], unique=True)
    op.create_table(
        "batch_jobs",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("batch_id", sa.String(32), sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("series", sa.JSON(), nullable=False),
    )
    op.create_index("batch_jobs_batch", "batch_jobs", ["batch_id", "place"])


def downgrade() -> None:
    """Drop them; the jobs stay."""
    op.drop_table("installation")
    op.drop_table("batch_jobs")
    op.drop_table("batches")
