"""Performs the workitems of a UPS worklist: take one, analyse its input, store the results, say so.

Every step is written down before and after it is made, and each may be made twice: a transaction UID is kept before
the workitem is claimed with it, a job has the workitem for its Idempotency-Key, results have the same UIDs. So a
process may be killed anywhere; whoever comes next goes on, and no workitem stays in progress for ever.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import sqlalchemy as sa
import structlog
from pydicom.dataset import Dataset
from sqlalchemy.exc import IntegrityError

from app.imaging.errors import LungNoduleError, OptionError, ScanError
from app.jobs.installation import Jobs
from app.jobs.records import LIVE, Job, JobConflict, JobErased, State, UnknownJob
from app.jobs.rows import Row
from app.jobs.tables import pacs_workitems
from app.logs import described
from app.pacs.claims import CLAIM_S, held
from app.pacs.returns import MakeObjects, Returns, ask_for_return
from app.pacs.ups_client import CANCELED, COMPLETED, IN_PROGRESS, UpsClient
from app.pacs.workitem_input import WORKLIST, InputDesk
from app.pacs.workitem_texts import discontinued, performed, progress

_LOOK_EVERY_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0


class Stage(StrEnum):
    """How far a workitem is."""

    CLAIMING = "claiming"
    CLAIMED = "claimed"
    WORKING = "working"
    FINISHING = "finishing"
    GIVING_UP = "giving_up"
    DONE = "done"
    GIVEN_UP = "given_up"
    LOST = "lost"
    """Somebody else's, or gone from the server."""


ENDED = (Stage.DONE, Stage.GIVEN_UP, Stage.LOST)


@dataclass(frozen=True)
class Step:
    """What comes next."""

    stage: Stage
    after_s: float = 0.0
    code: str | None = None
    job_id: str | None = None


@dataclass(frozen=True)
class Performer:
    """Of one worklist.

    Parameters
    ----------
    name
        In the configuration.
    client, desk
        The worklist's server, and where jobs are made.
    jobs, returns, make_objects
        Of the installation.
    output_url
        DICOMweb root that results are stored at.
    """

    name: str
    client: UpsClient
    desk: InputDesk
    jobs: Jobs
    returns: Returns
    make_objects: MakeObjects
    output_url: str

    def search(self) -> None:
        """Write down, with the transaction UID that each will be claimed with, what is to be claimed.

        Raises
        ------
        PacsTroubleError
            The search is not answered.
        """
        for uid in self.client.scheduled():
            with self.jobs.database.transaction() as connection:
                at = self.jobs.database.now(connection)
                try:
                    with connection.begin_nested():
                        connection.execute(
                            sa.insert(pacs_workitems).values(
                                source=self.name, workitem_uid=uid, transaction_uid=f"2.25.{uuid.uuid4().int}",
                                state=Stage.CLAIMING, began_at=at, next_at=at, tries=0,
                            )
                        )  # fmt: skip
                except IntegrityError:
                    continue

    def go_on(self) -> int:
        """Make every step that is due; gives how many."""
        made = 0
        while (row := self._take()) is not None:
            with held(partial(self._renew, row)):
                step = self._step(row)
            self._note(row, step)
            made += 1
        return made

    def cancel(self, workitem_uid: str) -> None:
        """Give up a workitem, because somebody asked for it."""
        with self.jobs.database.transaction() as connection:
            at = self.jobs.database.now(connection)
            connection.execute(
                self._where(workitem_uid)
                .where(pacs_workitems.c.state.in_([Stage.CLAIMED, Stage.WORKING]))
                .values(state=Stage.GIVING_UP, last_answer="cancel_requested", next_at=at, tries=0)
            )

    def _take(self) -> Row | None:
        database = self.jobs.database
        with database.transaction() as connection:
            at = database.now(connection)
            due = (
                sa.select(pacs_workitems)
                .where(pacs_workitems.c.source == self.name, pacs_workitems.c.next_at <= at)
                .order_by(pacs_workitems.c.next_at)
                .limit(1)
            )
            if not database.is_sqlite:
                due = due.with_for_update(skip_locked=True)
            row = connection.execute(due).mappings().one_or_none()
            if row is not None:
                connection.execute(
                    self._where(row["workitem_uid"]).values(next_at=at + CLAIM_S, tries=row["tries"] + 1)
                )
            return row

    def _renew(self, row: Row) -> None:
        with self.jobs.database.transaction() as connection:
            at = self.jobs.database.now(connection)
            connection.execute(self._as_taken(row).values(next_at=at + CLAIM_S))

    def _note(self, row: Row, step: Step) -> None:
        """Only where nobody else has changed it meanwhile: a request to cancel, say."""
        moved = step.stage != row["state"]
        with self.jobs.database.transaction() as connection:
            at = self.jobs.database.now(connection)
            values = {
                "state": step.stage, "next_at": None if step.stage in ENDED else at + step.after_s,
                "tries": 0 if moved or step.code is None else row["tries"] + 1,
                "last_answer": self._reason(row, step), "job_id": step.job_id or row["job_id"],
            }  # fmt: skip
            noted = connection.execute(self._as_taken(row).values(values)).rowcount == 1
            if noted and step.job_id is not None:
                settings = self.desk.settings
                ask_for_return(connection, step.job_id, settings.output, settings.kinds, at)
        if moved:
            structlog.get_logger(__name__).info("workitem", worklist=self.name, stage=step.stage, code=step.code)

    def _reason(self, row: Row, step: Step) -> str | None:
        """What was said last; why it is given up stays."""
        return row["last_answer"] if row["state"] == Stage.GIVING_UP else step.code or row["last_answer"]

    def _step(self, row: Row) -> Step:
        steps: dict[str, Callable[[Row], Step]] = {
            Stage.CLAIMING: self._claim, Stage.CLAIMED: self._take_in, Stage.WORKING: self._look,
            Stage.FINISHING: self._finish, Stage.GIVING_UP: self._give_up,
        }  # fmt: skip
        try:
            return steps[row["state"]](row)
        except LungNoduleError as error:
            code = error.code
        except Exception as error:  # noqa: BLE001 - what a server answers may make a library raise anything
            structlog.get_logger(__name__).error("step failed", failure=described(error))
            code = "internal_error"
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(row["tries"], 20))
        return Step(Stage(row["state"]), pause_s, code)

    def _claim(self, row: Row) -> Step:
        uid, transaction = row["workitem_uid"], row["transaction_uid"]
        answer = self.client.change_state(uid, IN_PROGRESS, transaction)
        if answer.is_conflict:
            # In progress already. If it is with our transaction, this process' forerunner was killed between the
            # answer and the note of it; only then is a change allowed.
            answer = self.client.update(uid, progress(0, "taken up again"), transaction)
        if not answer.is_done:
            return Step(Stage.LOST)
        if self.client.settings.events_url is not None:
            self.client.subscribe(uid)
        return Step(Stage.CLAIMED)

    def _take_in(self, row: Row) -> Step:
        key = self._key(row)
        job_id = self.desk.known_job(key)
        if job_id is None:
            workitem = self.client.workitem(row["workitem_uid"])
            if workitem is None or workitem.get("ProcedureStepState") != IN_PROGRESS:
                return Step(Stage.LOST)
            try:
                job_id = self.desk.take_in(workitem, key)
            except (ScanError, OptionError) as refusal:
                return Step(Stage.GIVING_UP, code=refusal.code)
            except LungNoduleError as error:
                if error.code != "pacs_http_404":
                    raise
                return Step(Stage.GIVING_UP, code=error.code)
        return Step(Stage.WORKING, job_id=job_id)

    def _look(self, row: Row) -> Step:
        try:
            job = self.jobs.lookup.job(row["job_id"])
        except (UnknownJob, JobErased):
            return Step(Stage.GIVING_UP, code="job_erased")
        if job.state is State.SUCCEEDED:
            return self._when_stored(job)
        if job.state not in LIVE:
            told = (job.problem or {}).get("code") or f"job_{job.state}"
            return Step(Stage.GIVING_UP, code=str(told)[:64])
        answer = self.client.update(row["workitem_uid"], progress(90 * job.fraction, job.stage), row["transaction_uid"])
        if not answer.is_done:
            self._cancel_job(row)
            return Step(Stage.LOST, code="not_ours")
        return Step(Stage.WORKING, min(_LOOK_EVERY_S, self.desk.settings.every_s))

    def _when_stored(self, job: Job) -> Step:
        output = self.desk.settings.output
        states = [each.state for each in self.returns.of_job(job.id) if each.target == output]
        if states == ["sent"]:
            return Step(Stage.FINISHING)
        if states != ["waiting"]:
            return Step(Stage.GIVING_UP, code="results_not_stored")
        return Step(Stage.WORKING, min(_LOOK_EVERY_S, self.desk.settings.every_s))

    def _finish(self, row: Row) -> Step:
        try:
            objects: Sequence[Dataset] = self.make_objects(row["job_id"], self.desk.settings.kinds)
        except (UnknownJob, JobErased):
            return Step(Stage.GIVING_UP, code="job_erased")
        told = performed(objects, self.output_url, row["began_at"], self._now())
        uid, transaction = row["workitem_uid"], row["transaction_uid"]
        if self.client.update(uid, told, transaction).is_done:
            self.client.change_state(uid, COMPLETED, transaction)
        return self._as_the_server_says(row, Stage.FINISHING)

    def _give_up(self, row: Row) -> Step:
        self._cancel_job(row)
        uid, transaction = row["workitem_uid"], row["transaction_uid"]
        reason = row["last_answer"] or "unknown"
        if self.client.update(uid, discontinued(reason, self._now()), transaction).is_done:
            self.client.change_state(uid, CANCELED, transaction)
        return replace(self._as_the_server_says(row, Stage.GIVING_UP), code=None)

    def _as_the_server_says(self, row: Row, stage: Stage) -> Step:
        """The workitem itself tells whether it has ended: also where the answer to that was lost."""
        workitem = self.client.workitem(row["workitem_uid"])
        state = None if workitem is None else workitem.get("ProcedureStepState")
        if state == IN_PROGRESS:
            return Step(stage, _FIRST_PAUSE_S, "not_ended")
        return Step({COMPLETED: Stage.DONE, CANCELED: Stage.GIVEN_UP}.get(str(state), Stage.LOST))

    def _cancel_job(self, row: Row) -> None:
        # A request to cancel may have come between making the job and writing down its id.
        job_id = row["job_id"] or self.desk.known_job(self._key(row))
        if job_id is not None:
            try:
                self.jobs.ledger.cancel(job_id, WORKLIST)
            except (JobConflict, UnknownJob, JobErased):
                return  # it has ended

    def _key(self, row: Row) -> str:
        return f"ups:{self.name}:{row['workitem_uid']}"

    def _now(self) -> float:
        with self.jobs.database.reading() as connection:
            return self.jobs.database.now(connection)

    def _where(self, workitem_uid: str) -> sa.Update:
        table = pacs_workitems
        return sa.update(table).where(table.c.source == self.name, table.c.workitem_uid == workitem_uid)

    def _as_taken(self, row: Row) -> sa.Update:
        table = pacs_workitems
        return self._where(row["workitem_uid"]).where(table.c.state == row["state"], table.c.tries == row["tries"] + 1)
