"""What Prometheus scrapes. One registry for each app, so that two apps in one process do not share figures.

Figures here are those of one process; what the whole installation shares is counted by `app.jobs.census`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.inference.findings import Findings, ModelIdentity
from app.inference.gpu_memory import GpuMemory, gpu_memory_probe
from app.inference.model_store import LoadedModel

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """Counters, gauges and histograms of one process.

    Parameters
    ----------
    gpus
        Asks the GPUs for their memory; by default the driver, where there is one.
    """

    def __init__(self, gpus: Callable[[], tuple[GpuMemory, ...]] | None = None) -> None:
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
        self.connections_refused = Counter(
            "lungnodule_connections_refused",
            "Connections that were answered or closed before a request of theirs met a route, by the reason.",
            ("code",),
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
            "1 for each model in memory.",
            ("name", "version", "sha256"),
            registry=self.registry,
        )
        self.active_model = Gauge(
            "lungnodule_active_model_info",
            "1 for the model in force where a request names none.",
            ("name", "version", "sha256"),
            registry=self.registry,
        )
        self.notices = Gauge(
            "lungnodule_model_notice_info",
            "1 for each thing that the operator should know of a model, e.g. that it runs on the CPU beside a GPU.",
            ("model", "code"),
            registry=self.registry,
        )
        build = Gauge("lungnodule_build_info", "1 for the running version.", ("version",), registry=self.registry)
        build.labels(version("lungnodule")).set(1)
        self._places: dict[str, Path] = {}
        self.registry.register(_Machine(self._places, gpus or gpu_memory_probe()))

    def show_models(self, active: ModelIdentity, loaded: Sequence[LoadedModel]) -> None:
        """Show the model in force, those in memory, where they run, and the codes of their notices."""
        for gauge in (self.active_model, self.model, self.provider, self.notices):
            gauge.clear()
        self.active_model.labels(active.name, active.version, active.sha256).set(1)
        for model in loaded:
            name, version_ = model.identity.name, model.identity.version
            self.model.labels(name, version_, model.identity.sha256).set(1)
            self.provider.labels(model.execution_provider).set(1)
            for notice in model.notices:
                self.notices.labels(f"{name}:{version_}", notice.code).set(1)

    def watch_disk(self, place: str, folder: Path) -> None:
        """Show how much room there is where ``folder`` lies."""
        self._places[place] = folder

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

    def count_refused_connection(self, code: str) -> None:
        """Count a connection that was refused before its request met a route."""
        self.connections_refused.labels(code).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _Machine(Collector):
    """What the machine has left, looked at when it is asked for; what does not answer is absent."""

    def __init__(self, places: Mapping[str, Path], gpus: Callable[[], tuple[GpuMemory, ...]] | None) -> None:
        self._folders = places
        self._gpus = gpus

    def describe(self) -> Iterable[Metric]:
        """Nothing: all of it depends on the machine."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Free disk and, where there is a GPU, its memory."""
        free = GaugeMetricFamily("lungnodule_free_disk_bytes", "Free bytes by what is kept there.", labels=["place"])
        for place, folder in list(self._folders.items()):
            try:
                free.add_metric([place], shutil.disk_usage(folder).free)
            except OSError:
                continue
        yield free
        if self._gpus is not None:
            memory = GaugeMetricFamily(
                "lungnodule_gpu_memory_bytes", "GPU memory, of all its processes.", labels=["gpu", "kind"]
            )
            for gpu in self._gpus():
                memory.add_metric([str(gpu.index), "used"], gpu.used)
                memory.add_metric([str(gpu.index), "total"], gpu.total)
            yield memory
