"""Whose a series is that came by STOW-RS with a key or a token."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Series from before stay what they were: null is the tenant that the settings give to what a PACS sends."""
    with op.batch_alter_table("pacs_series") as table:
        table.add_column(sa.Column("tenant", sa.String(48)))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("pacs_series") as table:
        table.drop_column("tenant")
