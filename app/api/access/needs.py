"""What each route needs of a caller: one table, and what holds for a route that is not in it.

`tests/api/access/test_needs.py` walks the routes and fails for one without a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from app.identity import Role
from app.settings import Settings


class Need(Enum):
    """What a route asks for."""

    PROBE = "probe"
    """Nothing, and it is not counted: asked every few seconds."""
    OPEN = "open"
    """Nothing."""
    PAGE = "page"
    """Nothing, unless the settings close pages."""
    FIGURES = "figures"
    """Role operate, unless the settings open them."""
    KNOWN = "known"
    """Any caller who says who it is: what is not there is told to nobody else."""
    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"


_JOB = "/v1/jobs/{job_id}"
_MODEL = "/v1/models/{name}/{version}"
_NETWORK = "/v2/models/{name}"
_NETWORK_VERSION = "/v2/models/{name}/versions/{version}"

NEEDS: Mapping[tuple[str, str], Need] = {
    ("GET", "/healthz"): Need.PROBE,
    ("GET", "/readyz"): Need.PROBE,
    ("GET", "/metrics"): Need.FIGURES,
    ("GET", "/"): Need.PAGE,
    ("GET", "/docs"): Need.PAGE,
    ("GET", "/redoc"): Need.PAGE,
    ("GET", "/problems"): Need.PAGE,
    ("GET", "/openapi.json"): Need.PAGE,
    ("GET", "/static/{path:path}"): Need.PAGE,
    ("GET", "/workspace"): Need.PAGE,
    ("GET", "/workspace/"): Need.PAGE,
    ("GET", "/workspace/static/{path:path}"): Need.PAGE,
    ("GET", "/v1/session"): Need.OPEN,
    ("POST", "/v1/session"): Need.OPEN,
    ("DELETE", "/v1/session"): Need.OPEN,
    ("POST", "/v1/predict"): Need.SUBMIT,
    ("POST", "/v1/risk"): Need.SUBMIT,
    ("POST", "/v1/jobs"): Need.SUBMIT,
    ("GET", "/v1/jobs"): Need.READ,
    ("GET", _JOB): Need.READ,
    ("DELETE", _JOB): Need.SUBMIT,
    ("POST", f"{_JOB}/retry"): Need.SUBMIT,
    ("GET", f"{_JOB}/result"): Need.READ,
    ("DELETE", f"{_JOB}/data"): Need.SUBMIT,
    ("GET", f"{_JOB}/results/{{form}}"): Need.READ,
    ("GET", f"{_JOB}/events"): Need.READ,
    ("GET", f"{_JOB}/nodules/{{nodule_id}}/explanation"): Need.READ,
    ("GET", f"{_JOB}/nodules/{{nodule_id}}/explanation.png"): Need.READ,
    ("GET", f"{_JOB}/nodules/{{nodule_id}}/thumbnail.png"): Need.READ,
    ("GET", f"{_JOB}/volume"): Need.READ,
    ("GET", f"{_JOB}/volume/hu"): Need.READ,
    ("GET", f"{_JOB}/volume/slab"): Need.READ,
    ("GET", f"{_JOB}/outlines"): Need.READ,
    ("GET", f"{_JOB}/candidates"): Need.READ,
    ("GET", f"{_JOB}/scene.glb"): Need.READ,
    ("GET", f"{_JOB}/scene.usdz"): Need.READ,
    ("GET", f"{_JOB}/prior"): Need.READ,
    ("GET", f"{_JOB}/review"): Need.READ,
    ("PUT", f"{_JOB}/review"): Need.SUBMIT,
    ("GET", f"{_JOB}/review/sr"): Need.READ,
    ("GET", f"{_JOB}/pacs"): Need.READ,
    ("POST", f"{_JOB}/pacs"): Need.SUBMIT,
    ("POST", "/v1/batches"): Need.SUBMIT,
    ("GET", "/v1/batches/{batch_id}"): Need.READ,
    ("DELETE", "/v1/batches/{batch_id}"): Need.SUBMIT,
    ("POST", "/dicom-web/studies"): Need.SUBMIT,
    ("POST", "/dicom-web/studies/{study_uid}"): Need.SUBMIT,
    ("GET", "/v1/models"): Need.READ,
    ("GET", _MODEL): Need.READ,
    ("GET", f"{_MODEL}/card"): Need.READ,
    ("GET", f"{_MODEL}/froc"): Need.READ,
    ("GET", f"{_MODEL}/reports"): Need.READ,
    ("GET", f"{_MODEL}/reports/{{report}}"): Need.READ,
    ("POST", f"{_MODEL}/activate"): Need.OPERATE,
    ("GET", "/v2"): Need.READ,
    ("GET", "/v2/health/live"): Need.PROBE,
    ("GET", "/v2/health/ready"): Need.PROBE,
    ("GET", _NETWORK): Need.READ,
    ("GET", f"{_NETWORK}/ready"): Need.READ,
    ("POST", f"{_NETWORK}/infer"): Need.SUBMIT,
    ("GET", _NETWORK_VERSION): Need.READ,
    ("GET", f"{_NETWORK_VERSION}/ready"): Need.READ,
    ("POST", f"{_NETWORK_VERSION}/infer"): Need.SUBMIT,
    ("GET", "/v1/capabilities"): Need.READ,
    ("GET", "/v1/dashboard"): Need.OPERATE,
    ("GET", "/v1/audit"): Need.OPERATE,
}
"""By method and template of the path."""

_SENDING = ("/v1/jobs", "/v1/batches", "/dicom-web", "/v1/predict", "/v1/risk")


def need_of(method: str, template: str | None) -> Need:
    """What the table says of a route; for one that is not in it, rather too much than too little.

    Parameters
    ----------
    method
        Of HTTP; HEAD counts as GET.
    template
        Of the path; None where no route has it.
    """
    if template is None:
        return Need.KNOWN
    asked = "GET" if method == "HEAD" else method
    told = NEEDS.get((asked, template))
    if told is not None:
        return told
    if asked in ("GET", "OPTIONS"):
        return Need.READ
    return Need.SUBMIT if template.startswith(_SENDING) else Need.OPERATE


def role_needed(need: Need, settings: Settings) -> Role | None:
    """The role that a need means under these settings; None where it is none."""
    if need is Need.PAGE:
        return None if settings.open_pages else Role.READ
    if need is Need.FIGURES:
        return None if settings.open_metrics else Role.OPERATE
    return Role(need.value) if need in (Need.SUBMIT, Need.READ, Need.OPERATE) else None
