"""Which model is in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table and its one row: nothing was activated yet."""
    table = op.create_table(
        "active_model",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(128)),
        sa.Column("version", sa.String(128)),
        sa.Column("sha256", sa.String(64)),
        sa.Column("activated_at", sa.Double()),
    )
    op.bulk_insert(table, [{"id": 1}])


def downgrade() -> None:
    """Drop it: the settings say again which model is in force."""
    op.drop_table("active_model")
