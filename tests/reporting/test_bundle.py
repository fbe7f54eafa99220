from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.imaging.volume import Grid, SliceIdentity
from app.inference.findings import Location, NoduleMask
from app.reporting.bundle import Bundle, document_of, encoded, pack, unpack
from app.reporting.errors import ResultUnavailable
from tests.api.standins import make_findings, make_nodule

MADE_AT = datetime(2026, 3, 4, 5, 6, 7, 89, UTC)


def stored(findings, document=b'{"a": 1}'):
    return pack(Bundle(document, findings, MADE_AT))


@given(
    voxels=arrays.arrays(np.bool_, arrays.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    spacing=st.floats(1e-3, 1e3),
    probability=st.floats(0, 1),
)
@settings(max_examples=30)
def test_findings_come_back_equal_to_the_last_bit(voxels, spacing, probability):
    mask = NoduleMask(voxels, Grid.from_spacing(voxels.shape, (spacing, 0.7, 0.7), (1 / 3, -2.0, 0.1)))
    nodule = dataclasses.replace(
        make_nodule(1, probability), mask=mask, location=Location(lobe="upper", is_juxtapleural=False),
        volume_interval_mm3=(100.0, 1 / 3), signs=("fat",),
    )  # fmt: skip
    findings = make_findings(nodule, make_nodule(2, 0.5))
    identity = dataclasses.replace(findings.identity, slices=(SliceIdentity("1.2", 7, None),))
    findings = dataclasses.replace(findings, identity=identity, precision={"detector": "fp32"})
    back = unpack(stored(findings))
    assert (back.document, back.made_at) == (b'{"a": 1}', MADE_AT)
    outlined = back.findings.nodules[0]
    np.testing.assert_array_equal(outlined.mask.voxels, voxels)
    np.testing.assert_array_equal(outlined.mask.grid.affine, mask.grid.affine)
    assert outlined.mask.voxels.dtype == np.bool_
    # Arrays have no equality of their own; all else is compared as it is, tuples and all.
    assert without_arrays(back.findings) == without_arrays(findings)


def without_arrays(findings):
    nodules = tuple(dataclasses.replace(nodule, mask=None) for nodule in findings.nodules)
    return dataclasses.replace(findings, nodules=nodules, grid=encoded(findings.grid))


def test_the_same_bundle_is_the_same_bytes():
    assert stored(make_findings(make_nodule(1, 0.9))) == stored(make_findings(make_nodule(1, 0.9)))


def test_the_document_of_what_was_stored_before_bundles():
    assert document_of(b'{"nodules": []}') == b'{"nodules": []}'
    assert document_of(stored(make_findings(), b'{"nodules": [1]}')) == b'{"nodules": [1]}'
    with pytest.raises(ResultUnavailable) as refused:
        unpack(b'{"nodules": []}')
    assert refused.value.code == "no_outlines"


def changed(body, change):
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        kept = json.loads(archive.read("findings.json"))
    change(kept)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("result.json", b"{}")
        archive.writestr("findings.json", json.dumps(kept))
    return out.getvalue()


def test_a_field_that_an_older_version_did_not_write_takes_its_default():
    body = changed(stored(make_findings(make_nodule(1, 0.9))), lambda kept: kept["findings"]["nodules"][0].pop("signs"))
    assert unpack(body).findings.nodules[0].signs == ()


def test_a_later_version_is_refused():
    with pytest.raises(ResultUnavailable) as refused:
        unpack(changed(stored(make_findings()), lambda kept: kept.update(version=2)))
    assert refused.value.values == {"stored_version": 2, "version": 1}


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_bundle_is_told_apart_from_a_fault_of_ours(at: float) -> None:
    """Found by fuzzing: nine kinds of exceptions."""
    data = bytearray(pack(Bundle(b"{}", make_findings(make_nodule(1, 0.9)), datetime(2026, 1, 1, tzinfo=UTC))))
    place = int(at * len(data))
    data[place : place + 40] = b"\xff" * 40
    with pytest.raises(ResultUnavailable) as caught:
        unpack(bytes(data))
    assert caught.value.code in ("stored_answer_damaged", "no_outlines")
