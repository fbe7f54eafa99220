from __future__ import annotations

import subprocess
import sys

import pytest

from app.cli.setup import settings_with

QUOTES_THE_FILE = """
import logging, warnings
from app.cli.setup import quiet_libraries
quiet_libraries()
warnings.warn("Invalid value for VR DA: Doe^Jane")
logging.getLogger("pydicom").error("Doe^Jane")
"""


def test_libraries_do_not_write_what_they_read_to_the_terminal():
    done = subprocess.run([sys.executable, "-c", QUOTES_THE_FILE], capture_output=True, text=True, check=True)
    assert "Doe" not in done.stdout + done.stderr


def test_an_option_overrides_the_environment_and_an_absent_one_does_not(monkeypatch):
    monkeypatch.setenv("LUNGNODULE_THREADS", "3")
    assert settings_with(threads=5).threads == 5
    assert settings_with(threads=None).threads == 3


@pytest.mark.parametrize("name", ["THREADS", "PORT"])
def test_an_option_is_checked_like_a_variable(name):
    with pytest.raises(ValueError, match="greater than or equal"):
        settings_with(**{name.lower(): -1})
