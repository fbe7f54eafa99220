"""The DICOM transfer syntaxes that are read, and what decodes each (PS3.6 A)."""

from __future__ import annotations

from dataclasses import dataclass

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class TransferSyntax:
    """One way to encode a dataset and its pixels."""

    uid: str
    name: str
    decoder: str | None = None
    """pydicom decoding plugin for the pixels; None when they are not compressed."""
    lossy: bool = False

    @property
    def implicit_vr(self) -> bool:
        """Whether elements carry no value representation."""
        return self.uid == IMPLICIT_LITTLE

    @property
    def little_endian(self) -> bool:
        """Byte order of the dataset and of uncompressed pixels."""
        return self.uid != EXPLICIT_BIG

    @property
    def compressed(self) -> bool:
        """Whether pixels are encapsulated frame by frame."""
        return self.decoder is not None


# pylibjpeg stands for openjpeg and its RLE decoder here; its libjpeg plugin is GPL and never used.
TRANSFER_SYNTAXES = {
    syntax.uid: syntax
    for syntax in (
        TransferSyntax(IMPLICIT_LITTLE, "Implicit VR Little Endian"),
        TransferSyntax(EXPLICIT_LITTLE, "Explicit VR Little Endian"),
        TransferSyntax(DEFLATED_LITTLE, "Deflated Explicit VR Little Endian"),
        TransferSyntax(EXPLICIT_BIG, "Explicit VR Big Endian"),
        TransferSyntax("1.2.840.10008.1.2.5", "RLE Lossless", "pylibjpeg"),
        TransferSyntax("1.2.840.10008.1.2.4.57", "JPEG Lossless", "gdcm"),
        TransferSyntax("1.2.840.10008.1.2.4.70", "JPEG Lossless SV1", "gdcm"),
        TransferSyntax("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", "pyjpegls"),
        TransferSyntax("1.2.840.10008.1.2.4.81", "JPEG-LS Near-Lossless", "pyjpegls", lossy=True),
        TransferSyntax("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless", "pylibjpeg"),
        TransferSyntax("1.2.840.10008.1.2.4.91", "JPEG 2000", "pylibjpeg", lossy=True),
        TransferSyntax("1.2.840.10008.1.2.4.201", "HTJ2K Lossless", "pylibjpeg"),
        TransferSyntax("1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL", "pylibjpeg"),
        TransferSyntax("1.2.840.10008.1.2.4.203", "HTJ2K", "pylibjpeg", lossy=True),
    )
}
