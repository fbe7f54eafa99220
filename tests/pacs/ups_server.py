"""A small UPS-RS origin server on a real port that keeps the state machine of PS3.4 CC.1.1 as PS3.18 11 answers it.

SCHEDULED -> IN PROGRESS -> COMPLETED or CANCELED; only who has the transaction UID changes what is in progress; 409 and
a Warning for anything else; a final state only with what PS3.4 CC.2.5 asks of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.served import served

JSON = "application/dicom+json"
STATE, TRANSACTION, PROGRESS, PERFORMED = "00741000", "00081195", "00741002", "00741216"
FINAL = ("COMPLETED", "CANCELED")


@dataclass
class UpsServer:
    """What it holds, and what it was asked."""

    url: str = ""
    workitems: dict[str, dict[str, Any]] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    down: bool = False
    deaf_after: set[str] = field(default_factory=set)
    """States whose next change is made but whose answer is lost."""

    def add(self, series: list[Dataset], *, station: str = "AI1", ready: str = "READY") -> str:
        """Schedule the analysis of series; gives the workitem's UID."""
        uid = str(generate_uid())
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID = "1.2.840.10008.5.1.4.34.6.1", uid
        item.ProcedureStepState, item.InputReadinessState = "SCHEDULED", ready
        item.ScheduledStationNameCodeSequence = [coded(station)]
        item.InputInformationSequence = [input_of(one) for one in series]
        item.PatientName, item.PatientID = "KANARIE^ANNA", "KANARIE-1"
        self.workitems[uid] = item.to_json_dict()
        return uid

    def state(self, uid: str) -> str:
        return str(self.workitems[uid][STATE]["Value"][0])

    def item(self, uid: str) -> Dataset:
        return Dataset.from_json(self.workitems[uid])

    def take_by_another(self, uid: str) -> None:
        self.workitems[uid][STATE]["Value"] = ["IN PROGRESS"]
        self.transactions[uid] = "2.25.1"

    def changes(self) -> list[str]:
        """Successful changes of state, in order."""
        return [what for what, _, status in self.asked if status == 200 and what in ("IN PROGRESS", *FINAL)]


def coded(value: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "99TEST", value
    return code


def input_of(series: Dataset) -> Dataset:
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = series.StudyInstanceUID, series.SeriesInstanceUID
    elsewhere = Dataset()
    elsewhere.RetrieveURL = "http://127.0.0.1:9/never/followed"
    item.WADORSRetrievalSequence = [elsewhere]
    return item


def app_of(server: UpsServer) -> FastAPI:
    app = FastAPI()

    def said(what: str, uid: str, status: int, warning: str = "") -> Response:
        server.asked.append((what, uid, status))
        return Response(status_code=status, headers={"Warning": f"299 {server.url}: {warning}"} if warning else {})

    @app.middleware("http")
    async def may_be_down(request: Request, call_next: Any) -> Response:
        return Response(status_code=503) if server.down else await call_next(request)

    @app.get("/workitems")
    def search(request: Request) -> Response:
        wanted = {
            key: value for key, value in request.query_params.items() if key not in ("limit", "00404025.00080100")
        }
        station = request.query_params.get("00404025.00080100")
        found = [
            item
            for item in server.workitems.values()
            if all(item.get(tag, {}).get("Value", [None])[0] == value for tag, value in wanted.items())
            and station in (None, item["00404025"]["Value"][0]["00080100"]["Value"][0])
        ]
        return as_json(found) if found else Response(status_code=204)

    @app.get("/workitems/{uid}")
    def retrieve(uid: str) -> Response:
        return as_json([server.workitems[uid]]) if uid in server.workitems else Response(status_code=404)

    @app.put("/workitems/{uid}/state")
    async def change_state(uid: str, request: Request) -> Response:
        (told,) = await request.json()
        wanted, transaction = told[STATE]["Value"][0], told[TRANSACTION]["Value"][0]
        if uid not in server.workitems:
            return said(wanted, uid, 404)
        is_now = server.state(uid)
        if is_now in FINAL:
            if wanted == is_now:
                return said(f"{wanted} again", uid, 200, f"The UPS is already in the requested state of {wanted}.")
            return said(wanted, uid, 409, "The submitted request is inconsistent with the current state.")
        if wanted == "IN PROGRESS":
            if is_now != "SCHEDULED":
                return said(wanted, uid, 409, "The UPS is already IN PROGRESS.")
            server.transactions[uid] = transaction
        elif is_now != "IN PROGRESS":
            return said(wanted, uid, 409, "The UPS is not yet in the IN PROGRESS state.")
        elif server.transactions[uid] != transaction:
            return said(wanted, uid, 409, "The Transaction UID is missing or incorrect.")
        elif not meets_final_state(server.item(uid), wanted):
            return said(wanted, uid, 409, "The submitted request does not meet the requirements of the final state.")
        server.workitems[uid][STATE]["Value"] = [wanted]
        answer = said(wanted, uid, 200)
        if wanted in server.deaf_after:
            server.deaf_after.discard(wanted)
            return Response(status_code=500)
        return answer

    @app.post("/workitems/{uid}/subscribers/{aet}")
    def subscribe(uid: str, aet: str) -> Response:
        return said(f"subscribe {aet}", uid, 201 if uid in server.workitems else 404)

    @app.post("/workitems/{uid}")
    async def update(uid: str, request: Request) -> Response:
        (told,) = await request.json()
        if uid not in server.workitems:
            return said("update", uid, 404)
        if server.state(uid) != "IN PROGRESS" or server.transactions[uid] != request.query_params.get(
            "transaction-uid"
        ):
            return said("update", uid, 409, "The submitted request is inconsistent with the current state.")
        server.workitems[uid] |= told
        return said("update", uid, 200)

    return app


def meets_final_state(item: Dataset, wanted: str) -> bool:
    if wanted == "CANCELED":
        (told,) = item.get("ProcedureStepProgressInformationSequence") or [Dataset()]
        return bool(told.get("ProcedureStepCancellationDateTime")) and bool(
            told.get("ProcedureStepDiscontinuationReasonCodeSequence")
        )
    (made,) = item.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()]
    needed = (
        "PerformedStationNameCodeSequence", "PerformedWorkitemCodeSequence", "PerformedProcedureStepStartDateTime",
        "PerformedProcedureStepEndDateTime", "OutputInformationSequence",
    )  # fmt: skip
    return all(made.get(keyword) for keyword in needed)


def as_json(found: list[dict[str, Any]]) -> Response:
    return Response(json.dumps(found), media_type=JSON)


@contextmanager
def running_ups() -> Iterator[UpsServer]:
    """On a free port of loopback."""
    made = UpsServer()
    with served(app_of(made), lifespan="off") as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made
