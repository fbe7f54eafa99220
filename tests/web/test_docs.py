"""docs/workspace.md says what the page does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from playwright.sync_api import Page

from tests.web.person import open_reading

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/workspace.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- run: shell -->\n```shell\n(.*?)```", re.DOTALL)


def test_the_example_finds_the_page(workspace_service: str):
    (text,) = BLOCK.findall(GUIDE)
    command = text.replace("http://127.0.0.1:8000", workspace_service)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "the page is there\n", done.stderr


def test_every_key_of_the_reading_is_in_the_guide(page: Page, workspace_service: str, phantom_study: str):
    open_reading(page, workspace_service, phantom_study)
    page.keyboard.press("?")
    keys = page.locator("dialog section").first.locator("kbd").all_inner_texts()
    told = set(re.findall(r"`([^`]+)`", GUIDE.partition("## Keys")[2].partition("Pointer:")[0]))
    told |= {"2", "3", "4"}  # `1` to `5`
    assert {part for key in keys for part in key.split()} - {"\u2212"} <= told
    assert "-" in told


def test_the_pictures_are_small():
    for name in re.findall(r"\]\((pictures/[^)]+)\)", GUIDE):
        assert (ROOT / "docs" / name).stat().st_size < 200_000
