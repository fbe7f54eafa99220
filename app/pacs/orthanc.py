"""Follows Orthanc's log of changes: every series that is stable is fetched, however long either side was away.

How far the log was read, and which of its series are still to be fetched, is written down in one transaction. So an
event is neither lost when a process is killed nor held up by a series that cannot be had.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from app.imaging.errors import LungNoduleError
from app.jobs.database import Database
from app.jobs.rows import Row
from app.jobs.tables import pacs_cursors, pacs_fetches
from app.pacs.claims import CLAIM_S, held
from app.pacs.config import Poller
from app.pacs.errors import PacsTroubleError
from app.pacs.instances import read_instance
from app.pacs.received import Received
from app.pacs.shelf import Shelf
from app.pacs.web_session import AnswerTooLarge, WebSession, web_trouble_told

_PAGE = 100
_MAX_ANSWER_BYTES = 16 << 20
MAX_TRIES = 60
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 3600.0
_REMOTE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


@dataclass(frozen=True)
class OrthancPoller:
    """One Orthanc.

    Parameters
    ----------
    name, settings
        From the configuration.
    database
        Of the jobs.
    shelf
        Where what was fetched goes.
    scratch
        Folder of this process, on the shelf's file system.
    """

    name: str
    settings: Poller
    database: Database
    shelf: Shelf
    scratch: Path

    def round(self) -> int:
        """Read what is new in the log, fetch what is due; gives how many series were fetched.

        Raises
        ------
        PacsTroubleError
            Orthanc does not answer; nothing is lost.
        """
        self.read_log()
        fetched = 0
        while (row := self._claim()) is not None:
            with held(partial(self._renew, row)):
                answer = self._fetch(row)
            self._note(row, answer)
            if answer == "pacs_unreachable":
                break
            fetched += answer == "fetched"
        return fetched

    def read_log(self) -> None:
        """Write down every series that has become stable since the last time.

        Raises
        ------
        PacsTroubleError
            Orthanc does not answer.
        """
        seq = self._seq()
        if seq is None:
            seq = self._begin()
        while True:
            page = self._json(f"/changes?since={seq}&limit={_PAGE}")
            changes, last, done = _page(page)
            if last < seq:
                # Numbers only grow: this is another database, of which nothing has been read.
                structlog.get_logger(__name__).warning("log of changes began anew", source=self.name)
                self._advance(seq, 0, [])
                seq = 0
                continue
            reached = max((number for number, _ in changes), default=last)
            stable = [(number, remote) for number, remote in changes if remote is not None]
            self._advance(seq, reached, stable)
            if done or reached == seq:
                return
            seq = reached

    def _begin(self) -> int:
        seq = 0
        if self.settings.begin == "now":
            _, seq, _ = _page(self._json("/changes?last"))
        with self.database.transaction() as connection:
            known = sa.select(pacs_cursors.c.seq).where(pacs_cursors.c.source == self.name)
            if (found := connection.execute(known).scalar_one_or_none()) is not None:
                return int(found)
            connection.execute(sa.insert(pacs_cursors).values(source=self.name, seq=seq))
        return seq

    def _seq(self) -> int | None:
        with self.database.reading() as connection:
            query = sa.select(pacs_cursors.c.seq).where(pacs_cursors.c.source == self.name)
            return connection.execute(query).scalar_one_or_none()

    def _advance(self, before: int, reached: int, stable: list[tuple[int, str]]) -> None:
        """Cursor and list together. Where another process was faster, its list holds the same."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            moved = connection.execute(
                sa.update(pacs_cursors)
                .where(pacs_cursors.c.source == self.name, pacs_cursors.c.seq == before)
                .values(seq=reached)
            )
            if moved.rowcount != 1:
                return
            for number, remote in stable:
                fresh = {"seq": number, "next_at": at, "tries": 0, "last_answer": None}
                changed = connection.execute(
                    sa.update(pacs_fetches)
                    .where(pacs_fetches.c.source == self.name, pacs_fetches.c.remote_id == remote)
                    .values(fresh)
                )
                if changed.rowcount == 0:
                    connection.execute(sa.insert(pacs_fetches).values(source=self.name, remote_id=remote, **fresh))

    def _claim(self) -> Row | None:
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            due = (
                sa.select(pacs_fetches)
                .where(pacs_fetches.c.source == self.name, pacs_fetches.c.next_at <= at)
                .order_by(pacs_fetches.c.next_at, pacs_fetches.c.seq)
                .limit(1)
            )
            if not self.database.is_sqlite:
                due = due.with_for_update(skip_locked=True)
            row = connection.execute(due).mappings().one_or_none()
            if row is not None:
                connection.execute(_the_row(row).values(next_at=at + CLAIM_S, tries=row["tries"] + 1))
            return row

    def _renew(self, row: Row) -> None:
        """It is still being fetched; one that was announced anew meanwhile is due as it is."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            mine = pacs_fetches.c.seq == row["seq"], pacs_fetches.c.tries == row["tries"] + 1
            connection.execute(_the_row(row).where(*mine).values(next_at=at + CLAIM_S))

    def _note(self, row: Row, answer: str) -> None:
        tries = row["tries"] + 1
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            next_at = None
            if answer not in _FINAL and tries < MAX_TRIES:
                next_at = at + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries - 1, 20))
            # Only where it was not announced anew in the meantime.
            connection.execute(
                _the_row(row).where(pacs_fetches.c.seq == row["seq"]).values(next_at=next_at, last_answer=answer)
            )
        structlog.get_logger(__name__).info("series of a PACS", source=self.name, answer=answer, tries=tries)

    def _fetch(self, row: Row) -> str:
        """Fetch one series onto the shelf; one word for how it went."""
        try:
            series = self._json(f"/series/{row['remote_id']}")
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                return self._fetch_instances(series, Path(folder))
        except LungNoduleError as error:
            return error.code

    def _fetch_instances(self, series: Mapping[str, Any], folder: Path) -> str:
        ids = [one for one in series.get("Instances") or [] if _is_remote_id(one)]
        if not ids or _modality(series) not in {each for rule in self.shelf.config.rules for each in rule.modality}:
            return "not_wanted"
        if len(ids) > self.settings.max_instances:
            return "too_many_instances"
        received: list[Received] = []
        for number, remote in enumerate(ids):
            path = folder / f"{number:06d}"
            self._download(remote, path)
            instance = read_instance(path)
            if number == 0 and not self.shelf.wants(instance):
                return "not_wanted"
            received.append(self.shelf.taken(path, instance))
        self.shelf.put(received, complete=True)
        return "fetched"

    def _download(self, remote: str, path: Path) -> None:
        most = self.shelf.config.receive.max_instance_bytes
        with web_trouble_told(), self._session() as session:
            status = session.download(f"{self._root}/instances/{remote}/file", path, most)
        if status != 200:
            raise _refused(status)

    def _json(self, path: str) -> dict[str, Any]:
        return _asked(self.settings, path)

    def _session(self) -> WebSession:
        return _session(self.settings)

    @property
    def _root(self) -> str:
        return self.settings.url.rstrip("/")


def check_orthanc(settings: Poller) -> str:
    """Ask for the end of the log of changes.

    Raises
    ------
    PacsTroubleError
        No answer, or none that makes sense.
    """
    _, last, _ = _page(_asked(settings, "/changes?last"))
    return f"the log of changes answers, its last number is {last}"


def _session(settings: Poller) -> WebSession:
    return WebSession(settings.login, settings.timeout_s, _MAX_ANSWER_BYTES, allow_private=settings.allow_private)


def _asked(settings: Poller, path: str) -> dict[str, Any]:
    with web_trouble_told(), _session(settings) as session:
        response = session.get(f"{settings.url.rstrip('/')}{path}")
    if response.status_code != 200:
        raise _refused(response.status_code)
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PacsTroubleError("Orthanc answers something else than JSON.", code="pacs_answer_invalid")
    return found


_FINAL = frozenset(
    {"fetched", "not_wanted", "too_many_instances", "pacs_http_404", AnswerTooLarge.default_code}
    | {"not_dicom", "damaged_header", "transfer_syntax", "uids_missing", "sop_class_not_supported"}
)
"""Answers after which nothing is tried again: it is done, or would be the same."""


def _page(page: Mapping[str, Any]) -> tuple[list[tuple[int, str | None]], int, bool]:
    """Number of each change with the series that has become stable by it, the last number, and whether that is all."""
    changes: list[tuple[int, str | None]] = []
    for change in page.get("Changes") or []:
        number, kind, remote = change.get("Seq"), change.get("ChangeType"), change.get("ID")
        if not isinstance(number, int):
            raise PacsTroubleError("Orthanc's log of changes has no numbers.", code="pacs_answer_invalid")
        changes.append((number, remote if kind == "StableSeries" and _is_remote_id(remote) else None))
    last = page.get("Last")
    if not isinstance(last, int):
        raise PacsTroubleError("Orthanc's log of changes has no end.", code="pacs_answer_invalid")
    return changes, last, page.get("Done") is not False


def _is_remote_id(found: object) -> bool:
    return isinstance(found, str) and _REMOTE_ID.fullmatch(found) is not None


def _modality(series: Mapping[str, Any]) -> object:
    tags = series.get("MainDicomTags")
    return tags.get("Modality") if isinstance(tags, dict) else None


def _refused(status: int) -> PacsTroubleError:
    return PacsTroubleError(f"Orthanc answers {status}.", code=f"pacs_http_{status}", values={"status": status})


def _the_row(row: Row) -> sa.Update:
    return sa.update(pacs_fetches).where(
        pacs_fetches.c.source == row["source"], pacs_fetches.c.remote_id == row["remote_id"]
    )
