"""The census as Prometheus reads it: the same from every process on the database, so take the max, never the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.jobs.census import Census, LatestCensus, take_census
from app.jobs.database import Database

_PLAIN: Mapping[str, tuple[str, Callable[[Census], float]]] = {
    "lungnodule_jobs_oldest_waiting_seconds": (
        "Seconds since the oldest waiting job was made; 0 when none waits.",
        lambda census: census.oldest_waiting_s,
    ),
    "lungnodule_workers": ("Workers with a fresh heartbeat.", lambda census: census.workers),
    "lungnodule_worker_places": ("Jobs that these workers can work on at once.", lambda census: census.places),
    "lungnodule_webhooks_waiting": (
        "Webhooks in the outbox that are still to be delivered.",
        lambda census: census.webhooks_waiting,
    ),
    "lungnodule_webhooks_given_up": (
        "Webhooks that were never delivered and are tried no more.",
        lambda census: census.webhooks_given_up,
    ),
    "lungnodule_webhook_oldest_waiting_seconds": (
        "Seconds since the oldest of the webhooks that wait was made; 0 when none waits.",
        lambda census: census.oldest_webhook_s,
    ),
}


class CensusCollector(Collector):
    """Gauges of the whole installation.

    Parameters
    ----------
    latest
        Gives the census, or None where the database does not answer: then all but ``lungnodule_database_up`` is absent.
    """

    def __init__(self, latest: Callable[[], Census | None]) -> None:
        self._latest = latest

    def describe(self) -> Iterable[Metric]:
        """Nothing: to be registered must not ask the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every gauge."""
        census = self._latest()
        yield GaugeMetricFamily(
            "lungnodule_database_up",
            "1 when the database of the jobs answers in time.",
            value=float(census is not None),
        )
        if census is None:
            return
        for name, (meaning, figure) in _PLAIN.items():
            yield GaugeMetricFamily(name, meaning, value=figure(census))
        yield _by("lungnodule_jobs", "Jobs that are kept, by state.", "state", census.jobs)
        yield _by("lungnodule_attempts", "Ended attempts of the jobs that are kept.", "outcome", census.attempts)
        stored = {"scans": census.scan_bytes, "results": census.result_bytes}
        yield _by("lungnodule_store_bytes", "Bytes of stored scans and results.", "kind", stored)


def _by(name: str, meaning: str, label: str, values: Mapping[Any, int]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


@contextmanager
def census_shown(registry: CollectorRegistry, database: Database, lease_s: float) -> Iterator[LatestCensus]:
    """Show the census in ``registry`` for as long as the database is open; gives the census."""
    latest = LatestCensus(lambda: take_census(database, lease_s))
    collector = CensusCollector(latest)
    registry.register(collector)
    try:
        yield latest
    finally:
        registry.unregister(collector)
