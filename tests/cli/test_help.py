from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = [
    ["analyse"],
    ["risk"],
    ["serve"],
    ["worker"],
    ["models", "list"],
    ["models", "show"],
    ["models", "verify"],
    ["models", "evaluate"],
    ["models", "compare"],
    ["doctor"],
    ["phantom"],
    ["demo"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_and_the_exit_codes(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"lungnodule {' '.join(command)}" in result.output.split("Usage:")[1].split("\n", 1)[1]
    assert "Exit codes" in result.output


def test_version_is_that_of_the_package(run):
    assert run("--version").output.split() == ["lungnodule", version("lungnodule")]


def test_help_answers_without_importing_anything_heavy():
    heavy = "numpy", "pydantic", "pydicom", "onnxruntime", "fastapi", "scipy", "SimpleITK"
    program = f"import sys, app.cli; app.cli.command_line(); print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_command_is_wrong_usage(run):
    assert run("analyze").exit_code == 2
