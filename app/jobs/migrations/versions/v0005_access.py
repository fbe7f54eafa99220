"""Whose jobs are, who may call, and who is signed in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """What was there before belongs to the tenant ``default``."""
    for table in ("jobs", "batches"):
        op.add_column(table, sa.Column("tenant", sa.String(48), nullable=False, server_default="default"))
    op.create_index("jobs_tenant", "jobs", ["tenant", "created_at", "id"])
    op.add_column("audit", sa.Column("tenant", sa.String(48)))
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("name", sa.String(48), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("tenant", sa.String(48), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("revoked_at", sa.Double()),
        sa.Column("last_used_at", sa.Double()),
    )
    op.create_index("api_keys_name", "api_keys", ["name"])
    op.create_table(
        "browser_sessions",
        sa.Column("id_sha256", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(12), sa.ForeignKey("api_keys.id"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_seen_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
    )
    op.create_index("browser_sessions_key", "browser_sessions", ["key_id", "created_at"])


def downgrade() -> None:
    """Drop it: everybody sees everything again."""
    op.drop_table("browser_sessions")
    op.drop_table("api_keys")
    op.drop_column("audit", "tenant")
    op.drop_index("jobs_tenant", "jobs")
    for table in ("batches", "jobs"):
        op.drop_column(table, "tenant")
