"""Run by alembic inside the transaction that `app.jobs.database` has opened."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], version_table="lungnodule_version", render_as_batch=True
)
context.run_migrations()
