"""Artifacts on the wire: upload, fetch, and which of them ``perm_files/`` has names for.

What a name stands for is copied into the blobs at the moment when it is asked for, so the digest that
a run is pinned to stands for bytes that nobody can change any more. Called by ``net``; whole files
are read and synced off the loop.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from titan_master.data.blobs import BadBlob, BlobStore, Incoming
from titan_master.data.feed import READ_BYTES, Exchange, Outlet, Streams
from titan_master.data.perm_files import PermFiles
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
from titan_proto.specs import ArtifactRef

T = TypeVar("T")

_Read = Callable[[int, int], bytes]
"""So many bytes at most, from there on."""

_DISK_FULL: Final = "the disk of the master's data folder is full"


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
        if self._blobs.touch(offer.digest):
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
        if size is not None:
            self._blobs.touch(request.digest)  # whoever reads it would not like to see it go
        read = self._blob_reader(request.digest)
        if size is None and request.name:
            size = self._perm_files.version_size(request.name, request.digest)
            read = self._version_reader(request.name, request.digest)
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
            lambda: self._send(outlet, correlation, read, request.offset, size),
        )

    async def _send(
        self, outlet: Outlet, correlation: int, read: _Read, offset: int, size: int
    ) -> None:
        try:
            if offset == size:
                await outlet.bulk_room(1)
                outlet.send(ArtifactChunk(offset, b""), correlation, end=True)
            while offset < size:
                block = await self._read(read, min(READ_BYTES, size - offset), offset)
                for at in range(0, len(block), BULK_CHUNK_BYTES):
                    piece = block[at : at + BULK_CHUNK_BYTES]
                    await outlet.bulk_room(len(piece))
                    is_last = offset + len(piece) == size
                    outlet.send(ArtifactChunk(offset, piece), correlation, end=is_last)
                    offset += len(piece)
        except OSError as error:
            _refuse(outlet, correlation, ErrorCode.INTERNAL, _disk_words(error))

    def _blob_reader(self, digest: str) -> _Read:
        return lambda wanted, offset: self._blobs.read_at(digest, wanted, offset)

    def _version_reader(self, name: str, digest: str) -> _Read:
        return lambda wanted, offset: self._perm_files.read_version(name, digest, wanted, offset)

    async def _read(self, read: _Read, wanted: int, offset: int) -> bytes:
        """A block; the file is open for this moment only, for a reader may wait for ever."""
        if wanted <= BULK_CHUNK_BYTES:
            block = read(wanted, offset)
        else:
            block = await self._off_loop(lambda: read(wanted, offset))
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
