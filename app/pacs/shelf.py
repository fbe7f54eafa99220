"""Received instances, safe on the disk, gathered by series until a series is complete.

What is acknowledged is forced to the disk and written down in one transaction. Folders and files are named by hashes of
UIDs, never by a UID. A series that was sent again finds what is there already; one that grows after its job was made is
analysed anew, whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.disk_faults import full_disk_refused
from app.imaging.identity import Identity, merged
from app.imaging.pseudonyms import pseudonyms_in
from app.imaging.read_options import ReadLimits
from app.jobs.database import Database
from app.jobs.identities import write_secretly
from app.jobs.records import DatabaseUnavailable, State
from app.jobs.tables import jobs, pacs_instances, pacs_series
from app.pacs.config import PacsConfig
from app.pacs.instances import Instance
from app.pacs.received import Received, without_patient
from app.pacs.rules import first_fitting

OPEN, HANDED, LEFT = "open", "handed", "left"
"""More may come; a job was made; not analysed, see ``code``."""
_RACES = 5
_IDENTITY = ".identity"
_ORPHAN_AGE_S = 3600.0


@dataclass(frozen=True)
class Shelf:
    """Where received instances wait.

    Parameters
    ----------
    database
        Of the jobs.
    root
        Folder in the data folder, on the same file system as what is received.
    config
        Rules and times.
    limits
        Of the reader.
    """

    database: Database
    root: Path
    config: PacsConfig
    limits: ReadLimits = field(default_factory=ReadLimits)

    def prepare(self) -> None:
        """Make the folder."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def taken(self, path: Path, instance: Instance, *, tenant: str | None = None) -> Received:
        """A received file as it may be put: where the rule of its series says so, its patient is taken out of it now.

        Raises
        ------
        InstanceRefused
            It cannot be de-identified.
        """
        known = self._rule_of(instance.series_uid, tenant)
        rule = self.config.rule(known) or self.config.rule(self._rule_for(instance))
        if rule is None or rule.deidentify is None:
            return Received(path, instance, instance)
        return without_patient(path, instance, pseudonyms_in(self.root.parent), rule.deidentify.retained, self.limits)

    def put(self, received: Sequence[Received], *, complete: bool = False, tenant: str | None = None) -> None:
        """Keep instances that a rule asks for, and let the others go; afterwards they outlive the power.

        Parameters
        ----------
        received
            Their files are moved or removed.
        complete
            No more is expected of their series.
        tenant
            Of the sender, if it is not the tenant of the PACS: each gathers, and is answered for, its own.

        Raises
        ------
        StorageFull, DatabaseUnavailable
            Nothing of it counts as received.
        """
        by_series: dict[str, list[Received]] = {}
        for one in received:
            by_series.setdefault(one.stored.series_uid, []).append(one)
        for together in by_series.values():
            known = self._rule_of(together[0].stored.series_uid, tenant)
            # Once asked for, the rest of a series is taken whatever its headers say: the reader judges it as a whole.
            wanted = [one for one in together if known or self._rule_for(one.instance)]
            if wanted:
                rule = known or self._rule_for(wanted[0].instance) or ""
                self._keep(wanted, rule, complete=complete, tenant=tenant)
            for one in together:
                one.path.unlink(missing_ok=True)

    def wants(self, instance: Instance) -> bool:
        """Whether a rule asks for its series."""
        return self._rule_for(instance) is not None

    def files(self, series_id: str) -> list[tuple[Path, int]]:
        """The files of a series in an order of their own, each with its number of slices."""
        with self.database.reading() as connection:
            rows = connection.execute(
                sa.select(pacs_instances.c.name, pacs_instances.c.slices)
                .where(pacs_instances.c.series_id == series_id)
                .order_by(pacs_instances.c.name)
            )
            return [(self.root / series_id / name, slices) for name, slices in rows]

    def identity(self, series_id: str, names: Sequence[str]) -> bytes | None:
        """Whose a de-identified series was; None for one that is kept as it came."""
        kept = [self.root / series_id / f"{name}{_IDENTITY}" for name in names]
        found = [Identity.from_bytes(path.read_bytes()) for path in kept if path.exists()]
        return merged(found).to_bytes() if found else None

    def tidy(self) -> int:
        """Remove series that have been dealt with for a while, and folders that belong to none; gives how many."""
        with self.database.reading() as connection:
            done = list(connection.execute(sa.select(pacs_series.c.id).where(self._is_done(connection))).scalars())
        return sum(self._remove(series_id) for series_id in done) + self._sweep()

    def _is_done(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        """Dealt with for a while; or its job is erased, and nothing of it may stay."""
        before = self.database.now(connection) - self.config.receive.keep_s
        erased = pacs_series.c.job_id.in_(sa.select(jobs.c.id).where(jobs.c.state == State.ERASED))
        return sa.and_(pacs_series.c.state != OPEN, sa.or_(pacs_series.c.due_at < before, erased))

    def _rule_for(self, instance: Instance) -> str | None:
        rule = first_fitting(self.config.rules, instance.facts, thickness_known=instance.thickness_known)
        return rule.name if rule else None

    def _rule_of(self, series_uid: str, tenant: str | None) -> str | None:
        """Of a series that is there already, under its own UID or under the one that replaces it."""
        uids = [series_uid]
        if any(rule.deidentify for rule in self.config.rules):
            uids.append(pseudonyms_in(self.root.parent).uid(series_uid))
        with self.database.reading() as connection:
            query = sa.select(pacs_series.c.rule).where(
                pacs_series.c.id.in_([series_id_of(uid, tenant) for uid in uids])
            )
            names = list(connection.execute(query.order_by(pacs_series.c.last_at.desc())).scalars())
        return next((name for name in names if self.config.rule(name)), None)

    def _keep(self, received: Sequence[Received], rule: str, *, complete: bool, tenant: str | None) -> None:
        with full_disk_refused():
            for one in received:
                _force(one.path)
            for _ in range(_RACES):
                try:
                    return self._write_down(received, rule, complete=complete, tenant=tenant)
                except IntegrityError:  # somebody else began the same series at this moment
                    continue
        raise DatabaseUnavailable("Too many senders of the same series at once. Try again.", code="contention")

    def _write_down(self, received: Sequence[Received], rule: str, *, complete: bool, tenant: str | None) -> None:
        """Rows and files together: while the series' row is held, nobody hands it over or removes it."""
        first = received[0].stored
        series_id = series_id_of(first.series_uid, tenant)
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            query = sa.select(pacs_series.c.state).where(pacs_series.c.id == series_id)
            state = connection.execute(self.database.locked_row(query)).scalar_one_or_none()
            if state is None:
                connection.execute(
                    sa.insert(pacs_series).values(
                        id=series_id, study_uid=first.study_uid, series_uid=first.series_uid, rule=rule, state=OPEN,
                        last_at=at, due_at=at, tenant=tenant,
                    )
                )  # fmt: skip
            names = sa.select(pacs_instances.c.name).where(pacs_instances.c.series_id == series_id)
            known = set(connection.execute(names).scalars())
            new = {_name_of(one.stored): one for one in received if _name_of(one.stored) not in known}
            self._place(series_id, new)
            for name, one in new.items():
                connection.execute(
                    sa.insert(pacs_instances).values(series_id=series_id, name=name, slices=one.stored.slices)
                )
            if new or state in (None, OPEN):
                due_at = at if complete else at + self.config.receive.complete_after_s
                connection.execute(
                    sa.update(pacs_series)
                    .where(pacs_series.c.id == series_id)
                    .values(state=OPEN, last_at=at, due_at=due_at, code=None)
                )

    def _place(self, series_id: str, new: dict[str, Received]) -> None:
        folder = self.root / series_id
        folder.mkdir(mode=0o700, exist_ok=True)
        _force(self.root)
        for name, one in new.items():
            if one.identity is not None:
                write_secretly(folder / f"{name}{_IDENTITY}", one.identity)
            one.path.rename(folder / name)
        _force(folder)

    def _remove(self, series_id: str) -> bool:
        with self.database.transaction() as connection:
            query = sa.select(pacs_series.c.id).where(pacs_series.c.id == series_id, self._is_done(connection))
            if connection.execute(self.database.locked_row(query)).one_or_none() is None:
                return False
            shutil.rmtree(self.root / series_id, ignore_errors=True)
            connection.execute(sa.delete(pacs_instances).where(pacs_instances.c.series_id == series_id))
            connection.execute(sa.delete(pacs_series).where(pacs_series.c.id == series_id))
            return True

    def _sweep(self) -> int:
        with self.database.reading() as connection:
            known = set(connection.execute(sa.select(pacs_series.c.id)).scalars())
        orphans = [
            folder
            for folder in self.root.iterdir()
            if folder.name not in known and time.time() - folder.stat().st_mtime > _ORPHAN_AGE_S
        ]
        for folder in orphans:
            shutil.rmtree(folder, ignore_errors=True)
        return len(orphans)


def series_id_of(series_uid: str, tenant: str | None) -> str:
    """Row and folder of a series of a tenant: a hash, since a UID is the sender's text."""
    told = series_uid if tenant is None else f"{tenant}\n{series_uid}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _name_of(instance: Instance) -> str:
    return hashlib.sha256(instance.sop_uid.encode()).hexdigest()[:32]


def _force(path: Path) -> None:
    """Force to the disk the content of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
