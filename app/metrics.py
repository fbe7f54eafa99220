"""What Prometheus scrapes. One registry for each app, so that two apps in one process do not share figures."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from app.inference.findings import Findings, ModelIdentity

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """Counters, gauges and histograms of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "lungnodule_http_requests",
            "HTTP requests by route template, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.rejects = Counter(
            "lungnodule_rejects",
            "Requests answered with a problem, by its type, code and status.",
            ("type", "code", "status"),
            registry=self.registry,
        )
        self.received = Counter(
            "lungnodule_received_bytes", "Bytes of request bodies received.", registry=self.registry
        )
        self.analyses = Counter("lungnodule_analyses", "CT series analysed.", ("model",), registry=self.registry)
        self.nodules = Counter("lungnodule_nodules", "Nodules reported.", ("model",), registry=self.registry)
        self.stage_seconds = Histogram(
            "lungnodule_stage_seconds",
            "Seconds in each stage of one analysis; receive and wait are the stages before it.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "lungnodule_requests_in_flight",
            "Analysis requests admitted: receiving, waiting or running.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "lungnodule_requests_waiting", "Analysis requests waiting for the device.", registry=self.registry
        )
        self.pacs_waiting = Gauge(
            "lungnodule_pacs_waiting",
            "Jobs whose results a PACS has still to confirm, by its name in the configuration.",
            ("target",),
            registry=self.registry,
        )
        self.provider = Gauge(
            "lungnodule_execution_provider_info",
            "1 for the ONNX Runtime execution provider in use.",
            ("provider",),
            registry=self.registry,
        )
        self.model = Gauge(
            "lungnodule_model_info",
            "1 for each loaded model.",
            ("name", "version", "sha256"),
            registry=self.registry,
        )

    def set_model(self, identity: ModelIdentity, execution_provider: str) -> None:
        """Show a loaded model and where it runs."""
        self.model.labels(identity.name, identity.version, identity.sha256).set(1)
        self.provider.labels(execution_provider).set(1)

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        """Count the seconds of each stage."""
        for stage, value in seconds.items():
            self.stage_seconds.labels(stage).observe(value)

    def observe_analysis(self, findings: Findings, waited_s: float) -> None:
        """Count one answered analysis and the seconds of its stages."""
        model = f"{findings.model.name}:{findings.model.version}"
        self.analyses.labels(model).inc()
        self.nodules.labels(model).inc(len(findings.nodules))
        self.observe_stages({"wait": waited_s, **findings.timings_s})

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
