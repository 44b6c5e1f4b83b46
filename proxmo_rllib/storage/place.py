"""A place on storage: a URI, opened with pyarrow's filesystem, or fsspec's where pyarrow has none."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Where an object is there whole or not at all, and renaming it means to copy it.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
_CHUNK = 8 << 20
# What the messages of the clouds say, and what to do.
_REMEDIES = (
    ("NO_SUCH_BUCKET", "there is no such bucket; make it, or name another"),
    ("ACCESS_DENIED", "these credentials may not do that; ask for the right to read, write, list and delete there"),
    ("INVALID_ACCESS_KEY_ID", "the storage does not know this key; see AWS_ACCESS_KEY_ID"),
    ("SIGNATURE_DOES_NOT_MATCH", "the secret does not fit the key; see AWS_SECRET_ACCESS_KEY"),
    ("NETWORK_CONNECTION", "nothing answers there; see AWS_ENDPOINT_URL and the network"),
    ("Read-only file system", "name a place that can be written to"),
    ("Permission denied", "name a place that can be written to"),
)
_NO_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class Uri(str):
    """A word of the command line that names a place on storage."""

    __slots__ = ()


class StorageError(OSError):
    """A place on storage that cannot be used; says which, why, and the remedy."""


def is_uri(word: str) -> bool:
    """Whether a word names a place on storage, and not a folder."""
    return _URI.match(word) is not None


def path_or_uri(word: str) -> Path | Uri:
    """What a word of the command line names: a folder of this machine, or a place on storage."""
    return Uri(word) if is_uri(word) else Path(word)


def join(uri: str, *names: str) -> str:
    """The URI of something below a place; what stands behind its question mark stays."""
    head, mark, query = uri.partition("?")
    return "/".join([head.rstrip("/"), *names]) + mark + query


@dataclass(frozen=True, slots=True)
class Place:
    """A place on storage. Every method raises StorageError where the storage does not do it.

    Attributes:
        uri: as it was said.
        filesystem: a `pyarrow.fs.FileSystem`.
        path: in it.
    """

    uri: str
    filesystem: Any
    path: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def below(self, name: str) -> Place:
        """A place in this one."""
        return Place(join(self.uri, name), self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def above(self) -> Place:
        """The place that this one is in."""
        head, mark, query = self.uri.partition("?")
        parent = head.rstrip("/").rpartition("/")[0] + mark + query
        return Place(parent, self.filesystem, self.path.rstrip("/").rpartition("/")[0])

    def read(self) -> bytes | None:
        """What is in the file; None if there is none."""
        try:
            with self.filesystem.open_input_stream(self.path, compression=None) as file:
                return bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise explained(self.uri, error) from error

    def download(self, target: Path) -> None:
        """Copies the file to this machine, whole or not at all."""
        part = target.with_name(target.name + ".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.filesystem.open_input_stream(self.path, compression=None) as source, part.open("wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise explained(self.uri, error) from error
        part.replace(target)

    def upload(self, source: Path) -> None:
        """Copies a file of this machine there, whole or not at all; as long as it was at the beginning."""
        left = source.stat().st_size

        def chunks() -> Iterator[bytes]:
            nonlocal left
            with source.open("rb") as file:
                while left and (chunk := file.read(min(left, _CHUNK))):
                    left -= len(chunk)
                    yield chunk

        self._write(chunks())

    def write(self, content: bytes) -> None:
        """Writes the file, whole or not at all."""
        self._write(iter([content]))

    def _write(self, chunks: Iterator[bytes]) -> None:
        whole_by_itself = self.filesystem.type_name in _OBJECT_STORES
        part = self.path if whole_by_itself else f"{self.path}.part"
        try:
            if not whole_by_itself:
                self.filesystem.create_dir(self.path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(part, compression=None) as file:
                for chunk in chunks:
                    file.write(chunk)
            if part != self.path:
                self.filesystem.move(part, self.path)
        except OSError as error:
            raise explained(self.uri, error) from error

    def files(self) -> dict[str, int]:
        """Bytes of each file below, by its path from here; none if there is nothing."""
        from pyarrow.fs import FileSelector, FileType

        try:
            found = self.filesystem.get_file_info(FileSelector(self.path, recursive=True, allow_not_found=True))
        except OSError as error:
            raise explained(self.uri, error) from error
        start = len(self.path.strip("/")) + 1
        return {
            about.path.strip("/")[start:]: about.size
            for about in found
            if about.type == FileType.File and not about.path.endswith(".part")
        }

    def delete(self) -> None:
        """Removes the file, or all that is below; what is not there is no error."""
        from pyarrow.fs import FileType

        try:
            kind = self.filesystem.get_file_info(self.path).type
            if kind == FileType.Directory:
                self.filesystem.delete_dir(self.path)
            elif kind == FileType.File:
                self.filesystem.delete_file(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise explained(self.uri, error) from error

    def check_writable(self) -> None:
        """Writes a small file there, and removes it."""
        trial = self.below(f"proxmo-writes-{secrets.token_hex(8)}")
        trial.write(b"")
        trial.delete()


def open_place(uri: str) -> Place:
    """Opens a place on storage; nothing need be there.

    Args:
        uri: `s3://bucket/path`, `gs://...`, `file:///path`, or of another scheme that pyarrow or fsspec knows.

    Raises:
        StorageError: nothing here knows the scheme, or it is no such URI.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        filesystem, path = FileSystem.from_uri(uri)
    except ArrowException as error:
        if "Unrecognized filesystem type" not in str(error):
            raise StorageError(f"{uri}: it is no URI of storage: {error}") from error
        filesystem, path = _by_fsspec(uri)
    except OSError as error:
        raise explained(uri, error) from error
    return Place(uri, filesystem, path.rstrip("/"))


def _by_fsspec(uri: str) -> tuple[Any, str]:
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        scheme = uri.partition(":")[0]
        raise StorageError(
            f"{uri}: nothing here opens {scheme}:// ({error}); s3://, gs://, hdfs:// and file:// are opened without "
            "more, others with their package of fsspec (adlfs for az://, for example)."
        ) from error
    return PyFileSystem(FSSpecHandler(filesystem)), path


def explained(uri: str, error: OSError) -> StorageError:
    """An error of a storage's, with what to do."""
    if isinstance(error, StorageError):
        return error
    said = str(error)
    remedy = next((remedy for mark, remedy in _REMEDIES if mark in said), None)
    if remedy is None or "ACCESS_DENIED" in said:
        without = uri.startswith("s3://") and not _has_aws_credentials()
        remedy = f"there are no credentials: {_NO_CREDENTIALS}" if without else remedy
    first = said.strip().splitlines()[0] if said.strip() else repr(error)
    return StorageError(f"{uri}: {remedy or 'the storage does not do it'}. It says: {first[:300]}")


def _has_aws_credentials() -> bool:
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE"):
        return True
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser().is_file()
