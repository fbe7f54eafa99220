"""The system's Chromium, without a window."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-accelerated-2d-canvas",
)
"""Without a GPU, WebGL is drawn by SwiftShader, and a plain canvas faster without it; root has no sandbox."""
MISSING = "Chromium is not here: apt-get install chromium"


def find() -> str | None:
    """Path of the program; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def launch(playwright: Playwright) -> Browser:
    """Start it.

    Raises
    ------
    FileNotFoundError
        It is not installed.
    """
    program = find()
    if program is None:
        raise FileNotFoundError(MISSING)
    return playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
