"""Nothing of the patient is left in a de-identified file, whatever was in it; geometry and pixels are as they were."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from app.imaging.confidentiality_profile import BASIC_PROFILE, Action
from app.imaging.deidentification import Retained, deidentify
from app.imaging.deidentified_upload import deidentified_upload
from app.imaging.errors import NotDeidentified, ScanError
from app.imaging.identity import Identity, merged
from app.imaging.inputs import InputFile, ScanFile
from app.imaging.pseudonyms import KEY_FILE, Pseudonyms, pseudonyms_in
from app.imaging.read_options import ReadLimits
from app.imaging.reading import read_ct
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from tests.pacs.pacs_worlds import write_series
from tests.reporting.validators import errors_of_dciodvfy

PSEUDONYMS = Pseudonyms(b"k" * 32)
CANARY = "KANARIE"
PLANTED: dict[str, object] = {
    "AE": f"{CANARY}AE", "AS": "077Y", "CS": "KANARIECS", "DA": "19470213", "DS": "77.4711", "DT": "19470213124711",
    "IS": "774711", "LO": f"{CANARY}^LO", "LT": f"{CANARY} LT", "PN": f"{CANARY}^PN", "SH": f"{CANARY}SH",
    "ST": f"{CANARY} ST", "TM": "124711.4711", "UC": f"{CANARY} UC", "UI": "1.2.774711.774711", "UR": f"http://{CANARY}",
    "UT": f"{CANARY} UT", "OB": b"KANARIE OB", "OW": b"KANARIE OWW!", "UN": b"KANARIE UN",
}  # fmt: skip
TRACES = (b"KANARIE", b"77.4711", b"774711", b"19470213", b"124711", b"077Y")
TECHNICAL = {keyword for keyword, action in BASIC_PROFILE.items() if action is Action.KEEP}
EVERY_ATTRIBUTE = [
    tag
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
    if vr in PLANTED and keyword and keyword not in TECHNICAL and tag >> 16 not in (0, 2, 4) and tag < 0x7FE00000
    # What says how the rest is encoded or whether pixels show text is not planted: that file would not be read.
    and keyword not in ("SpecificCharacterSet", "BurnedInAnnotation", "LengthToEnd")
]  # fmt: skip


def plant(dataset: Dataset) -> None:
    """A canary in every attribute there is that is not of the scanner's technique."""
    for tag in EVERY_ATTRIBUTE:
        dataset.add_new(tag, dictionary_VR(tag), PLANTED[dictionary_VR(tag)])
    private = dataset.private_block(0x0029, "KANARIE BLOCK", create=True)
    private.add_new(0x10, "LO", f"{CANARY} private")
    private.add_new(0x11, "UN", b"KANARIE private")


def planted(folder: Path, **said: object) -> tuple[list[Path], list[bytes]]:
    """A series full of canaries; its files, and the pixels of each."""

    def edit(dataset: Dataset, _number: int) -> None:
        uids = {k: dataset[k].value for k in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
        plant(dataset)
        for keyword, uid in uids.items():
            setattr(dataset, keyword, uid)
        nested, deeper = Dataset(), Dataset()
        plant(deeper)
        plant(nested)
        nested.RequestAttributesSequence = Sequence([deeper])
        dataset.ReferencedStudySequence = Sequence([nested])
        dataset.RequestAttributesSequence = Sequence([nested])
        dataset.PixelMeasuresSequence = Sequence([nested])  # one that is kept
        dataset.AnatomicRegionSequence = Sequence([nested])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = write_series(folder, edit=edit, **said)  # type: ignore[arg-type]
    for path in paths:
        raw = bytearray(path.read_bytes())
        raw[:7] = b"KANARIE"  # in the preamble
        path.write_bytes(bytes(raw) + bytes.fromhex("fcfffcff4f420000 08000000") + b"KANARIE ")  # and behind the pixels
    return paths, [pydicom.dcmread(path).PixelData for path in paths]


def cleaned(path: Path, target: Path, retained: Retained | None = None) -> Identity:
    file = ScanFile(0, path.name, path, 0, path.stat().st_size)
    return deidentify(file, target, target.parent, ReadLimits(), PSEUDONYMS, retained or Retained())


def test_no_canary_is_left_and_pixels_are_as_they_were(tmp_path: Path) -> None:
    paths, pixels = planted(tmp_path / "ct", slices=2)
    assert len(EVERY_ATTRIBUTE) > 2500
    for number, path in enumerate(paths):
        assert all(trace in path.read_bytes() for trace in TRACES)
        target = tmp_path / f"{number}"
        cleaned(path, target)
        kept = target.read_bytes()
        assert [trace for trace in TRACES if trace in kept] == []
        assert kept[:128] == bytes(128)
        assert pydicom.dcmread(target).PixelData == pixels[number]


def test_nor_with_the_options_beyond_what_they_keep(tmp_path: Path) -> None:
    paths, _ = planted(tmp_path / "ct", slices=1)
    cleaned(paths[0], tmp_path / "kept", Retained(modified_dates=True, patient_characteristics=True))
    kept = (tmp_path / "kept").read_bytes()
    assert [trace for trace in TRACES if trace in kept] == [b"77.4711", b"124711", b"077Y"]  # size, times, age
    told = pydicom.dcmread(tmp_path / "kept")
    assert (told.PatientAge, told.PatientSize, told.LongitudinalTemporalInformationModified) == (
        "077Y",
        77.4711,
        "MODIFIED",
    )
    assert [code.CodeValue for code in told.DeidentificationMethodCodeSequence] == ["113100", "113107", "113108"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_survives_wherever_it_is_put(data: st.DataObject, tmp_path: Path) -> None:
    """Any text, in any attribute with a text VR, also in those that are kept, at any depth."""
    text = data.draw(
        st.text(st.characters(min_codepoint=0x61, max_codepoint=0x7A), min_size=5, max_size=12), label="text"
    )
    tag = data.draw(st.sampled_from(sorted(tag for tag, entry in DicomDictionary.items() if entry[0] in PLANTED)))
    if tag < 0x00080010 or tag >= 0x7FE00000 or keyword_for_tag(tag) == "ConvolutionKernel":
        return
    path = write_series(tmp_path / "ct", slices=1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        place = dataset
        for keyword in data.draw(
            st.lists(st.sampled_from(["PixelMeasuresSequence", "RequestAttributesSequence"]), max_size=3)
        ):
            item = Dataset()
            setattr(place, keyword, Sequence([item]))
            place = item
        vr = dictionary_VR(tag)
        place.add_new(tag, "LT" if vr in ("PN", "UI", "OB", "OW", "UN") else vr, "1" if vr in ("DS", "IS") else text)
        dataset.save_as(path)
    (tmp_path / "kept").unlink(missing_ok=True)
    try:
        cleaned(path, tmp_path / "kept")
    except ScanError:
        return  # refused: also nothing is kept
    assert text.encode() not in (tmp_path / "kept").read_bytes()


def test_geometry_and_hounsfield_units_are_as_they_were(tmp_path: Path) -> None:
    paths = write_dicom_series(phantom_ct().volume, tmp_path / "ct")
    (tmp_path / "kept").mkdir()
    for path in paths:
        cleaned(path, tmp_path / "kept" / path.name)
    before, _ = read_ct(tmp_path / "ct")
    after, _ = read_ct(tmp_path / "kept")
    assert np.array_equal(before.hu, after.hu)
    assert np.array_equal(before.grid.affine, after.grid.affine)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_in_every_encoding(tmp_path: Path, syntax: str) -> None:
    path = write_series(tmp_path / "ct", slices=1)[0]
    dataset = pydicom.dcmread(path)
    before = dataset.pixel_array
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = before.astype(">i2").tobytes()
    again = Dataset()
    again.update(dataset)
    again.file_meta = dataset.file_meta
    pydicom.dcmwrite(path, again, enforce_file_format=True)
    cleaned(path, tmp_path / "kept")
    after = pydicom.dcmread(tmp_path / "kept")
    assert np.array_equal(after.pixel_array, before)
    assert after.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames_are_copied_whole(tmp_path: Path, syntax: str) -> None:
    path = write_series(tmp_path / "ct", slices=1)[0]
    dataset = pydicom.dcmread(path)
    before = dataset.pixel_array.copy()
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    compressed = dataset.PixelData
    cleaned(path, tmp_path / "kept")
    after = pydicom.dcmread(tmp_path / "kept")
    assert after.PixelData == compressed
    assert np.array_equal(after.pixel_array, before)


def test_uids_are_replaced_alike_in_all_instances_and_come_back(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    originals = [pydicom.dcmread(path) for path in paths]
    identity = merged([cleaned(path, tmp_path / path.name) for path in paths])
    kept = [pydicom.dcmread(tmp_path / path.name) for path in paths]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        (replaced,) = {one[keyword].value for one in kept}
        assert replaced.startswith("2.25.")
        assert identity.uid(replaced) == originals[0][keyword].value
    assert [identity.uid(one.SOPInstanceUID) for one in kept] == [one.SOPInstanceUID for one in originals]
    assert all(one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID for one in kept)
    again = Identity.from_bytes(identity.to_bytes()).restored(kept[0])
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert again.get(keyword) == originals[0].get(keyword), keyword
    assert "DeidentificationMethod" not in again


def test_another_key_gives_other_uids_and_the_key_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, again, other = (pseudonyms_in(tmp_path / name).uid("1.2.3") for name in ("a", "a", "b"))
    assert first == again != other
    assert (tmp_path / "a" / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert repr(pseudonyms_in(tmp_path / "a")) == "Pseudonyms()"
    assert PSEUDONYMS.uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"


def test_intervals_between_scans_of_a_patient_stay(tmp_path: Path) -> None:
    days = []
    for date in ("20200101", "20200409"):
        path = write_series(tmp_path / date, slices=1, edit=lambda d, _n, date=date: setattr(d, "StudyDate", date))[0]
        cleaned(path, tmp_path / f"{date}.dcm", Retained(modified_dates=True))
        told = pydicom.dcmread(tmp_path / f"{date}.dcm").StudyDate
        assert told != date
        days.append(np.datetime64(f"{told[:4]}-{told[4:6]}-{told[6:]}"))
    assert (days[1] - days[0]).astype(int) == 99


@pytest.mark.parametrize("told", ["YES", "PERHAPS"])
def test_burned_in_text_is_refused(tmp_path: Path, told: str) -> None:
    path = write_series(tmp_path / "ct", slices=1, edit=lambda d, _n: setattr(d, "BurnedInAnnotation", told))[0]
    with pytest.raises(NotDeidentified) as refusal:
        cleaned(path, tmp_path / "kept")
    assert refusal.value.code == "burned_in_annotation"
    assert not (tmp_path / "kept").exists()


def test_what_hides_behind_the_frames_is_refused(tmp_path: Path) -> None:
    def longer(dataset: Dataset, _number: int) -> None:
        dataset.PixelData += b"KANARIE!"

    path = write_series(tmp_path / "ct", slices=1)[0]
    dataset = pydicom.dcmread(path)
    longer(dataset, 0)
    dataset.save_as(path)
    with pytest.raises(NotDeidentified) as refusal:
        cleaned(path, tmp_path / "kept")
    assert refusal.value.code == "surplus_pixels"


def series(folder: Path) -> list[Path]:
    return write_series(folder, slices=2)


def enhanced(folder: Path) -> list[Path]:
    return write_dicom_series(phantom_ct().volume, folder, enhanced=True, patient=PhantomPatient(name="KANARIE^ONE"))


@pytest.mark.parametrize("make", [series, enhanced])
@pytest.mark.parametrize("retained", [Retained(), Retained(modified_dates=True, patient_characteristics=True)])
def test_what_is_kept_is_a_valid_image(tmp_path: Path, make: Callable[[Path], list[Path]], retained: Retained) -> None:
    path = make(tmp_path / "ct")[0]
    before = set(errors_of_dciodvfy(path))
    cleaned(path, tmp_path / "kept.dcm", retained)
    assert set(errors_of_dciodvfy(tmp_path / "kept.dcm")) - before == set()


def test_real_headers_keep_their_geometry(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    files, identity = deidentified_upload(
        [InputFile(shared_data / "ct/LIDC-IDRI-0001.zip")],
        tmp_path / "kept",
        tmp_path,
        ReadLimits(),
        (PSEUDONYMS, Retained()),
    )
    before, _ = read_ct(shared_data / "ct/LIDC-IDRI-0001.zip")
    after, _ = read_ct(list(files))
    assert np.array_equal(before.hu, after.hu)
    assert np.allclose(before.grid.affine, after.grid.affine, atol=0, rtol=0)
    assert before.identity is not None
    assert after.identity is not None
    assert identity.uid(after.identity.series_instance_uid) == before.identity.series_instance_uid


def test_what_is_no_dicom_is_refused_and_what_is_no_ct_left_out(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "scan.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    how = PSEUDONYMS, Retained()
    with pytest.raises(NotDeidentified) as refusal:
        deidentified_upload([InputFile(tmp_path / "scan.nrrd")], tmp_path / "kept", tmp_path, ReadLimits(), how)
    assert refusal.value.code == "needs_dicom"
    ct = write_series(tmp_path / "ct", slices=1)[0]
    other = pydicom.dcmread(ct)
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    other.save_as(tmp_path / "other.dcm")
    sent = [InputFile(tmp_path / "other.dcm", "Doe^John.dcm"), InputFile(ct, "Doe^John.dcm")]
    files, _ = deidentified_upload(sent, tmp_path / "kept", tmp_path, ReadLimits(), how)
    assert [file.name for file in files] == ["000000.dcm"]
    with pytest.raises(NotDeidentified) as refusal:
        deidentified_upload(sent[:1], tmp_path / "kept", tmp_path, ReadLimits(), how)
    assert refusal.value.code == "nothing_left"
