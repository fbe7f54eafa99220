"""Tables of the ledger. No column holds a patient attribute: those stay in the files of the store.

`app/jobs/migrations` makes the same tables; a test holds the two together.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

_ID = sa.String(32)
_CODE = sa.String(64)
_SHA256 = sa.String(64)
_NAME = sa.String(48)

scans = sa.Table(
    "scans",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("digest", _SHA256),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("erased_at", sa.Double),
    # One live copy of the same content; erased rows have lost their digest.
    sa.Index("scans_digest", "digest", unique=True),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("scan_id", _ID, sa.ForeignKey("scans.id")),
    sa.Column("ticket", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker_id", _ID),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("work_digest", _SHA256),
    sa.Column("order", sa.JSON, nullable=False),
    sa.Column("stage", _CODE, nullable=False),
    sa.Column("fraction", sa.Double, nullable=False),
    sa.Column("stages_s", sa.JSON, nullable=False),
    sa.Column("problem", sa.JSON(none_as_null=True)),
    sa.Column("result_name", sa.String(128)),
    sa.Column("result_sha256", _SHA256),
    sa.Column("result_size", sa.BigInteger),
    sa.Column("answered_from", _ID),
    sa.Column("retry_of", _ID),
    sa.Column("last_event", sa.Integer, nullable=False),
    sa.Column("erased_at", sa.Double),
    sa.Column("tenant", _NAME, nullable=False, server_default="default"),
    sa.Index("jobs_state", "state", "created_at"),
    sa.Index("jobs_created", "created_at", "id"),
    sa.Index("jobs_tenant", "tenant", "created_at", "id"),
    sa.Index("jobs_work", "work_digest", "state"),
    sa.Index("jobs_scan", "scan_id"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker_id", _ID, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Column("outcome", sa.String(16)),
    sa.Column("stage", _CODE, nullable=False),
    sa.Column("code", _CODE),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    # The key is the client's text and may hold anything: only its hash is kept.
    sa.Column("key_sha256", _SHA256, primary_key=True),
    sa.Column("fingerprint", _SHA256, nullable=False),
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index("idempotency_keys_job", "job_id"),
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("key_sha256", _SHA256),
    sa.Column("fingerprint", _SHA256),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("jobs", sa.Integer, nullable=False),
    # What became no job, with SeriesInstanceUIDs; emptied with the last job.
    sa.Column("left_out", sa.JSON, nullable=False),
    sa.Column("erased_at", sa.Double),
    sa.Column("tenant", _NAME, nullable=False, server_default="default"),
    sa.Index("batches_key", "key_sha256", unique=True),
)

batch_jobs = sa.Table(
    "batch_jobs",
    metadata,
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("batch_id", _ID, sa.ForeignKey("batches.id"), nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("series", sa.JSON, nullable=False),
    sa.Index("batch_jobs_batch", "batch_id", "place"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("target", sa.String(64), nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("last_answer", _CODE),
    sa.Column("delivered_at", sa.Double),
    sa.Index("outbox_due", "next_at"),
    sa.Index("outbox_job", "job_id"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("action", _CODE, nullable=False),
    sa.Column("job_id", _ID),
    sa.Column("request_id", sa.String(64)),
    sa.Column("values", sa.JSON, nullable=False),
    # Of whoever acted; NULL in rows from before there were tenants.
    sa.Column("tenant", _NAME),
    sa.Index("audit_at", "at"),
    sa.Index("audit_job", "job_id"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("slot", sa.String(128), nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("heartbeat_at", sa.Double, nullable=False),
    sa.Column("stopped_at", sa.Double),
)

installation = sa.Table(
    "installation",
    metadata,
    # One row, made with the table: an object store is marked with it, so that no other installation sweeps there.
    sa.Column("id", _ID, primary_key=True),
)

# One row, which the migration makes: the model in force where a request names none. Without a name, the settings' own.
active_model = sa.Table(
    "active_model",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(128)),
    sa.Column("version", sa.String(128)),
    sa.Column("sha256", _SHA256),
    sa.Column("activated_at", sa.Double),
)

pacs_series = sa.Table(
    "pacs_series",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("study_uid", sa.String(64), nullable=False),
    sa.Column("series_uid", sa.String(64), nullable=False),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("last_at", sa.Double, nullable=False),
    sa.Column("due_at", sa.Double, nullable=False),
    sa.Column("job_id", _ID),
    sa.Column("code", _CODE),
    sa.Column("tenant", _NAME),  # null: the one that the settings give to what a PACS sends
    sa.Index("pacs_series_due", "state", "due_at"),
    sa.Index("pacs_series_job", "job_id"),
)

pacs_instances = sa.Table(
    "pacs_instances",
    metadata,
    sa.Column("series_id", _ID, primary_key=True),
    sa.Column("name", _ID, primary_key=True),
    sa.Column("slices", sa.Integer, nullable=False),
)

pacs_returns = sa.Table(
    "pacs_returns",
    metadata,
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("target", sa.String(64), primary_key=True),
    sa.Column("kinds", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("confirmed", sa.JSON, nullable=False),
    sa.Column("last_answer", _CODE),
    sa.Column("sent_at", sa.Double),
    sa.Index("pacs_returns_due", "target", "next_at"),
)

pacs_cursors = sa.Table(
    "pacs_cursors",
    metadata,
    sa.Column("source", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)

pacs_fetches = sa.Table(
    "pacs_fetches",
    metadata,
    sa.Column("source", sa.String(64), primary_key=True),
    sa.Column("remote_id", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("next_at", sa.Double),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("last_answer", _CODE),
    sa.Index("pacs_fetches_due", "source", "next_at"),
)

pacs_workitems = sa.Table(
    "pacs_workitems",
    metadata,
    sa.Column("source", sa.String(64), primary_key=True),
    sa.Column("workitem_uid", sa.String(64), primary_key=True),
    # Only who knows it may change the workitem: after a restart this service still does.
    sa.Column("transaction_uid", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("job_id", _ID),
    sa.Column("began_at", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("last_answer", _CODE),
    sa.Index("pacs_workitems_due", "source", "next_at"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    # The part of a key by which it is looked up; the secret part is only here as a hash.
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("secret_sha256", _SHA256, nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("tenant", _NAME, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
    sa.Column("last_used_at", sa.Double),
    sa.Index("api_keys_name", "name"),
)

browser_sessions = sa.Table(
    "browser_sessions",
    metadata,
    sa.Column("id_sha256", _SHA256, primary_key=True),
    sa.Column("key_id", sa.String(12), sa.ForeignKey("api_keys.id"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("last_seen_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Index("browser_sessions_key", "key_id", "created_at"),
)


job_reviews = sa.Table(
    "job_reviews",
    metadata,
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("sha256", _SHA256, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

job_findings = sa.Table(
    "job_findings",
    metadata,
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    # For each nodule its diameter (mm), probability and malignancy probability: numbers for the dashboard.
    sa.Column("nodules", sa.JSON, nullable=False),
    sa.Index("job_findings_at", "at"),
)

OF_A_JOB = (attempts, events, idempotency_keys, batch_jobs, outbox, pacs_returns, job_reviews, job_findings)
"""Tables with rows that go when a job is erased. The audit trail stays: it holds nothing of the patient."""
