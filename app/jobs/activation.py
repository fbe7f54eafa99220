"""Which model is in force where a request names none: durable, and the same for all processes of one database."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from app.inference.findings import ModelIdentity
from app.jobs.database import Database
from app.jobs.rows import Who, add_audit
from app.jobs.tables import active_model

_ROW = 1
_MINE = active_model.c.id == _ROW


@dataclass(frozen=True)
class Activations:
    """Reads and changes the choice; whether the model can be used is the caller's to know."""

    database: Database

    def active(self) -> ModelIdentity | None:
        """What was activated last; None while the settings decide. One row by its key: read it whenever it is needed.

        Raises
        ------
        DatabaseUnavailable
            The database does not answer.
        """
        with self.database.reading() as connection:
            return _identity(connection.execute(sa.select(active_model).where(_MINE)).one())

    def activate(self, model: ModelIdentity, who: Who) -> ModelIdentity | None:
        """Put a model in force from now on; gives the one before, None where the settings decided.

        Raises
        ------
        DatabaseUnavailable
            Nothing was changed.
        """
        return self._change(model, who, "model.activate")

    def deactivate(self, who: Who) -> ModelIdentity | None:
        """Let the settings decide again; gives the model that was in force.

        Raises
        ------
        DatabaseUnavailable
            Nothing was changed.
        """
        return self._change(None, who, "model.deactivate")

    def _change(self, model: ModelIdentity | None, who: Who, action: str) -> ModelIdentity | None:
        with self.database.transaction() as connection:
            query = self.database.locked_row(sa.select(active_model).where(_MINE))
            before = _identity(connection.execute(query).one())
            at = self.database.now(connection)
            chosen = {
                "name": model and model.name,
                "version": model and model.version,
                "sha256": model and model.sha256,
                "activated_at": at if model else None,
            }
            connection.execute(sa.update(active_model).where(_MINE).values(chosen))
            add_audit(connection, at, who, action, None, model=_called(model), previous=_called(before))
        return before


def _identity(row: sa.Row[tuple[object, ...]]) -> ModelIdentity | None:
    return None if row.name is None else ModelIdentity(row.name, row.version, row.sha256)


def _called(model: ModelIdentity | None) -> dict[str, str] | None:
    return None if model is None else {"name": model.name, "version": model.version, "sha256": model.sha256}
