"""What STOW-RS answers: which instances are stored and which are not, in DICOM JSON or DICOM XML (PS3.18 10.5.3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from app.pacs.errors import FailureReason

JSON, XML = "application/dicom+json", "application/dicom+xml"
_NATIVE_MODEL = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_KEYWORDS = {
    "00081150": ("UI", "ReferencedSOPClassUID"),
    "00081155": ("UI", "ReferencedSOPInstanceUID"),
    "00081197": ("US", "FailureReason"),
    "00081198": ("SQ", "FailedSOPSequence"),
    "00081199": ("SQ", "ReferencedSOPSequence"),
    "0008119A": ("SQ", "OtherFailuresSequence"),
}
Item = dict[str, str | int]


@dataclass(frozen=True)
class Verdict:
    """On one part of the request."""

    sop_class_uid: str | None
    sop_uid: str | None
    failure: FailureReason | None
    """None: stored."""


def status_of(verdicts: Sequence[Verdict]) -> Literal[200, 202, 409]:
    """200 all stored, 202 some, 409 none."""
    failed = sum(verdict.failure is not None for verdict in verdicts)
    return 200 if not failed else 409 if failed == len(verdicts) else 202


def answer_body(verdicts: Sequence[Verdict], media_type: str) -> bytes:
    """The document that goes with the status."""
    sequences: dict[str, list[Item]] = {}
    for verdict in verdicts:
        tag = "00081199" if verdict.failure is None else "00081198" if verdict.sop_uid else "0008119A"
        sequences.setdefault(tag, []).append(_item(verdict))
    ordered = dict(sorted(sequences.items()))
    return _xml(ordered) if media_type == XML else json.dumps(_json(ordered)).encode()


def accepted_type(accept: str) -> str:
    """XML only for who asks for XML and not for JSON."""
    wanted = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    is_xml = any(each in (XML, "application/xml", "text/xml") for each in wanted)
    return XML if is_xml and JSON not in wanted and "application/json" not in wanted else JSON


def _item(verdict: Verdict) -> Item:
    item: Item = {}
    if verdict.sop_uid and verdict.sop_class_uid:
        item |= {"00081150": verdict.sop_class_uid, "00081155": verdict.sop_uid}
    if verdict.failure is not None:
        item["00081197"] = int(verdict.failure)
    return item


def _json(sequences: dict[str, list[Item]]) -> dict[str, object]:
    return {
        tag: {
            "vr": "SQ",
            "Value": [
                {key: {"vr": _KEYWORDS[key][0], "Value": [value]} for key, value in item.items()} for item in items
            ],
        }
        for tag, items in sequences.items()
    }


def _xml(sequences: dict[str, list[Item]]) -> bytes:
    root = ET.Element("NativeDicomModel", {"xmlns": _NATIVE_MODEL, "xml:space": "preserve"})
    for tag, items in sequences.items():
        sequence = _attribute(root, tag)
        for number, item in enumerate(items, start=1):
            written = ET.SubElement(sequence, "Item", {"number": str(number)})
            for key, value in item.items():
                ET.SubElement(_attribute(written, key), "Value", {"number": "1"}).text = str(value)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _attribute(parent: ET.Element, tag: str) -> ET.Element:
    vr, keyword = _KEYWORDS[tag]
    return ET.SubElement(parent, "DicomAttribute", {"tag": tag, "vr": vr, "keyword": keyword})
