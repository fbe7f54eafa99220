"""What docs/bring-your-own-network.md shows is what the code understands."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from pydantic import TypeAdapter

from app.imaging.preprocessing import PreprocessingSpec
from app.inference.detector_kinds import AnyDetector
from app.phantom.reference import reference_digest
from training import compare_monai, import_monai

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/bring-your-own-network.md").read_text(encoding="utf-8")


def test_the_detector_sections_are_valid() -> None:
    sections = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    kinds = []
    for section in sections:
        entry = TypeAdapter(AnyDetector).validate_python(json.loads(section) | {"sha256": "0" * 64})
        kinds.append(entry.kind)
    assert kinds == ["heat-map", "retinanet-heads"]


def test_the_digest_is_computed_as_shown() -> None:
    (program,) = re.findall(r"<!-- run: python -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    spec = PreprocessingSpec(
        spacing_zyx_mm=(1.25, 0.703125, 0.703125), window_hu=(-1024, 300), extent="scan", directions_zyx="SAR"
    )
    assert done.stdout.strip() == reference_digest(spec, None)


def test_the_commands_take_the_options_that_are_shown() -> None:
    for module, command in ((import_monai, "import-monai"), (compare_monai, "compare-monai")):
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        shown = re.findall(rf"python -m training {command} (.*)", GUIDE)
        assert shown
        for line in shown:
            parser.parse_args(line.split())
    parser = argparse.ArgumentParser()
    import_monai.add_arguments(parser)
    for option in re.findall(r"^\| `(--[a-z-]+)", GUIDE, re.MULTILINE):
        assert option in parser.format_help(), option
