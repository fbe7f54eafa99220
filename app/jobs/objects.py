"""Objects under one prefix of a bucket, through fsspec; whatever goes wrong there is told as one of our errors.

Nothing of S3 is imported before `open_s3` is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from app.imaging.errors import OptionError
from app.jobs.records import StoreUnavailable

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5, 20
_TRIES = 3
"""Of a request that was begun; a store that cannot be reached at all is told at once."""


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of one object."""

    key: str
    size: int
    modified_at: float
    """Seconds since 1970 by the store's clock."""


@dataclass(frozen=True)
class Bucket:
    """Whole objects by key, below a prefix. An object is there whole or not at all.

    Parameters
    ----------
    files
        A file system of fsspec, without a cache of listings.
    root
        ``bucket`` or ``bucket/prefix``.
    denials, faults
        What ``files`` raises when the store does not let us in, and when it does not do what it is asked otherwise.
    """

    files: Any
    root: str
    denials: tuple[type[Exception], ...]
    faults: tuple[type[Exception], ...]

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, several at a time.

        Raises
        ------
        StoreUnavailable
            Any number of them may have been written.
        """
        with self._faults_told():
            try:
                self.files.pipe({f"{self.root}/{key}": body for key, body in objects.items()})
            except FileNotFoundError as error:  # the bucket
                raise OSError(error.errno, "no such bucket") from error

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Objects by key, fetched several at a time.

        Raises
        ------
        FileNotFoundError
            One of them is not there; perhaps the whole bucket is not.
        StoreUnavailable
        """
        with self._faults_told():
            found = self.files.cat([f"{self.root}/{key}" for key in keys])
        return {self._key(path): body for path, body in found.items()}

    def objects(self, folder: str) -> list[StoredObject]:
        """All below a folder of keys; none where there is no such folder, or no bucket.

        Raises
        ------
        StoreUnavailable
        """
        with self._faults_told():
            try:
                found = self.files.find(f"{self.root}/{folder}", detail=True)
            except FileNotFoundError:
                return []
        return [
            StoredObject(self._key(path), one["size"], one["LastModified"].timestamp()) for path, one in found.items()
        ]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders just below one; none where there is no such folder, or no bucket.

        Raises
        ------
        StoreUnavailable
        """
        with self._faults_told():
            try:
                found = self.files.ls(f"{self.root}/{folder}", detail=False)
            except FileNotFoundError:
                return []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already do no harm. One that may not be removed stays without a word.

        Raises
        ------
        StoreUnavailable
        """
        paths = [f"{self.root}/{key}" for key in keys]
        with self._faults_told():
            if paths:
                self.files.rm(paths)

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self.root}/")

    @contextmanager
    def _faults_told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except self.denials as error:
            raise StoreUnavailable(
                "The object store refuses what is asked of it. Whoever runs the service must look at its rights.",
                code="store_denied",
                values={"retry_after_s": 60},
            ) from error
        except self.faults as error:
            raise StoreUnavailable(
                "The object store does not answer. Try again later.", values={"retry_after_s": 30}
            ) from error


def open_s3(url: str) -> Bucket:
    """The bucket of ``s3://bucket/prefix``; endpoint, region and credentials are what AWS_* variables or files say.

    Raises
    ------
    OptionError
        ``store_keeps_versions``: what is erased there would stay.
    StoreUnavailable
        The store does not answer, or does not let us in.
    """
    import aiohttp  # noqa: PLC0415 - an extra, and slow to import
    import botocore.exceptions  # noqa: PLC0415
    import fsspec  # noqa: PLC0415

    files = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,  # others write there too
        # s3fs tries again by itself; botocore's own tries would multiply with these.
        config_kwargs={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _READ_TIMEOUT_S,
            "retries": {"total_max_attempts": 1},
        },
    )
    files.retries = _TRIES
    said = botocore.exceptions
    bucket = Bucket(
        files,
        url.removeprefix("s3://").rstrip("/"),
        denials=(PermissionError, said.NoCredentialsError, said.PartialCredentialsError),
        faults=(OSError, said.BotoCoreError, said.ClientError, aiohttp.ClientError),
    )
    _refuse_kept_versions(bucket)
    return bucket


def _refuse_kept_versions(bucket: Bucket) -> None:
    name = bucket.root.partition("/")[0]
    try:
        with bucket._faults_told():  # noqa: SLF001
            said = bucket.files.call_s3("get_bucket_versioning", Bucket=name)
    except FileNotFoundError as error:
        raise StoreUnavailable(
            f"There is no bucket {name} for LUNGNODULE_STORE_URL. Make it first.", code="bucket_missing"
        ) from error
    except StoreUnavailable as error:
        if error.code != "store_denied":
            raise
        # Not everybody may ask; writing and erasing are tried later.
        structlog.get_logger(__name__).warning("versions of the bucket unknown", code=error.code)
        return
    if said.get("Status") == "Enabled":
        raise OptionError(
            f"The bucket {name} keeps old versions: what is erased would stay there. Suspend its versioning, or "
            "name another bucket in LUNGNODULE_STORE_URL.",
            code="store_keeps_versions",
        )
