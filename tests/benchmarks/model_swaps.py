"""Memory of a service that swaps models: A, B, A, B ... with analyses in between. By hand, not in CI.

    python -m tests.benchmarks.model_swaps [--swaps 100] [--analysis-every 10] [--store model_store]

The newest model of the store is copied as two versions. RSS of the service is read from outside after each swap, once
with room for one model (each swap loads one and unloads the other), once with room for both, and once without swaps:
that run tells what the analyses alone do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from app.cli.client import RunningService, predict, running_service
from app.inference.model_store import list_models
from app.phantom import write_phantom

VERSIONS = ("1.0.0", "1.1.0")


def two_versions(source: Path, store: Path) -> str:
    """Copy a model as two versions that differ in nothing else; gives its name."""
    for version in VERSIONS:
        folder = Path(shutil.copytree(source, store / source.parent.name / version))
        manifest = json.loads((folder / "manifest.json").read_text()) | {"version": version}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return source.parent.name


@contextmanager
def served(store: Path, name: str, max_loaded: int) -> Iterator[RunningService]:
    settings = {
        "LUNGNODULE_MODEL_STORE": str(store),
        "LUNGNODULE_MODELS": f"{name}:{VERSIONS[0]}",
        "LUNGNODULE_MAX_LOADED_MODELS": str(max_loaded),
        "LUNGNODULE_DEVICE": "cpu",
        "LUNGNODULE_LOG_LEVEL": "warning",
    }
    with running_service(settings) as service:
        yield service


def rss_mib(service: RunningService) -> float:
    return float(psutil.Process(service.process.pid).memory_info().rss) / (1 << 20)


def run(service: RunningService, name: str, scan: Path, options: argparse.Namespace, *, swapping: bool) -> list[float]:
    """RSS after each swap, in MiB; the first analysis is made before the first swap."""
    predict(service.url, [scan])
    found = []
    for number in range(1, options.swaps + 1):
        if swapping:
            version = VERSIONS[number % 2]
            answer = requests.post(f"{service.url}/v1/models/{name}/{version}/activate", timeout=120)
            answer.raise_for_status()
        if number % options.analysis_every == 0:
            predict(service.url, [scan])
        found.append(rss_mib(service))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--analysis-every", type=int, default=10, help="Swaps between two analyses.")
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        name = two_versions(list_models(options.store)[-1].path, folder / "store")
        write_phantom(folder / "phantom", "mha", seed=1)
        (scan,) = (folder / "phantom").glob("*.mha")
        for title, max_loaded, swapping in (
            ("no swaps", 1, False), ("room for one model", 1, True), ("room for both", 2, True),
        ):  # fmt: skip
            with served(folder / "store", name, max_loaded) as service:
                found = run(service, name, scan, options, swapping=swapping)
            third = max(1, len(found) // 3)
            parts = [statistics.median(part) for part in (found[:third], found[third : 2 * third], found[-third:])]
            print(
                f"{title:<20} RSS in MiB, median of each third: {', '.join(f'{part:.0f}' for part in parts)}; "
                f"least {min(found):.0f}, most {max(found):.0f}; {options.swaps} steps",
                flush=True,
            )


if __name__ == "__main__":
    main()
