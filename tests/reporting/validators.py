"""Programs of others that judge or read what we write.

Debian: dicom3tools (dciodvfy, dcentvfy), dcmtk (dcmpschk, dsrdump), libpixelmed-java with default-jre-headless; PyPI:
dcmqi. Where one is absent its tests are skipped, except in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

JARS = [
    Path("/usr/share/java") / f"{name}.jar"
    for name in ("pixelmed", "vecmath", "commons-codec", "commons-net", "hsqldb")
]
# The Java of today refuses style sheets as large as the template rules unless told not to count.
JAVA = (
    "java", "-Xmx900m", "-Xss16m", "-XX:+UseSerialGC", "-Djdk.xml.xpathExprOpLimit=0", "-Djdk.xml.xpathExprGrpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0", "-Djdk.xml.entityExpansionLimit=0", "-cp", ":".join(map(str, JARS)),
)  # fmt: skip


def program(name: str, package: str) -> str:
    """Where a program is: on the path, or in the package of dcmqi."""
    found = shutil.which(name)
    if found is None and package == "dcmqi" and (spec := find_spec("dcmqi")) and spec.origin:
        found = shutil.which(name, path=str(Path(spec.origin).parent / "bin"))
    if found is None:
        absent(name, package)
    return str(found)


def absent(name: str, package: str) -> None:
    """Skip, or fail where it has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not there; CI needs {package}")
    pytest.skip(f"{name} is not there: install {package}")


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """All that a program says; some end with an error when they find one, some do not."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout + done.stderr


def errors_of_dciodvfy(path: Path) -> list[str]:
    said = run([program("dciodvfy", "dicom3tools"), "-new", path])
    return [line for line in said.splitlines() if line.startswith(("Error", "Abort"))]


def errors_of_dcentvfy(paths: Sequence[Path]) -> list[str]:
    said = run([program("dcentvfy", "dicom3tools"), *paths])
    return [line for line in said.splitlines() if line.startswith(("Error", "Abort"))]


def pixelmed(paths: Sequence[Path]) -> list[str]:
    """What the TID 1500 rules of PixelMed say of each report, warnings left out."""
    program("java", "default-jre-headless")
    if not JARS[0].is_file():
        absent("pixelmed.jar", "libpixelmed-java")
    said = []
    for path in paths:
        lines = run([*JAVA, "com.pixelmed.validate.DicomSRValidator", path]).splitlines()
        said += [line for line in lines if not line.startswith("Warning")]
    return said
