"""Zip archives among the artifacts: the names of their files, and the content of one of them.

Nothing is believed that an archive says of itself: the list of its files is measured before it is
read, a file is counted while it is unpacked. Nothing is ever unpacked to a path. Called by
submissions, off the loop.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from titan_proto.errors import TitanError
from titan_proto.limits import ARCHIVE_ENTRIES

if TYPE_CHECKING:
    import zipfile

_DIRECTORY_BYTES: Final = ARCHIVE_ENTRIES * 1024
"""A zip archive's list of files; each entry takes some 50 bytes and its path."""
_ZIP_END_BYTES: Final = 22
_ZIP_LOCATOR_BYTES: Final = 20
_ZIP_COMMENT_BYTES: Final = 65_535
_PIECE_BYTES: Final = 256 * 1024
_EXECUTABLE: Final = 0o111 << 16


class BadArchive(TitanError):
    """Not a zip archive that can be read."""


class TooMuch(BadArchive):
    """A file has more bytes than were asked for."""


class Archive:
    """An archive that is open."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._files = {posixpath.normpath(info.filename): info for info in archive.infolist()}

    @property
    def names(self) -> frozenset[str]:
        """Its files' names, without detours."""
        return frozenset(self._files)

    def is_executable(self, name: str) -> bool:
        """Whether the file may be executed as it is. Raises KeyError."""
        return bool(self._files[name].external_attr & _EXECUTABLE)

    def pieces(self, name: str, limit_bytes: int) -> Iterator[bytes]:
        """A file's content. Raises KeyError, TooMuch, and BadArchive where it is damaged."""
        import zipfile  # see `opened`

        info = self._files[name]
        left = limit_bytes
        try:
            with self._archive.open(info) as file:
                while piece := file.read(_PIECE_BYTES):
                    left -= len(piece)
                    if left < 0:
                        raise TooMuch(f"has more than {limit_bytes} bytes")
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise BadArchive(f"cannot be unpacked: {error}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive at `path`. Raises BadArchive."""
    import zipfile  # a megabyte of modules that an idle master need not hold

    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(path.open("rb"))
            if _directory_bytes(file) > _DIRECTORY_BYTES:
                message = f"more than {_DIRECTORY_BYTES} bytes of names"
                raise zipfile.BadZipFile(message)
            archive = Archive(closing.enter_context(zipfile.ZipFile(file)))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BadArchive(f"not a zip archive that can be read: {error}") from error
        yield archive


def _directory_bytes(file: BinaryIO) -> int:
    """How long the list of an archive's files is, from the record at its end that says so.

    Found as zipfile finds it, which would make objects of the whole list, however long. With the
    64-bit form of that record it is longer than any workspace's.
    """
    size = file.seek(0, os.SEEK_END)
    tail_bytes = _ZIP_END_BYTES + _ZIP_LOCATOR_BYTES + _ZIP_COMMENT_BYTES
    file.seek(max(0, size - tail_bytes))
    tail = file.read(tail_bytes)
    at = len(tail) - _ZIP_END_BYTES
    if not (tail.startswith(b"PK\5\6", max(0, at)) and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")
    if at < 0:
        return 0  # no archive at all: zipfile says it better
    if tail.startswith(b"PK\6\7", max(0, at - _ZIP_LOCATOR_BYTES)):
        return size
    return int.from_bytes(tail[at + 12 : at + 16], "little")
