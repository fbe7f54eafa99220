"""The configuration says what is analysed and where results go; what does not fit is refused by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pacs.config import Rule, read_pacs_config
from app.pacs.errors import PacsConfigInvalid
from app.pacs.patterns import checked_pattern, found
from app.pacs.rules import SeriesFacts, first_fitting

WHOLE = """
[targets.archive]
kind = "dicomweb"
url = "https://pacs.example/dicom-web"
login = { user = "ai", secret_env = "PACS_PASSWORD" }

[targets.workstation]
kind = "dimse"
ae_title = "WS1"
host = "ws1.example"
port = 104

[[rules]]
name = "chest"
body_part = ["CHEST"]
description = ["lung|thorax"]
max_slice_thickness_mm = 3.0
send = [{ target = "archive", kinds = ["sr", "seg"] }, { target = "workstation", kinds = ["sc"] }]

[receive]
complete_after_s = 5

[dimse]
calling_ae_titles = ["CT1"]
calling_addresses = ["10.1.0.0/16"]

[orthanc.main]
url = "http://orthanc:8042"
"""
CHEST = SeriesFacts("CT", "CHEST", "Thorax 1.0 LUNG", 1.0)


def read(folder: Path, text: str) -> Any:
    path = folder / "pacs.toml"
    path.write_text(text)
    return read_pacs_config(path)


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    assert [each.target for each in config.rules[0].send] == ["archive", "workstation"]
    assert config.targets["workstation"].port == 104
    assert str(config.dimse.networks[0]) == "10.1.0.0/16"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("port = 104", 'port = "x"'), "targets.workstation.port"),
        (('body_part = ["CHEST"]', 'bodypart = ["CHEST"]'), "rules[0].bodypart"),
        (('kinds = ["sc"]', 'kinds = ["sr", "jpeg"]'), "rules[0].send[1].kinds[1]"),
        (("max_slice_thickness_mm = 3.0", "max_slice_thickness_mm = -1"), "rules[0].max_slice_thickness_mm"),
        (('"https://pacs.example/dicom-web"', '"file:///etc/passwd"'), "targets.archive.url"),
        (('"https://pacs.example/dicom-web"', '"https://ai:geheim@pacs.example/"'), "targets.archive.url"),
        (('"10.1.0.0/16"', '"10.1.0.0/99"'), "dimse.calling_addresses"),
        (('"lung|thorax"', '"(a+)+$"'), "rules[0].description"),
        (('target = "archive", kinds', 'target = "archiv", kinds'), "archiv, which is not among the targets"),
        (('secret_env = "PACS_PASSWORD"', 'password = "geheim"'), "targets.archive.login"),
        (("[receive]", "[receive"), "line"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(tmp_path: Path, change: tuple[str, str], key: str) -> None:
    assert change[0] in WHOLE
    with pytest.raises(PacsConfigInvalid) as told:
        read(tmp_path, WHOLE.replace(*change))
    assert key in told.value.message
    assert "geheim" not in told.value.message + repr(told.value.values)


def test_a_secret_is_read_when_it_is_needed_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = read(tmp_path, WHOLE).targets["archive"].login
    with pytest.raises(PacsConfigInvalid, match="PACS_PASSWORD"):
        login.secret()
    monkeypatch.setenv("PACS_PASSWORD", "geheim\n")
    assert login.secret().get_secret_value() == "geheim"
    assert "geheim" not in repr(login) + repr(login.secret())


@pytest.mark.parametrize(
    ("rule", "facts", "fits"),
    [
        ({}, CHEST, True),
        ({}, SeriesFacts("MR"), False),
        ({}, SeriesFacts(None), False),
        ({"body_part": ["CHEST", "THORAX"]}, CHEST, True),
        ({"body_part": ["HEAD"]}, CHEST, False),
        ({"body_part": ["CHEST"]}, SeriesFacts("CT"), False),
        ({"description": ["lung$"]}, CHEST, True),
        ({"description": ["^lung"]}, CHEST, False),
        ({"description": ["x", "thorax"]}, CHEST, True),
        ({"not_description": ["LUNG"]}, CHEST, False),
        ({"not_description": ["scout"]}, SeriesFacts("CT"), True),
        ({"max_slice_thickness_mm": 1.0}, CHEST, True),
        ({"max_slice_thickness_mm": 0.9}, CHEST, False),
        ({"max_slice_thickness_mm": 3.0}, SeriesFacts("CT"), False),
    ],
)
def test_a_rule_asks_for_all_that_it_states(rule: dict[str, Any], facts: SeriesFacts, fits: bool) -> None:
    rules = [Rule.model_validate({"name": "r", **rule})]
    assert (first_fitting(rules, facts) is not None) is fits


def test_the_first_rule_that_fits_counts() -> None:
    rules = [Rule(name="thin", max_slice_thickness_mm=1.5), Rule(name="any"), Rule(name="never")]
    assert getattr(first_fitting(rules, CHEST), "name", None) == "thin"
    assert getattr(first_fitting(rules, SeriesFacts("CT", slice_thickness_mm=5.0)), "name", None) == "any"


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a|a)*", r"(a)\1", "(?=a)a", "(?i)a", "a*b*c*d*", "a{1,9}b*c*d+", "(", "[", "a" * 201, "**"]
)
def test_a_pattern_that_may_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        checked_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("lung|thorax", "THORAX"), (r"\d+ ?mm", "1.25 mm"), ("[)*+]+", "a+"), (r"\(b\)+", "(b)"), ("(?:a|b)c", "bc")],
)
def test_ordinary_patterns_are_found(pattern: str, text: str) -> None:
    assert found(pattern, text)


_PIECES = st.sampled_from(["a", "b", ".", "[ab]", "[^c]", r"\w", "*", "+", "{2,}", "?", "|", "(", ")", "(?:", "$", "^"])


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_whatever_is_let_through_is_quick_on_the_longest_text(pattern: str) -> None:
    """Nothing is asserted but that it ends: without the limits one of these takes hours, and the test times out."""
    try:
        checked = checked_pattern(pattern)
    except ValueError:
        return
    for text in ("a" * 64, "ab" * 32, "a" * 63 + "c"):
        checked.search(text)


def test_only_the_first_characters_of_a_text_count() -> None:
    assert not found("b", "a" * 64 + "b")
