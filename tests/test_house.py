"""The rules of the house that a machine can hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path.relative_to(ROOT) for folder in ("app", "training") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "util", "common", "core", "helpers", "misc"}


def test_the_service_leaves_torch_and_training_out_and_loads_what_is_heavy_when_it_is_needed():
    heavy = {"torch", "monai", "training", "SimpleITK", "highdicom", "reportlab", "onnxruntime", "pynetdicom", "dbos"}
    program = f"import sys, app.main; print(sorted({{m.split('.')[0] for m in sys.modules}} & {heavy}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_imports_point_down():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_and_functions_hold_one_idea(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    assert path.stem not in FORBIDDEN_NAMES
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    too_long = {f.name: length for f in functions if (length := f.end_lineno - f.lineno + 1) > 90}
    assert not too_long


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "read"])
def test_every_setting_is_in_the_operations_manual_with_its_default(name):
    rows = (ROOT / "docs/operations.md").read_text(encoding="utf-8").splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{PREFIX}{name.upper()}` |")]
    default = Settings.model_fields[name].default
    shown = row.split("|")[2].strip(" `")
    expected = ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
    assert shown == (expected.lower() if isinstance(default, bool) else expected)
