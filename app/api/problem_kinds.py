"""One table from exception to status, and what a caller can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError

from app.api.access import errors as access
from app.api.errors import AnalysisTimeout, EmptyUpload, InvalidInference, InvalidParameter, NotFound, NotReady
from app.api.model_choice import ActivationRefused, IntakeOnly
from app.api.waiting_line import LineFull
from app.disk_faults import StorageFull
from app.imaging import errors
from app.imaging.errors import LungNoduleError
from app.jobs import records as jobs
from app.jobs.reviews import NoReview, ReviewChanged
from app.jobs.runner import JobTimeout
from app.multipart import MalformedUpload
from app.pacs.errors import PacsNotConfigured
from app.reporting.errors import ExtraMissing, ResultUnavailable
from app.uploads import NotMultipart, UploadTooSlow


@dataclass(frozen=True)
class ProblemKind:
    """One kind of problem."""

    name: str
    status: int
    title: str
    advice: str
    """What the caller can do; shown on the page that ``type`` points to."""


_RETRY = "Try again after the seconds in the Retry-After header."
_TIMEOUT = ProblemKind(
    "analysis_timeout",
    503,
    "Analysis took too long",
    "Try again when the service is less busy, or send a smaller volume.",
)
_NOT_FOUND = ProblemKind("not_found", 404, "Not found", "The description of the API lists every path.")
_NOT_READY = ProblemKind("not_ready", 503, "Service not ready", _RETRY)

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    errors.UploadTooLarge: ProblemKind(
        "too_large", 413, "Upload over a limit", "Send less; /v1/capabilities states every limit."
    ),
    errors.UnsupportedFormat: ProblemKind(
        "unsupported_format",
        415,
        "File format not read",
        "Send one of the formats and transfer syntaxes that /v1/capabilities lists.",
    ),
    errors.UnreadableScan: ProblemKind(
        "unreadable_scan",
        422,
        "Scan damaged or contradicting itself",
        "Export the series again; `values` name the file by its place in the request and the attribute.",
    ),
    errors.SeriesSelectionError: ProblemKind(
        "series_selection",
        422,
        "No series, or more than one, to analyse",
        "Name one of the series in `values` by the form field series_uid.",
    ),
    errors.NotChestCt: ProblemKind(
        "unsupported_series",
        422,
        "Not a chest CT that can be analysed",
        "Send an axial chest CT with slices of at most a few millimetres; `values` say what does not fit.",
    ),
    errors.IrregularSeries: ProblemKind(
        "irregular_series",
        422,
        "Slices do not form a regular volume",
        "Send the whole series. Some faults are repaired when the form field allow_repairs permits it.",
    ),
    errors.PriorMismatch: ProblemKind(
        "prior_mismatch",
        422,
        "Prior does not belong to the scan",
        "Name the job of an earlier scan of the same patient; `code` says what does not fit.",
    ),
    errors.NotDeidentified: ProblemKind(
        "not_deidentified",
        422,
        "Cannot be stored without the patient's data",
        "This service keeps de-identified DICOM CT images only; `detail` says what stands against it.",
    ),
    errors.ScanError: ProblemKind(
        "unusable_scan", 422, "Scan cannot be used", "`detail` and `values` say what does not fit."
    ),
    errors.ModelError: ProblemKind(
        "model_invalid", 503, "Model cannot be used", "Tell whoever runs the service; `detail` names the fault."
    ),
    MalformedUpload: ProblemKind(
        "malformed_upload",
        400,
        "Body is not valid multipart/form-data",
        "Let an HTTP library build the body, with file parts named 'files'.",
    ),
    NotMultipart: ProblemKind(
        "unsupported_media_type",
        415,
        "Body must be multipart/form-data",
        "Send the scan as multipart/form-data, e.g. `curl -F files=@scan.zip`.",
    ),
    UploadTooSlow: ProblemKind(
        "upload_too_slow",
        408,
        "Body arrived too slowly",
        "Send the scan over a faster connection, or compressed in a zip.",
    ),
    MemoryError: ProblemKind("out_of_memory", 503, "Not enough memory", _RETRY),
    StorageFull: ProblemKind("storage_full", 503, "No room for the upload", _RETRY),
    LineFull: ProblemKind("line_full", 429, "Too many requests waiting", _RETRY),
    EmptyUpload: ProblemKind(
        "empty_upload", 422, "No file received", "Send at least one non-empty part named 'files'."
    ),
    errors.OptionError: ProblemKind(
        "invalid_option", 422, "Form field not valid", "`errors` name each field, what is wrong, and what fits."
    ),
    RequestValidationError: ProblemKind(
        "invalid_request", 422, "Request not valid", "`errors` point to each part of the request that does not fit."
    ),
    access.NotAuthenticated: ProblemKind(
        "not_authenticated",
        401,
        "Not known who is calling",
        "Send an API key or a token as `Authorization: Bearer ...`, or the key as `X-API-Key`; whoever runs the "
        "service makes keys.",
    ),
    access.RoleMissing: ProblemKind(
        "role_missing", 403, "Not allowed", "`values` name the role; whoever runs the service gives roles."
    ),
    access.ForgeryRefused: ProblemKind(
        "cross_site",
        403,
        "Not from this site's pages",
        "Programs use a key in a header; pages send `X-Requested-With: lungnodule` beside the session's cookie.",
    ),
    access.KeyInAddress: ProblemKind(
        "key_in_url", 400, "Secret in the URL", "Send it in a header. Have this one revoked: URLs are kept in logs."
    ),
    access.RateLimited: ProblemKind("rate_limited", 429, "Too many requests of one caller", _RETRY),
    access.ProviderUnavailable: ProblemKind(
        "identity_provider_unavailable", 503, "Identity provider does not answer", _RETRY
    ),
    access.AccessOff: ProblemKind(
        "access_off", 409, "Access control is off", "Nothing needs to be sent: every caller may do everything."
    ),
    InvalidParameter: ProblemKind(
        "invalid_parameter", 422, "Parameter does not fit", "`values` name what there is and what may be asked for."
    ),
    NotFound: _NOT_FOUND,
    PacsNotConfigured: _NOT_FOUND,
    InvalidInference: ProblemKind(
        "invalid_inference", 400, "Tensors do not fit", "GET /v2/models/{name} tells names, types and shapes."
    ),
    NotReady: _NOT_READY,
    IntakeOnly: ProblemKind(
        "intake_only", 501, "Analyses are made elsewhere", "Send the scan to /v1/jobs; a worker will answer it."
    ),
    ActivationRefused: ProblemKind(
        "activation_refused",
        409,
        "Model cannot be activated",
        "The model that was in force still is. `detail` names the file: bring the folder into order and ask again.",
    ),
    AnalysisTimeout: _TIMEOUT,
    JobTimeout: _TIMEOUT,
    jobs.Draining: _NOT_READY,
    jobs.UnknownJob: _NOT_FOUND,
    jobs.JobErased: ProblemKind("gone", 410, "Erased", "Send the scan again if it is needed."),
    jobs.JobConflict: ProblemKind(
        "conflict", 409, "Not in this state of the job", "`values` name the state; GET the job to see how far it is."
    ),
    NoReview: ProblemKind("no_review", 404, "No review", "PUT one; `values` say how many revisions there are."),
    ReviewChanged: ProblemKind(
        "review_changed", 412, "Review is another", "GET the review, decide again, and send its ETag in If-Match."
    ),
    jobs.IdempotencyMismatch: ProblemKind(
        "idempotency_mismatch",
        422,
        "Idempotency-Key used for something else",
        "Send another key with another scan or other options; only an exact repetition may use the same.",
    ),
    jobs.QueueFull: ProblemKind("queue_full", 429, "Too many jobs", _RETRY),
    jobs.DatabaseUnavailable: ProblemKind("database_unavailable", 503, "Database does not answer", _RETRY),
    jobs.StoreUnavailable: ProblemKind("store_unavailable", 503, "Store of scans does not answer", _RETRY),
    jobs.StoreDamaged: ProblemKind(
        "store_damaged", 500, "Stored data missing or damaged", "Send the scan again; tell whoever runs the service."
    ),
    jobs.AttemptsExhausted: ProblemKind(
        "attempts_exhausted",
        500,
        "Given up after several attempts",
        "Tell whoever runs the service; then POST to the job's link `retry`.",
    ),
    ResultUnavailable: ProblemKind(
        "result_unavailable",
        409,
        "Not to be had in this form",
        "`detail` says why; the other links in `results` may do.",
    ),
    ExtraMissing: ProblemKind(
        "extra_missing", 501, "Not installed here", "`values` name the extra that whoever runs the service can install."
    ),
    errors.NoCharacteriser: ProblemKind(
        "no_characteriser", 409, "Not told by this model", "`detail` says why; ask a model that has a characteriser."
    ),
    LungNoduleError: ProblemKind("refused", 422, "Request refused", "`detail` says why."),
    Exception: ProblemKind(
        "internal_error",
        500,
        "Internal error",
        "Report the request id of the X-Request-ID header to whoever runs the service; the log holds the rest.",
    ),
}
"""Looked up along the exception's classes, the most derived first."""

HTTP_PROBLEMS: Mapping[int, ProblemKind] = {
    400: ProblemKind("malformed_body", 400, "Body cannot be read", "Send JSON, in UTF-8."),
    404: PROBLEMS[NotFound],
    405: ProblemKind("method_not_allowed", 405, "Method not allowed", "The Allow header lists what is."),
    408: PROBLEMS[UploadTooSlow],
    413: PROBLEMS[errors.UploadTooLarge],
}
"""What routes refuse before a handler is called."""

_SLOW_HEADER = ProblemKind(
    "request_header_too_slow", 408, "Request header arrived too slowly", "Send the whole header at once."
)
_LARGE_HEADER = ProblemKind(
    "request_header_too_large", 431, "Request header over a limit", "Send fewer and shorter header fields."
)
CONNECTION_PROBLEMS: Mapping[str, ProblemKind] = {
    "malformed_request": ProblemKind("malformed_request", 400, "Not valid HTTP", "Let an HTTP library send it."),
    "request_header_too_slow": _SLOW_HEADER,
    "request_header_too_large": _LARGE_HEADER,
    "too_many_headers": _LARGE_HEADER,
    "too_many_connections": ProblemKind("too_many_connections", 503, "Too many connections", _RETRY),
}
"""What a connection is refused for before there is a request, by code."""

CLIENT_CLOSED_REQUEST = ProblemKind("client_hung_up", 499, "Client closed the connection", "")
