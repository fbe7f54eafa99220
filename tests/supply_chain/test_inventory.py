"""What the service is made of: every package locked with hashes, above known faults, under a licence that fits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
SERVICE = ROOT / "requirements/service.lock"
FLOORS = re.compile(r"^\| `(?P<package>[a-z0-9-]+)` \| (?P<least>[0-9.]+) \|", re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    requirement: Requirement
    hashes: int

    @property
    def version(self) -> Version:
        return Version(str(self.requirement.specifier).removeprefix("=="))


def pins(lock: Path) -> list[Pin]:
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock.read_text(encoding="utf-8"))
    return [Pin(Requirement(entry.splitlines()[0].rstrip("\\ ")), entry.count("--hash=sha256:")) for entry in entries]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_one_version_with_its_hashes(lock: Path) -> None:
    found = pins(lock)
    assert len(found) > 50
    assert [str(pin.requirement) for pin in found if str(pin.requirement.specifier)[:2] != "==" or not pin.hashes] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_package_is_older_than_the_fix_of_a_known_fault(lock: Path) -> None:
    least = {m["package"]: Version(m["least"]) for m in FLOORS.finditer((ROOT / "docs/security.md").read_text())}
    assert {"pydicom", "python-multipart", "starlette"} <= set(least)
    old = [pin.requirement for pin in pins(lock) if pin.version < least.get(pin.requirement.name, Version("0"))]
    assert list(map(str, old)) == []


def test_the_list_of_parts_and_their_licences(tmp_path: Path) -> None:
    tools = Path(sys.executable).parent
    environment = os.environ | {"SBOM_PYTHON": sys.executable, "SBOM_OUTPUT": str(tmp_path), "TOOLS": str(tools)}
    subprocess.run([ROOT / "deploy/sbom.sh"], env=environment, check=True, capture_output=True, text=True)

    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "lungnodule")
    listed = {(part["name"].lower().replace("_", "-"), part["version"]) for part in bill["components"]}
    wanted = [pin for pin in pins(SERVICE) if pin.requirement.marker is None or pin.requirement.marker.evaluate()]
    assert [pin.requirement.name for pin in wanted if (pin.requirement.name, str(pin.version)) not in listed] == []

    licences = (tmp_path / "licences.md").read_text().splitlines()[2:]
    assert len(licences) == len(wanted)
    told = [row.split("|")[3].strip() for row in licences]
    assert [licence for licence in told if licence == "UNKNOWN" or re.search(r"\bA?GPL", licence)] == []


def test_what_the_security_page_names_is_there() -> None:
    text = (ROOT / "docs/security.md").read_text()
    named = re.findall(r"`(tests/[a-z_/.0-9]+)`", text) + re.findall(r"\]\((?!https?://|#)([^)#]+)\)", text)
    assert len(named) > 20
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "docs" / name).exists()]
    assert missing == []
