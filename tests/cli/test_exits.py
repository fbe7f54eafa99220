from __future__ import annotations

import errno

import pytest
import typer
from pydantic import BaseModel

from app.cli.exits import ExitCode, errors_in_one_line
from app.imaging.errors import IrregularSeries, LungNoduleError, ModelError, OptionError, ScanError, UploadTooLarge


class Pair(BaseModel):
    first: int
    second: int


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (ScanError("Bad scan."), ExitCode.SCAN, "unusable_scan"),
        (IrregularSeries("Gap.", code="nonuniform_spacing"), ExitCode.SCAN, "nonuniform_spacing"),
        (UploadTooLarge("Too much."), ExitCode.SCAN, "too_large"),
        (ModelError("Wrong file.", code="hash_mismatch"), ExitCode.MODEL, "hash_mismatch"),
        (OptionError("No such thing.", code="unknown_operating_point"), ExitCode.USAGE, "unknown_operating_point"),
        (LungNoduleError("Other."), ExitCode.CHECK_FAILED, "error"),
        (MemoryError(), ExitCode.SYSTEM, "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/out"), ExitCode.SYSTEM, "system"),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(error, exit_code, code, capsys):
    with pytest.raises(typer.Exit) as stopped, errors_in_one_line():
        raise error
    printed = capsys.readouterr()
    assert stopped.value.exit_code == exit_code
    assert printed.out == ""
    assert printed.err.startswith(f"error[{code}]: ")
    assert printed.err.count("\n") == 1


def test_a_message_of_several_lines_becomes_one(capsys):
    with pytest.raises(typer.Exit), errors_in_one_line():
        raise ScanError("First.\n  Second.")
    assert capsys.readouterr().err == "error[unusable_scan]: First. Second.\n"


def test_settings_that_do_not_fit_are_wrong_usage_and_all_named(capsys):
    with pytest.raises(typer.Exit) as stopped, errors_in_one_line():
        Pair.model_validate({"first": "x", "second": "y"})
    assert stopped.value.exit_code == ExitCode.USAGE
    assert "first: " in (printed := capsys.readouterr().err)
    assert "second: " in printed


def test_a_bug_is_not_disguised():
    with pytest.raises(ZeroDivisionError), errors_in_one_line():
        _ = 1 / 0


def test_unknown_setting_is_wrong_usage(run, monkeypatch):
    monkeypatch.setenv("LUNGNODULE_DEVISE", "cpu")
    result = run("models", "list")
    assert result.exit_code == ExitCode.USAGE
    assert "LUNGNODULE_DEVICE" in result.stderr


def test_setting_that_does_not_fit_is_wrong_usage(run):
    assert run("doctor", "--device", "abacus").exit_code == ExitCode.USAGE
