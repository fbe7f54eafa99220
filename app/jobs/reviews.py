"""Reviews of an answer: each revision a file beside the result, and a row that says which is the latest."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.imaging.errors import LungNoduleError
from app.jobs.database import Database
from app.jobs.ledger import present_job
from app.jobs.records import JobConflict, StoredFile
from app.jobs.rows import Who, add_audit
from app.jobs.store import Store
from app.jobs.tables import job_reviews

MOST_REVISIONS = 500


class NoReview(LungNoduleError):
    """Nobody has reviewed the answer, or not in this revision."""

    default_code = "no_review"


class ReviewChanged(LungNoduleError):
    """The review is not the one that the caller saw."""

    default_code = "review_changed"


@dataclass(frozen=True)
class Revision:
    """One state of a review."""

    number: int
    file: StoredFile
    created_at: float

    @property
    def tag(self) -> str:
        """Of the content; never the same for two revisions, since each holds its number."""
        return self.file.sha256


@dataclass(frozen=True)
class Reviews:
    """Of an installation."""

    database: Database
    store: Store

    def revision(self, job_id: str, number: int | None = None) -> Revision:
        """A revision; the latest without a number.

        Raises
        ------
        NoReview
            There is none.
        """
        with self.database.reading() as connection:
            found = self._rows(connection, job_id)
        chosen = [one for one in found if number is None or one.number == number]
        if not chosen:
            raise NoReview(
                "There is no review of this answer." if number is None else "The review has no such revision.",
                values={"revisions": len(found)},
            )
        return chosen[-1]

    def body(self, job_id: str, revision: Revision) -> bytes:
        """What was stored; verified by its sha256."""
        return self.store.result(job_id, revision.file)

    def keep(
        self,
        job_id: str,
        write: Callable[[int, float], bytes],
        seen: Callable[[str | None], bool],
        who: Who,
        told: Mapping[str, Any],
    ) -> Revision:
        """Store the next revision, unless the caller has not seen the latest.

        Parameters
        ----------
        job_id
            Of a job that is there.
        write
            Gives the content from the revision's number and the time.
        seen
            Whether the caller knows the latest revision by its tag; called with None where there is none.
        who, told
            For the audit trail: counts only.

        Raises
        ------
        UnknownJob, JobErased
            There is no such job, or no longer.
        ReviewChanged
            Another revision came first.
        JobConflict
            ``too_many_revisions``.
        """
        with self.database.reading() as connection:
            before = self._rows(connection, job_id)
            at = self.database.now(connection)
        _refuse_unseen(before, seen)
        if len(before) >= MOST_REVISIONS:
            raise JobConflict(
                f"The review has {MOST_REVISIONS} revisions, as many as are kept.",
                code="too_many_revisions",
                values={"limit": MOST_REVISIONS},
            )
        number = len(before) + 1
        body = write(number, at)
        # A name of its own: two may write the same revision at once, and one of them will not count.
        file = self.store.keep_file(job_id, f"review-{number}-{uuid.uuid4().hex[:8]}.json", body)
        revision = Revision(number, file, at)
        try:
            self._enter(job_id, revision, seen, who, told)
        except BaseException:
            self.store.erase_result(job_id, file)
            raise
        return revision

    def _enter(
        self,
        job_id: str,
        revision: Revision,
        seen: Callable[[str | None], bool],
        who: Who,
        told: Mapping[str, Any],
    ) -> None:
        with self.database.transaction() as connection:
            present_job(self.database, connection, job_id)  # holds its row: one revision after the other
            latest = self._rows(connection, job_id)
            _refuse_unseen(latest, seen)
            if len(latest) >= revision.number:
                raise ReviewChanged("Another revision came first. GET the review and decide again.")
            connection.execute(
                sa.insert(job_reviews).values(
                    job_id=job_id, revision=revision.number, name=revision.file.name, sha256=revision.file.sha256,
                    size=revision.file.size, created_at=revision.created_at,
                )
            )  # fmt: skip
            add_audit(
                connection, self.database.now(connection), who, "job.review", job_id, revision=revision.number, **told
            )

    def _rows(self, connection: sa.Connection, job_id: str) -> list[Revision]:
        query = sa.select(job_reviews).where(job_reviews.c.job_id == job_id).order_by(job_reviews.c.revision)
        return [
            Revision(row["revision"], StoredFile(row["name"], row["sha256"], row["size"]), row["created_at"])
            for row in connection.execute(query).mappings()
        ]


def _refuse_unseen(revisions: list[Revision], seen: Callable[[str | None], bool]) -> None:
    latest = revisions[-1].tag if revisions else None
    if not seen(latest):
        raise ReviewChanged(
            "There is a review that was not seen. GET it, and send its ETag in If-Match."
            if latest
            else "There is no review yet; send none of the headers If-Match and If-None-Match, or If-None-Match: *.",
            code="review_changed",
            values={"revisions": len(revisions)},
        )
