"""Speed and memory, side by side in one run.

    python -m tests.benchmarks [--only reading,clients] [--runs 3] [--quick] [--with-monai] [--json result.json]

Every measured thing runs in a process of its own, in turn with what it is compared to. `tests.benchmarks.report`
turns the JSON into the tables of docs/performance.md. Phantoms are written first, into a folder that is removed
unless ``--scratch`` names one. ``--quick`` shows in two minutes that all parts run; its figures mean little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from app.inference.model_store import find_model
from tests.benchmarks.machine import cores, described
from tests.benchmarks.measuring import ROOT, say
from tests.benchmarks.parts import PARTS, Plan
from tests.benchmarks.report import printed
from tests.benchmarks.scans import Scans

_OPTIONAL = ("monai",)


def main() -> None:
    """Measure, print, keep."""
    options = parsed_options()
    with tempfile.TemporaryDirectory(prefix="lungnodule-benchmark-") as temporary:
        plan = plan_of(options, Path(options.scratch or temporary))
        result: dict[str, Any] = {"machine": described(), "threads": plan.threads, "quick": plan.quick, "parts": {}}
        for name in chosen_parts(options):
            began = time.perf_counter()
            say(name)
            result["parts"][name] = PARTS[name](plan)
            say(f"{name} took {time.perf_counter() - began:.0f} s")
            if options.json:
                # After each part: what was measured is kept when a later one fails.
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result))
    print(printed(result))


def parsed_options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated: {', '.join(PARTS)}; default: all but {', '.join(_OPTIONAL)}")
    parser.add_argument("--with-monai", action="store_true", help="also MONAI's network; needs the training extra")
    parser.add_argument("--monai-window", action="store_true", help="measure its own 512x512x192 too: minutes, 6 GiB")
    parser.add_argument("--runs", type=int, help="of each measurement; default 3, quick 1")
    parser.add_argument("--threads", type=int, default=cores(), help="default: the cores of this machine")
    parser.add_argument("--model", type=Path, help="model folder; default: the newest lungnodule in model_store/")
    parser.add_argument("--json", type=Path, help="write what was measured here")
    parser.add_argument("--scratch", type=Path, help="keep the phantoms here (2.5 GB) and use those that are there")
    parser.add_argument("--quick", action="store_true", help="small scans, one run")
    options = parser.parse_args()
    if unknown := set((options.only or "").split(",")) - {"", *PARTS}:
        parser.error(f"--only knows {', '.join(PARTS)}; not {', '.join(sorted(unknown))}")
    return options


def chosen_parts(options: argparse.Namespace) -> list[str]:
    """Names in the order of `PARTS`."""
    if options.only:
        return [name for name in PARTS if name in options.only.split(",")]
    return [name for name in PARTS if name not in _OPTIONAL or options.with_monai]


def plan_of(options: argparse.Namespace, scratch: Path) -> Plan:
    """What the options ask for."""
    model = options.model or find_model(ROOT / "model_store", "lungnodule").path
    if options.quick:
        small = ((32, 32, 16), (64, 64, 16))
        return Plan(
            Scans(scratch / "quick", matrix=256), model, options.threads, options.runs or 1,
            slices=(100,), tall=(100, 200), cap_mib=128, clients=(1, 2), windows_xyz=small, quick=True,
        )  # fmt: skip
    windows = {"windows_xyz": ((192, 192, 64), (512, 512, 192))} if options.monai_window else {}
    return Plan(Scans(scratch), model, options.threads, options.runs or 3, **windows)


if __name__ == "__main__":
    main()
