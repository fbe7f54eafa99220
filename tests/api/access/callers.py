"""A service that asks who calls, on stand-ins, with keys for several callers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from app.identity import Role
from app.jobs.api_keys import ApiKeys
from app.jobs.rows import Who
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder, make_model, shelved
from tests.jobs.installations import HandQueue

OPERATOR = Who("command-line")
SCAN = {"files": ("scan.dcm", b"one scan")}


@dataclass
class Door:
    """The service and ways to call it."""

    client: TestClient
    keys: ApiKeys
    queue: HandQueue
    made: dict[str, str] = field(default_factory=dict)

    def key(self, name: str, roles: Sequence[str] = ("submit", "read"), tenant: str = "default") -> dict[str, str]:
        """Headers of a caller, whose key is made at the first call."""
        if name not in self.made:
            self.made[name] = self.keys.create(name, map(Role, roles), tenant, None, OPERATOR)
        return {"Authorization": f"Bearer {self.made[name]}"}

    def submit(self, headers: Mapping[str, str], content: bytes = b"one scan", **fields: str) -> dict[str, Any]:
        """POST a scan; gives the job as it is shown."""
        files = {"files": ("scan.dcm", content)}
        answer = self.client.post("/v1/jobs", files=files, data=fields, headers=dict(headers))
        assert answer.status_code == 202, answer.text
        shown: dict[str, Any] = answer.json()
        return shown


@contextmanager
def door(folder: Path, *, pacs: bool = False, **settings: Any) -> Iterator[Door]:
    """``door(tmp_path, requests_per_min=3)``: a service on 0.0.0.0, as far as its settings go."""
    uploads = folder / "uploads"
    uploads.mkdir(exist_ok=True)
    if pacs:
        target = "[targets.archive]\nkind = 'dicomweb'\nurl = 'http://127.0.0.1:9/dicom-web'\n"
        (folder / "pacs.toml").write_text(f"{target}[[rules]]\nname = 'any'\n")
        settings["pacs_config"] = folder / "pacs.toml"
    chosen = Settings(
        **{"host": "0.0.0.0", "data_dir": folder / "data", "temp_dir": uploads, "min_free_disk_bytes": 0, **settings}
    )
    queue = HandQueue()
    app = create_app(chosen, load=lambda _: shelved(make_model()), run=Recorder(), make_queue=lambda _database: queue)
    with TestClient(app, root_path=chosen.root_path) as client:
        yield Door(client, ApiKeys(app.state.access.database), queue)
