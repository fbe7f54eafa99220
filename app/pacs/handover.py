"""A complete series becomes a job, once; what is to be sent back is written down with it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog

from app.disk_faults import StorageFull
from app.identity import DEFAULT_TENANT
from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.jobs.intake import Intake, Request
from app.jobs.records import DatabaseUnavailable, IdempotencyMismatch, Order, QueueFull
from app.jobs.rows import Row, Who
from app.jobs.tables import pacs_series
from app.pacs.config import Rule
from app.pacs.returns import ask_for_return
from app.pacs.shelf import HANDED, LEFT, OPEN, Shelf

MakeOrder = Callable[[Rule, str | None], Order]
"""What is to be done with a series of a rule, by SeriesInstanceUID; None leaves the choice to the reader.

Raises OptionError for a model that is not loaded.
"""
_CLAIM_S = 60.0
"""A series that was taken up and not heard of again is taken up anew after this."""


@dataclass(frozen=True)
class Handover:
    """Makes jobs of what is complete.

    Parameters
    ----------
    shelf, intake
        From where to where.
    make_order
        What is asked for.
    incoming
        Folder of this process in the store's ``incoming``.
    tenant
        Whose the jobs are, unless the sender of a series had another.
    """

    shelf: Shelf
    intake: Intake
    make_order: MakeOrder
    incoming: Path
    tenant: str = DEFAULT_TENANT

    def hand_over_due(self) -> int:
        """Make the jobs of all series that are complete; gives how many."""
        made = 0
        while (series := self._claim()) is not None:
            try:
                made += self._hand_over(series)
            except (QueueFull, StorageFull, DatabaseUnavailable, IdempotencyMismatch) as trouble:
                structlog.get_logger(__name__).warning("series waits", series=series["id"], code=trouble.code)
                break  # it was claimed for a while, and is then tried again
        return made

    def _claim(self) -> Row | None:
        database = self.shelf.database
        with database.transaction() as connection:
            at = database.now(connection)
            due = (
                sa.select(pacs_series)
                .where(pacs_series.c.state == OPEN, pacs_series.c.due_at <= at)
                .order_by(pacs_series.c.due_at)
                .limit(1)
            )
            if not database.is_sqlite:
                due = due.with_for_update(skip_locked=True)
            series = connection.execute(due).mappings().one_or_none()
            if series is not None:
                connection.execute(
                    sa.update(pacs_series).where(pacs_series.c.id == series["id"]).values(due_at=at + _CLAIM_S)
                )
            return series

    def _hand_over(self, series: Row) -> bool:
        rule = self.shelf.config.rule(series["rule"])
        files = self.shelf.files(series["id"])
        if rule is None:
            return self._close(series, None, None, "rule_gone")
        if sum(slices for _, slices in files) < rule.min_instances:
            return self._close(series, None, None, "too_few_instances")
        try:
            order = self.make_order(rule, series["series_uid"])
        except OptionError as error:
            return self._close(series, None, None, error.code)
        job_id = self._accept(series, [path for path, _ in files], order)
        return self._close(series, rule, job_id, None)

    def _accept(self, series: Row, files: list[Path], order: Order) -> str:
        """The same instances for the same model are the same job, however often and by whatever way they come."""
        told = [series["series_uid"], order.model, order.model_sha256, order.operating_point]
        key = "pacs:" + hashlib.sha256("\n".join([*told, *(path.name for path in files)]).encode()).hexdigest()
        folder, tenant = Path(tempfile.mkdtemp(dir=self.incoming)), series["tenant"] or self.tenant
        try:
            for number, path in enumerate(files):
                os.link(path, folder / f"{number:06d}")
            inputs = [InputFile(folder / f"{number:06d}", f"{number:06d}.dcm") for number in range(len(files))]
            try:
                whose = self.shelf.identity(series["id"], [path.name for path in files])
                return self.intake.accept(
                    folder, inputs, Request(order, Who("pacs", tenant=tenant), key, identity=whose)
                )
            except IdempotencyMismatch:
                known = self.intake.job_of_key(key, tenant)
                if known is None:  # erased at this moment
                    raise
                # The same instances in other bytes, say with a corrected patient. The pixels are the same by DICOM's
                # rules; what they were found to hold stays.
                structlog.get_logger(__name__).warning("series came again in other bytes", series=series["id"])
                return known
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _close(self, series: Row, rule: Rule | None, job_id: str | None, code: str | None) -> bool:
        """Note what became of it; where more came in the meantime it stays open, and is analysed again."""
        database = self.shelf.database
        with database.transaction() as connection:
            at = database.now(connection)
            connection.execute(
                sa.update(pacs_series)
                .where(
                    pacs_series.c.id == series["id"],
                    pacs_series.c.state == OPEN,
                    pacs_series.c.last_at == series["last_at"],
                )
                .values(state=HANDED if job_id else LEFT, due_at=at, job_id=job_id, code=code)
            )
            if rule is not None and job_id is not None:
                for each in rule.send:
                    ask_for_return(connection, job_id, each.target, each.kinds, at)
        log = structlog.get_logger(__name__)
        if job_id is None:
            log.info("series left", series=series["id"], code=code)
        else:
            log.info("series handed over", series=series["id"], job_id=job_id, rule=series["rule"])
        return job_id is not None
