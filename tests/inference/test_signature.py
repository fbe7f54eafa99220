"""Models that must be signed, with the real minisign."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.imaging.errors import ModelError
from app.inference.model_registry import StoreSource
from app.inference.network import SessionOptions
from app.inference.signature import parse_public_key, require_signature
from app.settings import Settings
from tests.tiny_model import write_tiny_model


@dataclass(frozen=True)
class Signer:
    """Someone with a key pair."""

    folder: Path

    @property
    def public(self) -> str:
        return (self.folder / "key.pub").read_text().splitlines()[1]

    def sign(self, file: Path, *options: str) -> None:
        minisign("-S", "-s", str(self.folder / "key"), "-m", str(file), *options)


def minisign(*arguments: str) -> None:
    subprocess.run(["minisign", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def signer(tmp_path: Path) -> Callable[[str], Signer]:
    if shutil.which("minisign") is None:
        reason = "minisign is not here: apt-get install minisign"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)

    def made(name: str) -> Signer:
        folder = tmp_path / name
        folder.mkdir()
        minisign("-G", "-W", "-p", str(folder / "key.pub"), "-s", str(folder / "key"))
        return Signer(folder)

    return made


def source(store: Path, *public: str) -> StoreSource:
    return StoreSource(store, SessionOptions(device="cpu", threads=1), "fp32", tuple(map(parse_public_key, public)))


def refused(source: StoreSource) -> str:
    (folder,) = source.folders()
    with pytest.raises(ModelError) as of_description:
        source.describe(folder)
    with pytest.raises(ModelError) as of_loading:
        source.load(folder)
    assert of_description.value.code == of_loading.value.code
    return of_loading.value.code


def test_a_model_that_was_signed_is_loaded_and_no_other(signer: Callable[[str], Signer], tmp_path: Path) -> None:
    ours, others, store = signer("ours"), signer("others"), tmp_path / "store"
    manifest = write_tiny_model(store) / "manifest.json"
    trusting = source(store, ours.public)
    assert refused(trusting) == "signature_missing"

    others.sign(manifest)
    assert refused(trusting) == "signature_untrusted"

    ours.sign(manifest, "-t", "released")
    (folder,) = trusting.folders()
    assert trusting.load(folder).identity == trusting.describe(folder).identity
    assert source(store, others.public, ours.public).describe(folder)

    manifest.write_text(manifest.read_text() + "\n")
    assert refused(trusting) == "signature_invalid"
    assert source(store).describe(folder)  # where no key is named, none is asked for


@pytest.mark.parametrize("line", [1, 2, 3])
def test_no_line_of_a_signature_can_be_changed(signer: Callable[[str], Signer], tmp_path: Path, line: int) -> None:
    ours = signer("ours")
    file = tmp_path / "manifest.json"
    file.write_text("{}")
    ours.sign(file, "-t", "released")
    key = parse_public_key(ours.public)
    assert require_signature(file, [key])

    path = tmp_path / "manifest.json.minisig"
    lines = path.read_text().splitlines()
    at = 40
    lines[line] = (
        lines[line] + "!" if line == 2 else lines[line][:at] + "AB"[lines[line][at] == "A"] + lines[line][at + 1 :]
    )
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ModelError) as caught:
        require_signature(file, [key])
    assert caught.value.code == "signature_invalid"


@pytest.mark.parametrize("text", ["", "one line", "a\nb\nc\nd", "a\nb\nc\nd\ne", "\xff"])
def test_what_is_no_signature_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_text("{}")
    (tmp_path / "manifest.json.minisig").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError) as caught:
        require_signature(file, [])
    assert caught.value.code in {"signature_invalid", "signature_missing"}


@pytest.mark.parametrize("key", ["", "RWQ", "not base64!", "RW" + "A" * 40])
def test_what_is_no_key_ends_the_start(key: str) -> None:
    if key == "":
        assert Settings(model_keys=key).model_keys == ()
        return
    with pytest.raises(ValueError, match="minisign"):
        Settings(model_keys=key)
