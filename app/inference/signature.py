"""Whether a model's manifest was signed by someone this installation trusts; `minisign` signs, this only checks.

    minisign -G                                     # once: a key pair; the public key goes into LUNGNODULE_MODEL_KEYS
    minisign -Sm model_store/NAME/VERSION/manifest.json

The manifest holds the sha256 of every network, so its signature covers the whole model. The format is minisign's own
(https://jedisct1.github.io/minisign/): Ed25519 over the BLAKE2b-512 of the file, and a second signature that binds the
trusted comment to the first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.imaging.errors import ModelError

SUFFIX = ".minisig"

_KEY_BYTES = 2 + 8 + 32
_SIGNATURE_BYTES = 2 + 8 + 64
_PREHASHED = b"ED"


@dataclass(frozen=True)
class PublicKey:
    """Someone who may sign models."""

    id: bytes
    """8 bytes that a signature names its key by."""
    ed25519: bytes
    """32 bytes."""


def parse_public_key(text: str) -> PublicKey:
    """The second line of minisign's ``.pub`` file.

    Raises
    ------
    ValueError
        It is none.
    """
    raw = _decoded(text)
    if raw is None or len(raw) != _KEY_BYTES or raw[:2] != b"Ed":
        raise ValueError("must be a public key of minisign: the line of its .pub file that begins with RW")
    return PublicKey(raw[2:10], raw[10:])


def require_signature(manifest: Path, keys: Sequence[PublicKey]) -> str:
    """The sha256 of a manifest that carries a signature by one of the keys, next to it in ``manifest.json.minisig``.

    Raises
    ------
    ModelError
        ``signature_missing``, ``signature_invalid`` or ``signature_untrusted`` (by a key that is not among these).
    """
    path = manifest.with_name(manifest.name + SUFFIX)
    try:
        content, lines = manifest.read_bytes(), path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{manifest} carries no signature that can be read ({path.name}), and LUNGNODULE_MODEL_KEYS asks for one. "
            "Sign it with minisign -Sm, or fetch the model from who signed it.",
            code="signature_missing",
            values={"file": str(path)},
        ) from error
    signature = _decoded(lines[1]) if len(lines) == 4 else None
    bound = _decoded(lines[3]) if len(lines) == 4 else None
    if signature is None or bound is None or len(signature) != _SIGNATURE_BYTES or signature[:2] != _PREHASHED:
        raise _invalid(path, "it is no signature of minisign (made by version 0.8 or newer)")
    key = next((key for key in keys if key.id == signature[2:10]), None)
    if key is None:
        raise ModelError(
            f"{path} is by a key that LUNGNODULE_MODEL_KEYS does not hold.",
            code="signature_untrusted",
            values={"file": str(path), "key_id": signature[2:10][::-1].hex().upper()},
        )
    comment = lines[2].removeprefix("trusted comment: ").encode()
    prehashed = hashlib.blake2b(content, digest_size=64).digest()
    if not _fits(key, signature[10:], prehashed) or not _fits(key, bound, signature[10:] + comment):
        raise _invalid(path, "it was made for another file, or changed")
    return hashlib.sha256(content).hexdigest()


def _invalid(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} does not hold: {reason}. Fetch the model folder again.",
        code="signature_invalid",
        values={"file": str(path)},
    )


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


def _fits(key: PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only where models must be signed
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(key.ed25519).verify(signature, message)
    except InvalidSignature:
        return False
    return True
