"""Streams of bytes to readers: one task each, ended with its exchange or its link.

A reader that does not read costs a file position and nothing else: bytes are taken from disk when
there is room for them on the reader's own link, so nobody waits for anybody. One that makes no room
for too long is dropped and told where it stood. Called by ``artifacts.py`` and by ``net``, and by the
engine for logs; never by the core.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, Final, Protocol

from msgspec import Struct

from titan_master.data.logs import BOTH, Log, LogFiles, Piece
from titan_proto.errors import ErrorCode, LinkError
from titan_proto.ids import AttemptRef
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import AnyMessage, Done, Error, LogChunk, LogData, LogPiece, ReadLog

READ_BYTES: Final = 1024 * 1024
"""How much is read in one go off the loop."""


class Outlet(Protocol):
    """A link, as those see it who only write to it."""

    @property
    def link_id(self) -> int:
        """Its number; never used twice."""
        ...

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        """Queue a message."""
        ...

    def has_bulk_room(self, wanted_bytes: int) -> bool:
        """Whether so many bytes of bulk may be sent at once."""
        ...

    async def bulk_room(self, wanted_bytes: int) -> None:
        """Wait until so many bytes of bulk have room. Raises LinkError when the link is gone."""
        ...


Exchange = tuple[int, int]
"""A link's number and the correlation id on it."""


class Streams:
    """The tasks that serve exchanges, by exchange."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._spawn = spawn
        self._tasks: dict[int, dict[int, asyncio.Task[None]]] = {}

    def start(
        self, outlet: Outlet, correlation: int, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        """Serve an exchange by `work`, which ends quietly when its link does.

        The task may be cancelled before `work` is called at all.
        """
        link_id = outlet.link_id
        task = self._spawn(_quiet(work))
        self._tasks.setdefault(link_id, {})[correlation] = task
        task.add_done_callback(lambda done: self._forget(link_id, correlation, done))
        return task

    def drop(self, link_id: int, correlation: int) -> None:
        """The reader has cancelled the exchange."""
        task = self._tasks.get(link_id, {}).get(correlation)
        if task is not None:
            task.cancel()

    def drop_link(self, link_id: int) -> None:
        """The link is gone, with everything that was served on it."""
        for task in tuple(self._tasks.get(link_id, {}).values()):
            task.cancel()

    def drop_all(self) -> None:
        """The process ends."""
        for link_id in tuple(self._tasks):
            self.drop_link(link_id)

    def _forget(self, link_id: int, correlation: int, task: asyncio.Task[None]) -> None:
        tasks = self._tasks.get(link_id, {})
        if tasks.get(correlation) is task:
            del tasks[correlation]
        if not tasks:
            self._tasks.pop(link_id, None)


async def _quiet(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with contextlib.suppress(LinkError):
        await work()


class Follower(Protocol):
    """Who reads a log that may still grow."""

    news: asyncio.Event
    """Set when there is more of it, or it has ended."""

    def offer(self, chunk: LogChunk) -> None:
        """A copy of a piece has come that is not stored, and may be of use."""
        ...


class LogPatience(Struct, frozen=True, kw_only=True):
    """How long a log's readers and writers are waited for."""

    slow_reader_s: float
    """A reader that makes no room for so long is dropped."""
    missing_bytes_s: float
    """After an attempt's end its worker may take so long for the next piece of its log."""
    followers_max: int
    """Readers of one log at once."""


class LogFeed:
    """Serves stored logs, and those still growing, to whoever reads them."""

    def __init__(
        self, files: LogFiles, streams: Streams, disk: Executor, patience: LogPatience
    ) -> None:
        self._files = files
        self._streams = streams
        self._disk = disk
        self._patience = patience

    def serve(
        self,
        outlet: Outlet,
        correlation: int,
        ref: AttemptRef,
        request: ReadLog,
        final_bytes: tuple[int, int] | None,
    ) -> None:
        """Stream a log. `final_bytes` are the sizes of both outputs once the attempt has ended."""
        try:
            log = self._files.get(ref)
        except OSError as error:
            outlet.send(_unreadable(error), correlation, end=True)
            return
        if final_bytes is not None:
            log.finish(*final_bytes)
        if len(log.followers) >= self._patience.followers_max:
            limit = f"at most {self._patience.followers_max} readers of one log at once"
            outlet.send(Error(code=ErrorCode.LIMIT_EXCEEDED, message=limit), correlation, end=True)
            return
        reader = _Reader(self, outlet, correlation, log, ref.number, request)
        log.followers.add(reader)  # here, not in the task: it keeps the log from being put away
        task = self._streams.start(outlet, correlation, reader.run)
        task.add_done_callback(lambda _: log.followers.discard(reader))

    async def read(self, log: Log, stream: int, position: int) -> Sequence[Piece]:
        """The next pieces; inline where it is little, for then it has just been written."""
        if log.length(stream) - position <= BULK_CHUNK_BYTES:
            return log.pieces(stream, position, BULK_CHUNK_BYTES)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, log.pieces, stream, position, READ_BYTES)

    async def tail(self, log: Log, stream: int, lines: int) -> int:
        """Where about the last so many lines begin."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, log.tail, stream, lines)

    async def room(self, outlet: Outlet, wanted_bytes: int) -> bool:
        """Wait until the reader has room; False if it takes too long."""
        if outlet.has_bulk_room(wanted_bytes):
            return True
        try:
            async with asyncio.timeout(self._patience.slow_reader_s):
                await outlet.bulk_room(wanted_bytes)
        except TimeoutError:
            return False
        return True

    async def wait(self, log: Log, news: asyncio.Event) -> bool:
        """Wait for more of a log; False if no more is to be expected."""
        # While the attempt runs its end is what is waited for, however long that takes.
        deadline = self._patience.missing_bytes_s if log.is_ended else None
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with news.
            async with asyncio.timeout(deadline):
                await news.wait()
        except TimeoutError:
            return False
        news.clear()
        return True


class _Reader:
    """One ReadLog exchange."""

    def __init__(
        self,
        feed: LogFeed,
        outlet: Outlet,
        correlation: int,
        log: Log,
        number: int,
        request: ReadLog,
    ) -> None:
        self._feed = feed
        self._outlet = outlet
        self._correlation = correlation
        self._log = log
        self._number = number
        self._stream = log.which(request.stream)
        self._follow = request.follow
        self._tail_lines = request.tail_lines
        self._since_ms = request.since_ms
        self._places = request.places
        self._position = max(0, request.position)
        self._is_waiting = False
        """All that is stored has been sent."""
        self._ahead: dict[int, int] = {}
        """Up to where copies have been sent, of each output."""
        self.news = asyncio.Event()

    async def run(self) -> None:
        """Send what is there, then what comes, until there is no more."""
        try:
            if not self._position:
                self._position = await self._first_position()
            while await self._send_pieces() and await self._more():
                pass
        except OSError as error:
            self._outlet.send(_unreadable(error), self._correlation, end=True)

    async def _first_position(self) -> int:
        """What is asked for by time and what by lines: the later of the two."""
        log, stream = self._log, self._stream
        found = log.since(stream, self._since_ms) if self._since_ms > 0 else 0
        if self._tail_lines > 0:
            found = max(found, await self._feed.tail(log, stream, self._tail_lines))
        return found

    async def _send_pieces(self) -> bool:
        log = self._log
        while self._position < log.length(self._stream):
            for piece in await self._feed.read(log, self._stream, self._position):
                if not await self._feed.room(self._outlet, len(piece.data)):
                    self._drop()
                    return False
                self._position += len(piece.data) + piece.dropped
                self._send(piece)
        return True

    def offer(self, chunk: LogChunk) -> None:
        """Send a copy on if it is just what comes next; then its stored piece is not sent again.

        The position stays that of what is stored. A reader that comes back with it gets this once
        more, and knows it by its place: who asks for no places gets no copies.
        """
        stream = chunk.stream
        is_wanted = self._follow and self._places and self._stream in {BOTH, stream}
        if not is_wanted or not self._is_waiting or self.news.is_set():
            return
        known = max(self._ahead.get(stream, 0), self._log.length(stream))
        end = chunk.offset + len(chunk.data)
        if not chunk.offset <= known < end or not self._outlet.has_bulk_room(len(chunk.data)):
            return
        self._ahead[stream] = end
        data = chunk.data[known - chunk.offset :]
        message = LogPiece(self._number, stream, self._position, data, known, chunk.seen_at_ms, 0)
        self._outlet.send(message, self._correlation)

    def _send(self, piece: Piece) -> None:
        again = self._ahead.get(piece.stream, 0) - piece.offset
        if again >= len(piece.data) + piece.dropped:
            return
        if again > 0:
            dropped = piece.dropped and piece.dropped - again
            piece = piece._replace(
                data=piece.data[again:], offset=piece.offset + again, dropped=dropped
            )
        number, stream, position = self._number, piece.stream, self._position
        if self._places:
            at = (piece.offset, piece.seen_at_ms, piece.dropped)
            message: LogData = LogPiece(number, stream, position, piece.data, *at)
        else:
            words = f"\n[titan] {piece.dropped} bytes dropped\n".encode()
            message = LogData(number, stream, position, words if piece.dropped else piece.data)
        self._outlet.send(message, self._correlation)

    async def _more(self) -> bool:
        log = self._log
        is_all = log.is_complete or not (self._follow or log.is_ended)
        if not is_all:
            self._is_waiting = True
            is_more = await self._feed.wait(log, self.news)
            self._is_waiting = False
            if is_more:
                return True
        self._outlet.send(Done(), self._correlation, end=True)
        return False

    def _drop(self) -> None:
        said = Error(
            code=ErrorCode.SLOW_READER,
            message=f"the log was not read for too long; go on from position {self._position}",
            details={"position": str(self._position)},
        )
        self._outlet.send(said, self._correlation, end=True)


def _unreadable(error: OSError) -> Error:
    words = f"the master's disk: {error.strerror or error}"
    return Error(code=ErrorCode.UNAVAILABLE, message=words)
