"""Put frames into a DICOM dataset in the transfer syntax asked for; every encoder here is lossless."""

from __future__ import annotations

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

NATIVE_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
ENCAPSULATED_SYNTAXES = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
TRANSFER_SYNTAXES = NATIVE_SYNTAXES + ENCAPSULATED_SYNTAXES
"""Everything `set_pixel_data` can write."""

_ENCODING_PLUGIN = {RLELossless: "pylibjpeg", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}


def set_pixel_data(dataset: Dataset, frames: NDArray[np.int16] | NDArray[np.uint16], transfer_syntax_uid: UID) -> None:
    """Set PixelData and the Image Pixel attributes.

    Parameters
    ----------
    dataset
        Has its file meta already; changed in place.
    frames
        (n, rows, columns), one for each frame; int16 or uint16 decides PixelRepresentation.
    transfer_syntax_uid
        One of `TRANSFER_SYNTAXES`.

    Raises
    ------
    ValueError
        If the transfer syntax is another, or the frames are too small for its encoder.
    """
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        raise ValueError(f"cannot write transfer syntax {transfer_syntax_uid}; one of {', '.join(TRANSFER_SYNTAXES)}")
    if transfer_syntax_uid == JPEG2000Lossless and min(frames.shape[1:]) < 32:
        raise ValueError(f"the JPEG 2000 encoder needs 32 rows and columns, got {frames.shape[1:]}")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1 if frames.dtype == np.int16 else 0
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    if transfer_syntax_uid in NATIVE_SYNTAXES:
        big = transfer_syntax_uid == ExplicitVRBigEndian
        dataset.PixelData = frames.astype(frames.dtype.newbyteorder("big" if big else "little")).tobytes()
        dataset["PixelData"].VR = "OW"
    elif transfer_syntax_uid in _ENCODING_PLUGIN:
        # compress() wants to see an uncompressed dataset, which is what it has in hand when it starts.
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(
            transfer_syntax_uid,
            frames[0] if len(frames) == 1 else frames,
            encoding_plugin=_ENCODING_PLUGIN[transfer_syntax_uid],
            generate_instance_uid=False,
        )
    else:
        dataset.PixelData = encapsulate([_jpeg_lossless(frame, transfer_syntax_uid) for frame in frames])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True


def _jpeg_lossless(frame: NDArray[np.int16] | NDArray[np.uint16], transfer_syntax_uid: UID) -> bytes:
    """One frame as a JPEG lossless bit stream of even length."""
    writer = gdcm.ImageWriter()
    # Owned by the writer: gdcm aborts when an image made in Python is shared with a filter.
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.shape[1], frame.shape[0], 1))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 16, 15, 1 if frame.dtype == np.int16 else 0))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(frame.astype(frame.dtype.newbyteorder("<")).tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(transfer_syntax_uid))))
    change.SetInput(image)
    if not change.Change():
        raise ValueError(f"gdcm could not encode a frame of {frame.shape} in transfer syntax {transfer_syntax_uid}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    # The binding hands bytes out as text, made with surrogateescape.
    return bytes(fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape"))
