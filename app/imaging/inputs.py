"""What was sent, as a flat list of byte ranges on disk, whatever it was packed in.

A `ScanFile` is a whole file, a stored member inside a zip archive, or a deflated member that was inflated into
the scratch folder. Everything downstream reads byte ranges and never learns the difference.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class InputFile:
    """A file on the server's disk, and the name its sender gave it.

    Parameters
    ----------
    path
        Where it lies.
    name
        The sender's name, used only to find the `.raw` of a `.mhd`. None: the name on disk. Never used as a path,
        never repeated in a message.
    """

    path: Path
    name: str | None = None


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

    def read(self, start: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``start``, never beyond the end of the range."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset + start)
            return stream.read(max(0, min(count, self.size - start)))


def plain_name(name: str) -> str:
    """Last component of a name, whichever separator the sender's system uses."""
    return name.replace("\\", "/").rpartition("/")[2]


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
