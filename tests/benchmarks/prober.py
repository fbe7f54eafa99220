"""Ask paths again and again until standard input ends; print the seconds of each answer as JSON.

    python -m tests.benchmarks.prober 127.0.0.1:8000 /healthz /v1/jobs/ID

A process of its own: beside fifty uploading threads, Python's lock would be measured instead of the service. Each
question opens a connection, as probes do.
"""

from __future__ import annotations

import json
import select
import sys
import time
from http.client import HTTPConnection

EVERY_S = 0.02


def main() -> None:
    address, paths = sys.argv[1], sys.argv[2:]
    seconds: dict[str, list[float]] = {path: [] for path in paths}
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        for path, measured in seconds.items():
            began = time.perf_counter()
            connection = HTTPConnection(address, timeout=60)
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            assert answer.status == 200, (path, answer.status)
            measured.append(time.perf_counter() - began)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
