"""Files by name on the wire: what there is, and giving a name to an artifact that was uploaded.

The exchanges of every link about ``perm_files/``. Looking reads files and may take long, so it is
done by the threads of the disk; putting is for the one thread that also stages what submissions
bring, so that two who put the same name at once are one after the other. Called by ``net``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final

from titan_master.data.blobs import BlobStore
from titan_master.data.feed import Outlet, Streams
from titan_master.data.perm_files import BadFile, PermFiles
from titan_master.data.reserve import is_full
from titan_proto.errors import ErrorCode
from titan_proto.ids import is_digest
from titan_proto.limits import SUBMIT_KEY_CHARS
from titan_proto.messages import (
    AnyMessage,
    Error,
    FileList,
    FileOrigin,
    FileView,
    ListFiles,
    NameFile,
)
from titan_proto.validation import file_name_fault

_PIECE_BYTES: Final = 1024 * 1024


class Names:
    """The exchanges about files by name, of every link."""

    def __init__(
        self,
        *,
        perm_files: PermFiles,
        blobs: BlobStore,
        streams: Streams,
        lookers: Executor,
        putter: Executor,
        now_ms: Callable[[], int],
    ) -> None:
        self._perm_files = perm_files
        self._blobs = blobs
        self._streams = streams
        self._lookers = lookers
        self._putter = putter
        self._now_ms = now_ms

    def list_files(self, outlet: Outlet, correlation: int, request: ListFiles) -> None:
        """What is there?"""
        self._answer(outlet, correlation, self._lookers, lambda: self._list(request))

    def name_file(self, outlet: Outlet, correlation: int, request: NameFile) -> None:
        """Let this artifact be the file of that name."""
        now_ms = self._now_ms()
        self._answer(outlet, correlation, self._putter, lambda: self._name(request, now_ms))

    def _answer(
        self, outlet: Outlet, correlation: int, worker: Executor, work: Callable[[], AnyMessage]
    ) -> None:
        async def serve() -> None:
            loop = asyncio.get_running_loop()
            try:
                answer = await loop.run_in_executor(worker, work)
            except OSError as error:
                code = ErrorCode.STORAGE_FULL if is_full(error) else ErrorCode.UNAVAILABLE
                answer = Error(code=code, message=f"perm_files: {error.strerror or error}")
            outlet.send(answer, correlation, end=True)

        self._streams.start(outlet, correlation, serve)

    # -- in a thread ------------------------------------------------------------------------------

    def _list(self, request: ListFiles) -> FileList | Error:
        if not request.name:
            return self._perm_files.page(request.cursor, request.limit)
        view = self._perm_files.view(request.name)
        if view is None:
            message = f"there is no file {request.name[:200]!r} in perm_files"
            return Error(code=ErrorCode.NOT_FOUND, message=message)
        return FileList(files=(view,))

    def _name(self, request: NameFile, now_ms: int) -> FileView | Error:
        fault = file_name_fault(request.name)
        if fault:
            return _refusal(request.name, fault)
        digest = request.digest
        size = self._blobs.size(digest) if is_digest(digest) else None
        if size is None:
            message = f"no artifact {digest[:64]!r} is stored here"
            return Error(code=ErrorCode.NOT_FOUND, message=message)
        if len(request.key) > SUBMIT_KEY_CHARS:
            message = f"a key has at most SUBMIT_KEY_CHARS ({SUBMIT_KEY_CHARS}) characters"
            return Error(code=ErrorCode.MALFORMED, message=message)

        def content() -> Iterator[bytes]:
            offset = 0
            while piece := self._blobs.read_at(digest, _PIECE_BYTES, offset):
                offset += len(piece)
                yield piece

        try:
            put = self._perm_files.put(
                request.name, content, origin=FileOrigin.UPLOADED, key=request.key, now_ms=now_ms
            )
        except BadFile as error:
            return _refusal(request.name, str(error))
        view = self._perm_files.view(request.name) or FileView(name=request.name)
        return FileView(
            name=view.name, current=view.current, versions=view.versions, notices=put.notices
        )


def _refusal(name: str, fault: str) -> Error:
    return Error(code=ErrorCode.INVALID_SPEC, message=f"file {name[:200]!r} {fault}")
