"""What was sent, as a flat list of byte ranges on disk, whatever it was packed in.

A `ScanFile` is a whole file, a stored member inside a zip archive, or a deflated member that was inflated into
the scratch folder. Everything downstream reads byte ranges and never learns the difference.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class InputFile:
    """A file on the server's disk, and the name its sender gave it.

    Parameters
    ----------
    path
        Where it lies.
    name
        The sender's name, used only to find the `.raw` of a `.mhd` and to tell formats apart that the content does
        not tell. None: the name on disk. Never used as a path, never repeated in a message.
    """

    path: Path
    name: str | None = None

    @property
    def plain_name(self) -> str:
        """Last component of the name, whichever separator the sender's system uses."""
        return PurePosixPath((self.name or self.path.name).replace("\\", "/")).name


Source = Path | str | InputFile
"""A file or folder on disk."""


@dataclass(frozen=True)
class ScanFile:
    """A byte range that holds one file of the upload."""

    index: int
    """0-based, in the order received: how messages name the file."""
    name: str
    """The sender's plain file name; data, not a path."""
    path: Path
    offset: int
    size: int

    def open(self) -> ByteRange:
        """Open for reading; the range looks like a file of its own."""
        return ByteRange(self.path, self.offset, self.size)

    def head(self, count: int) -> bytes:
        """First ``count`` bytes, or fewer if the file is shorter."""
        with self.open() as stream:
            return stream.read(count)


class ByteRange:
    """A read-only binary file that is a range of another one; never reads or allocates beyond its end."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file: io.BufferedReader = path.open("rb")
        self._offset = offset
        self._size = size
        self._file.seek(offset)

    def __enter__(self) -> ByteRange:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def close(self) -> None:
        """Close the file underneath."""
        self._file.close()

    def read(self, count: int = -1, /) -> bytes:
        """Up to ``count`` bytes, all that is left when negative."""
        left = max(0, self._offset + self._size - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        """Move within the range."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        if base + position < 0:
            raise OSError("seek before the start of the file")
        return self._file.seek(self._offset + base + position) - self._offset

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position relative to the start of the range."""
        return self._file.tell() - self._offset


def listed_files(source: Source | Sequence[Source]) -> list[InputFile]:
    """Regular files of a file, a folder (recursively, in name order) or a list of both.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    """
    sources = [source] if isinstance(source, (Path, str, InputFile)) else list(source)
    files: list[InputFile] = []
    for item in sources:
        file = item if isinstance(item, InputFile) else InputFile(Path(item))
        if file.path.is_dir():
            files.extend(_files_below(file.path))
        elif file.path.is_file():
            files.append(file)
        else:
            raise FileNotFoundError(f"no such file or folder: {file.path}")
    return files


def _files_below(folder: Path) -> list[InputFile]:
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        found += [Path(parent, name) for name in sorted(names)]
    return [InputFile(path) for path in found if path.is_file()]
