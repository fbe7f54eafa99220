from __future__ import annotations

import json


def test_writes_the_scan_and_the_truth_about_it(run, tmp_path):
    result = run("phantom", tmp_path / "new" / "folder", "--format", "mha", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new/folder/phantom.mha").is_file()
    truth = json.loads((tmp_path / "new/folder/truth.json").read_text())
    assert truth["seed"] == 3
    assert truth["nodules"]


def test_unknown_format_is_wrong_usage(run, tmp_path):
    assert run("phantom", tmp_path, "--format", "jpeg").exit_code == 2
