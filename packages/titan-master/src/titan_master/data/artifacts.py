"""Artifacts on the wire and by name: upload, fetch, and what ``perm_files/`` calls them.

A name is resolved strictly inside ``perm_files/``: no ``..``, no absolute path, no symbolic link
anywhere on the way. What is found is copied into the blobs at that moment, so the digest that a run
is pinned to stands for bytes that nobody can change any more. Called by ``net``; whole files are
read and synced off the loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TypeVar

from titan_master.data.blobs import BadBlob, BlobStore, Incoming
from titan_master.data.feed import READ_BYTES, Exchange, Outlet, Streams
from titan_master.data.reserve import is_full
from titan_proto.errors import ErrorCode
from titan_proto.ids import is_digest
from titan_proto.limits import ARTIFACT_BYTES, BULK_CHUNK_BYTES, FILE_NAMES_PER_REQUEST
from titan_proto.messages import (
    AnyMessage,
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    Error,
    FetchArtifact,
    FilesFound,
    FindFiles,
    OfferArtifact,
)
from titan_proto.specs import ArtifactFormat, ArtifactRef

T = TypeVar("T")

_DISK_FULL: Final = "the disk of the master's data folder is full"
_STEP: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# What a name may lead to that is simply not a file of this folder.
_NO_FILE: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EISDIR,
        errno.EACCES,
        errno.ENAMETOOLONG,
        errno.ENXIO,
    }
)

_Version = tuple[int, int, int, int]


class PermFiles:
    """A folder of files that runs may name."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs
        self._known: dict[_Version, tuple[str, int]] = {}

    def find(self, name: str) -> ArtifactRef | None:
        """The file of that name, pinned; None if there is none. Off the loop.

        Raises BadBlob for a file that is too large.
        """
        descriptor = self._open(name)
        if descriptor is None:
            return None
        try:
            status = os.fstat(descriptor)
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known.get(version)
            if known is None or not self._blobs.has(known[0]):
                known = self._blobs.store_stream(descriptor, ARTIFACT_BYTES)
                if os.fstat(descriptor).st_mtime_ns == status.st_mtime_ns:
                    self._known[version] = known
        finally:
            os.close(descriptor)
        digest, size = known
        return ArtifactRef(digest=digest, size_bytes=size, format=ArtifactFormat.FILE, name=name)

    def _open(self, name: str) -> int | None:
        """A descriptor of the regular file `name`, reached without a single link."""
        parts = name.split("/")
        if any(part in {"", ".", ".."} or "\0" in part for part in parts):
            return None
        try:
            here = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None  # no such folder: then it holds no files
        try:
            for part in parts[:-1]:
                below = os.open(part, _STEP | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            # Not blocking: a FIFO that lies there must not hold us.
            found = os.open(parts[-1], _STEP | os.O_NONBLOCK, dir_fd=here)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        finally:
            os.close(here)
        if not _is_regular(found):
            os.close(found)
            return None
        return found


class Artifacts:
    """The exchanges that move artifacts, of every link."""

    def __init__(
        self, blobs: BlobStore, perm_files: PermFiles, streams: Streams, disk: Executor
    ) -> None:
        self._blobs = blobs
        self._perm_files = perm_files
        self._streams = streams
        self._disk = disk
        self._beginning: set[Exchange] = set()
        self._incoming: dict[Exchange, Incoming] = {}

    # -- upload -----------------------------------------------------------------------------------

    def offer(self, outlet: Outlet, correlation: int, offer: OfferArtifact) -> None:
        """Somebody has these bytes."""
        if not is_digest(offer.digest) or offer.size_bytes < 0:
            refusal = "an artifact is offered by its SHA-256 in lower-case hexadecimal and its size"
            _refuse(outlet, correlation, ErrorCode.MALFORMED, refusal)
            return
        if offer.size_bytes > ARTIFACT_BYTES:
            refusal = f"{offer.size_bytes} bytes are more than ARTIFACT_BYTES ({ARTIFACT_BYTES})"
            _refuse(outlet, correlation, ErrorCode.LIMIT_EXCEEDED, refusal)
            return
        if self._blobs.has(offer.digest):
            outlet.send(ArtifactStored(digest=offer.digest), correlation, end=True)
            return
        if not self._blobs.space.has(offer.size_bytes):
            refusal = f"{_DISK_FULL}: no room for an artifact of {offer.size_bytes} bytes"
            _refuse(outlet, correlation, ErrorCode.STORAGE_FULL, refusal)
            return
        incoming = self._blobs.receive(offer.digest, offer.size_bytes)
        exchange = (outlet.link_id, correlation)
        self._beginning.add(exchange)
        begun = self._off_loop(incoming.begin)
        begun.add_done_callback(lambda done: self._begun(outlet, exchange, incoming, done))

    def chunk(
        self, outlet: Outlet, correlation: int, chunk: ArtifactChunk, *, is_last: bool
    ) -> None:
        """A piece of what was wanted."""
        exchange = (outlet.link_id, correlation)
        incoming = self._incoming.get(exchange)
        if incoming is None:
            return  # refused or cancelled meanwhile: its pieces were on their way
        try:
            incoming.write(chunk.offset, chunk.data)
        except BadBlob as error:
            self._abandon(exchange)
            _refuse(outlet, correlation, ErrorCode.MALFORMED, str(error))
            return
        except OSError as error:
            self._abandon(exchange)
            _refuse(outlet, correlation, _disk_code(error), _disk_words(error))
            return
        if is_last:
            del self._incoming[exchange]
            # Not tied to the link from here on: the bytes are all here, the work is worth finishing.
            finished = self._off_loop(incoming.finish)
            finished.add_done_callback(
                lambda done: outlet.send(_outcome(incoming.digest, done), correlation, end=True)
            )

    def _begun(
        self, outlet: Outlet, exchange: Exchange, incoming: Incoming, done: asyncio.Future[int]
    ) -> None:
        if exchange not in self._beginning:
            incoming.abandon()  # cancelled while the part was read
            return
        self._beginning.remove(exchange)
        error = done.exception()
        if error is not None:
            incoming.abandon()
            _refuse(outlet, exchange[1], _disk_code(error), _disk_words(error))
            return
        self._incoming[exchange] = incoming
        outlet.send(ArtifactWanted(offset=done.result()), exchange[1])

    def _abandon(self, exchange: Exchange) -> None:
        incoming = self._incoming.pop(exchange, None)
        if incoming is not None:
            incoming.abandon()

    def drop(self, link_id: int, correlation: int) -> None:
        """The exchange was cancelled."""
        self._beginning.discard((link_id, correlation))
        self._abandon((link_id, correlation))

    def drop_link(self, link_id: int) -> None:
        """The link is gone."""
        self._beginning = {held for held in self._beginning if held[0] != link_id}
        for exchange in [held for held in self._incoming if held[0] == link_id]:
            self._abandon(exchange)

    # -- fetch ------------------------------------------------------------------------------------

    def fetch(self, outlet: Outlet, correlation: int, request: FetchArtifact) -> None:
        """Somebody wants these bytes."""
        size = self._blobs.size(request.digest) if is_digest(request.digest) else None
        if size is None:
            refusal = f"no artifact {request.digest[:64]!r} is stored here"
            _refuse(outlet, correlation, ErrorCode.NOT_FOUND, refusal)
            return
        if not 0 <= request.offset <= size:
            refusal = f"offset {request.offset} lies outside the artifact's {size} bytes"
            _refuse(outlet, correlation, ErrorCode.MALFORMED, refusal)
            return
        self._streams.start(
            outlet,
            correlation,
            lambda: self._send(outlet, correlation, request.digest, request.offset, size),
        )

    async def _send(
        self, outlet: Outlet, correlation: int, digest: str, offset: int, size: int
    ) -> None:
        try:
            if offset == size:
                await outlet.bulk_room(1)
                outlet.send(ArtifactChunk(offset, b""), correlation, end=True)
            while offset < size:
                block = await self._read(digest, min(READ_BYTES, size - offset), offset)
                for at in range(0, len(block), BULK_CHUNK_BYTES):
                    piece = block[at : at + BULK_CHUNK_BYTES]
                    await outlet.bulk_room(len(piece))
                    is_last = offset + len(piece) == size
                    outlet.send(ArtifactChunk(offset, piece), correlation, end=is_last)
                    offset += len(piece)
        except OSError as error:
            _refuse(outlet, correlation, ErrorCode.INTERNAL, _disk_words(error))

    async def _read(self, digest: str, wanted: int, offset: int) -> bytes:
        """A block; the file is open for this moment only, for a reader may wait for ever."""
        if wanted <= BULK_CHUNK_BYTES:
            block = self._blobs.read_at(digest, wanted, offset)
        else:
            block = await self._off_loop(lambda: self._blobs.read_at(digest, wanted, offset))
        if not block:
            raise OSError(errno.EIO, "an artifact's file is shorter than it was")
        return block

    # -- names ------------------------------------------------------------------------------------

    def find_files(self, outlet: Outlet, correlation: int, request: FindFiles) -> None:
        """Which of these names are files here?"""
        if len(request.names) > FILE_NAMES_PER_REQUEST:
            refusal = f"more than FILE_NAMES_PER_REQUEST ({FILE_NAMES_PER_REQUEST}) names"
            _refuse(outlet, correlation, ErrorCode.LIMIT_EXCEEDED, refusal)
            return
        self._streams.start(
            outlet, correlation, lambda: self._find(outlet, correlation, request.names)
        )

    async def _find(self, outlet: Outlet, correlation: int, names: tuple[str, ...]) -> None:
        def look() -> tuple[ArtifactRef, ...]:
            return tuple(ref for ref in map(self._perm_files.find, names) if ref is not None)

        try:
            found: AnyMessage = FilesFound(files=await self._off_loop(look))
        except BadBlob as error:
            found = Error(code=ErrorCode.LIMIT_EXCEEDED, message=str(error))
        except OSError as error:
            found = Error(code=_disk_code(error), message=_disk_words(error))
        outlet.send(found, correlation, end=True)

    def _off_loop(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._disk, work)


def _is_regular(descriptor: int) -> bool:
    return os.fstat(descriptor).st_mode & 0o170000 == 0o100000


def _refuse(outlet: Outlet, correlation: int, code: ErrorCode, message: str) -> None:
    outlet.send(Error(code=code, message=message), correlation, end=True)


def _outcome(digest: str, finished: asyncio.Future[None]) -> AnyMessage:
    error = finished.exception()
    if error is None:
        return ArtifactStored(digest=digest)
    code = ErrorCode.MALFORMED if isinstance(error, BadBlob) else _disk_code(error)
    return Error(code=code, message=_disk_words(error))


def _disk_code(error: BaseException) -> ErrorCode:
    return ErrorCode.STORAGE_FULL if is_full(error) else ErrorCode.UNAVAILABLE


def _disk_words(error: BaseException) -> str:
    if is_full(error):
        return f"{_DISK_FULL}: make room there, then try again"
    if isinstance(error, OSError):
        return f"the master's disk: {error.strerror or error}"
    return str(error)
