"""Rows 49 to 53: hostile parameters and documents for routes that take no scan, or take it another way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom
import requests
from pydicom import Dataset

from tests.hostile.site import PATIENCE_S, Answer, Site, answer_of
from tests.hostile.worlds import CANARY, MIB, written

SCRIPT = "<script>alert(1)</script>&'\""
DEEP = "[" * 100_000 + "]" * 100_000
_INFER = "/v2/models/tiny-characteriser/infer"


def finished_job(site: Site) -> str:
    """A job that succeeded; made once."""
    if not site.finished:
        made = site.post("/v1/jobs", written(site.folder / "finished"))
        site.finished = str(json.loads(made.text)["id"])
        site.until(lambda: '"state":"succeeded"' in site.get(f"/v1/jobs/{site.finished}").text, "the job is done")
    return site.finished


def slab(site: Site, query: str) -> Answer:
    return site.get(f"/v1/jobs/{finished_job(site)}/volume/slab?{query}")


def slab_without_end(site: Site, _: Path) -> Answer:
    return slab(site, f"count={10**30}")


def slab_from_the_far_end(site: Site, _: Path) -> Answer:
    return slab(site, "first=99999&count=4096")


def slab_of_negative_size(site: Site, _: Path) -> Answer:
    return slab(site, "first=-1&count=-5&step=0")


def slab_of_no_number(site: Site, _: Path) -> Answer:
    return slab(site, "center=NaN&width=Infinity&mip_mm=nan")


def slab_of_a_name(site: Site, _: Path) -> Answer:
    return slab(site, f"plane={CANARY}&first={CANARY}")


def slab_of_another_job(site: Site, _: Path) -> Answer:
    return site.get("/v1/jobs/..%2f..%2fetc%2fpasswd/volume/slab")


def point_of_no_number(site: Site, _: Path) -> Answer:
    return site.get(f"/v1/jobs/{finished_job(site)}/volume/hu?lps=nan,inf,1e999")


def point_without_end(site: Site, _: Path) -> Answer:
    return site.get(f"/v1/jobs/{finished_job(site)}/volume/hu?lps=1e308,-1e308,1e308")


def review(site: Site, body: str | bytes) -> Answer:
    """As it is written, be it JSON or not; with no wish for an earlier revision."""
    return sent(site, "PUT", f"/v1/jobs/{finished_job(site)}/review", body, **{"If-None-Match": "*"})


def sent(site: Site, method: str, path: str, body: str | bytes | Iterable[bytes], **headers: str) -> Answer:
    told = {"Content-Type": "application/json", **headers}
    data = body.encode() if isinstance(body, str) else body
    return answer_of(requests.request(method, f"{site.url}{path}", data=data, headers=told, timeout=PATIENCE_S))


def review_of(**changes: Any) -> str:
    return json.dumps({"reviewer": "Reader^Anna", "decisions": [], "added": [], "finished": False, **changes})


def large_review(site: Site, _: Path) -> Answer:
    return review(site, review_of(reviewer="x" * 4 * MIB))


def review_with_a_long_note(site: Site, _: Path) -> Answer:
    note = {"nodule_id": CANARY, "decision": "accepted", "note": CANARY * 1000}
    return review(site, review_of(decisions=[note]))


def deep_review(site: Site, _: Path) -> Answer:
    return review(site, '{"reviewer": "a", "decisions": ' + DEEP + "}")


def review_of_ten_thousand(site: Site, _: Path) -> Answer:
    return review(site, review_of(added=[{"center_lps_mm": [0, 0, 0], "diameter_mm": 5}] * 10_000))


def review_of_no_number(site: Site, _: Path) -> Answer:
    return review(site, review_of(added=[{"center_lps_mm": [float("nan"), 0, 1e308], "diameter_mm": 5}]))


def review_by_a_line_break(site: Site, _: Path) -> Answer:
    return review(site, review_of(reviewer="a\r\nSet-Cookie: x=y"))


def review_of_wrong_types(site: Site, _: Path) -> Answer:
    return review(site, review_of(reviewer={CANARY: 1}, decisions=CANARY, finished=[]))


def review_that_is_a_program(site: Site, _: Path) -> Answer:
    """Text stays text: in the answer that is read back as JSON, and in the SR."""
    job, reviewer = finished_job(site), f"Reader^{SCRIPT.replace('=', '')}"[:64]
    head = site.get(f"/v1/jobs/{job}/review").headers
    tag = {name.lower(): value for name, value in head.items()}.get("etag")
    body = review_of(reviewer=reviewer, finished=True, added=[_added(site, job)])
    match = {"If-Match": tag} if tag else {"If-None-Match": "*"}
    kept = sent(site, "PUT", f"/v1/jobs/{job}/review", body, **match)
    if kept.status == 200:
        assert json.loads(kept.text)["reviewer"] == reviewer
        made = requests.get(f"{site.url}/v1/jobs/{job}/review/sr", timeout=PATIENCE_S)
        assert made.headers["content-type"] == "application/dicom", made.text[:300]
        assert made.headers["x-content-type-options"] == "nosniff"
        path = site.folder / "reviewed.dcm"
        path.write_bytes(made.content)
        told = pydicom.dcmread(path).to_json()
        assert json.dumps(SCRIPT)[1:-1] in told, "the note is another one in the SR"
    return kept


def _added(site: Site, job: str) -> dict[str, Any]:
    volume = json.loads(site.get(f"/v1/jobs/{job}/volume").text)
    origin = [row[3] for row in volume["affine_index_zyx_to_lps_mm"][:3]]
    return {"center_lps_mm": origin, "diameter_mm": 5.0, "note": SCRIPT}


def infer(site: Site, body: Any, **headers: str) -> Answer:
    return sent(site, "POST", _INFER, body if isinstance(body, (str, bytes)) else json.dumps(body), **headers)


def crops(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "crops", "shape": [1, 1, 2, 2], "datatype": "FP32", "data": [0.0] * 4, **changes}]}


def tensor_without_end(site: Site, _: Path) -> Answer:
    return infer(site, crops(shape=[10**9, 10**9]))


def tensor_of_negative_size(site: Site, _: Path) -> Answer:
    return infer(site, crops(shape=[-1, -4]))


def tensor_of_many_axes(site: Site, _: Path) -> Answer:
    return infer(site, crops(shape=[1] * 10_000))


def tensor_of_another_type(site: Site, _: Path) -> Answer:
    return infer(site, crops(datatype=f"BYTES{CANARY}"))


def tensor_of_words(site: Site, _: Path) -> Answer:
    return infer(site, crops(data=[CANARY] * 4))


def tensor_of_no_number(site: Site, _: Path) -> Answer:
    return infer(site, crops(data=[float("nan"), 1e308, float("inf"), 0]))


def tensor_of_long_numbers(site: Site, _: Path) -> Answer:
    return infer(site, json.dumps(crops()).replace("0.0", "9" * 5000, 1))


def deep_tensor(site: Site, _: Path) -> Answer:
    return infer(site, '{"inputs": ' + DEEP + "}")


def tensor_in_rows_of_any_length(site: Site, _: Path) -> Answer:
    return infer(site, crops(data=[[1, 2], [3]]))


def binary_header_beyond_the_body(site: Site, _: Path) -> Answer:
    return infer(site, crops(), **{"Inference-Header-Content-Length": "999999999"})


def binary_header_of_no_number(site: Site, _: Path) -> Answer:
    return infer(site, crops(), **{"Inference-Header-Content-Length": "-1"})


def binary_tensor_that_is_not_there(site: Site, _: Path) -> Answer:
    told = crops(shape=[1 << 40], parameters={"binary_data_size": 1 << 42})
    del told["inputs"][0]["data"]
    text = json.dumps(told)
    return infer(site, text, **{"Inference-Header-Content-Length": str(len(text))})


def network_of_nobody(site: Site, _: Path) -> Answer:
    return sent(site, "POST", "/v2/models/..%2f..%2fetc/infer", json.dumps(crops()))


def session_of_a_long_key(site: Site, _: Path) -> Answer:
    return sent(site, "POST", "/v1/session", json.dumps({"key": CANARY * 10_000}))


def session_of_wrong_types(site: Site, _: Path) -> Answer:
    return sent(site, "POST", "/v1/session", json.dumps({"key": [CANARY], "roles": ["operate"]}))


def large_session(site: Site, _: Path) -> Answer:
    return sent(site, "POST", "/v1/session", json.dumps({"key": CANARY * MIB}))


def deep_session(site: Site, _: Path) -> Answer:
    return sent(site, "POST", "/v1/session", '{"key": ' + DEEP + "}")


def session_where_there_is_none(site: Site, _: Path) -> Answer:
    return sent(site, "POST", "/v1/session", json.dumps({"key": CANARY}))


def stored(site: Site, parts: Iterable[bytes], path: str = "/dicom-web/studies") -> Answer:
    """STOW-RS to a rule that de-identifies."""
    whole = (
        b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    )
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    return sent(site, "POST", path, whole, **{"Content-Type": kind})


def stored_text(site: Site, _: Path) -> Answer:
    return stored(site, [CANARY.encode() * 1000])


def stored_half(site: Site, folder: Path) -> Answer:
    return stored(site, [path.read_bytes()[:500] for path in written(folder)[:2]])


def stored_with_text_in_the_pixels(site: Site, folder: Path) -> Answer:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.BurnedInAnnotation = "YES"

    return stored(site, [path.read_bytes() for path in written(folder, edit)[:2]])


def stored_under_another_study(site: Site, folder: Path) -> Answer:
    return stored(site, [path.read_bytes() for path in written(folder)[:2]], f"/dicom-web/studies/..%2f{CANARY}")


def stored_ten_thousand(site: Site, _: Path) -> Answer:
    return stored(site, [b"x"] * 10_000)


def stored_in_another_type(site: Site, _: Path) -> Answer:
    kind = 'multipart/related; type="application/json"; boundary=b'
    return sent(site, "POST", "/dicom-web/studies", b"--b--\r\n", **{"Content-Type": kind})
