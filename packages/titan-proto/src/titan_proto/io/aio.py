"""A link for asyncio: a Protocol (streams are much slower) around a Connection; for both sides.

It moves bytes, keeps the handshake's deadline, joins what is sent in one pass of the loop into one
write, and holds back what the peer is too slow to take. What messages mean is decided by the
handlers it is given. Used by the master's listener and the worker's link; needs no more than
Python 3.10.

Handlers are plain functions, called in the order in which things happened on the link.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar, cast

from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import (
    ConnectFailed,
    ErrorCode,
    LinkLost,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    Timeout,
)
from titan_proto.handshake import parse_token
from titan_proto.io.address import Address
from titan_proto.io.asking import make_hello, read_answer
from titan_proto.io.tcp import tune
from titan_proto.limits import HANDSHAKE_TIMEOUT_MS, OUTBOX_BULK_BYTES
from titan_proto.messages import (
    AnyMessage,
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    Cancel,
    Done,
    OfferArtifact,
    Request,
    Role,
)

ReplyT = TypeVar("ReplyT")

WRITE_BUFFER_BYTES: Final = 512 * 1024
"""What the transport may hold beside the outbox; beyond it the outbox waits, where bulk cannot
get ahead of control."""
HANGUP_GRACE_S: Final = 5.0
"""How long a closed link may take to write its last words."""
_STREAM_HIGH: Final = 64
_STREAM_LOW: Final = 16


class AioLink(asyncio.Protocol):
    """One link in an event loop. Give it to ``create_server`` or ``create_connection``.

    `on_open` is called once the handshake is over, `on_message` for everything that is not an
    answer to `call` or `stream`, `on_close` exactly once when the link is gone, open or not.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        on_open: Callable[[AioLink, Opened], None],
        on_message: Callable[[AioLink, Received], None],
        on_close: Callable[[AioLink, Closed], None],
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_MS / 1000,
    ) -> None:
        self.connection: Final = connection
        self.opened: Opened | None = None
        self._on_open = on_open
        self._on_message = on_message
        self._on_close = on_close
        self._handshake_timeout_s = handshake_timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_flush_due = False
        self._is_writing_paused = False
        self._is_hanging_up = False
        self._is_cut = False
        self._readers_behind: set[object] = set()
        self._room_waiters: list[asyncio.Future[None]] = []
        self._sinks: dict[int, Callable[[Received | None], None]] = {}

    # -- what its users call -------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The peer's network address, for logs."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "?")

    @property
    def peer_address(self) -> tuple[Any, ...] | None:
        """The peer's network address, for sockets; None if it has none or is gone."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return name if isinstance(name, tuple) else None

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        """Queue a message, as `Connection.send`; it leaves at the end of this pass of the loop."""
        self.connection.send(message, correlation, end=end)
        self._flush_soon()

    async def bulk_room(self, size: int) -> None:
        """Wait until `size` bytes of bulk may be sent. Raises LinkLost."""
        size = min(size, OUTBOX_BULK_BYTES)
        while not self.connection.is_closed:
            if self.connection.bulk_room >= size:
                return
            waiter = self._loop.create_future()
            self._room_waiters.append(waiter)
            # No deadline of its own: a peer that stops reading is cut off by TCP_USER_TIMEOUT.
            await waiter
        raise self._lost()

    async def call(self, request: Request[ReplyT], timeout_s: float | None = None) -> ReplyT:
        """Ask and wait for the answer. Raises RequestError, LinkLost, Timeout."""
        answer: asyncio.Future[Received | None] = self._loop.create_future()

        def sink(received: Received | None) -> None:
            if not answer.done():
                answer.set_result(received)

        correlation = self._ask(request, sink)
        try:
            received = await asyncio.wait_for(answer, timeout_s)
        except asyncio.TimeoutError as error:
            raise Timeout("no answer came in time") from error
        finally:
            self._drop(correlation)
        if received is None:
            raise self._lost()
        return read_answer(request, received.message)

    async def stream(self, request: Request[ReplyT]) -> AsyncIterator[ReplyT]:
        """Ask, and yield what comes until it ends; closing the iterator earlier cancels it.

        A reader that falls far behind stops the whole link from being read until it has caught
        up, so its loop must not wait for another answer of the same link.
        """
        backlog = _Backlog(self)
        correlation = self._ask(request, backlog.put)
        try:
            end = False
            while not end:
                received = await backlog.get()
                if received is None:
                    raise self._lost()
                if isinstance(received.message, Done):
                    return
                end = received.end
                yield read_answer(request, received.message)
        finally:
            self.resume_reading(backlog)
            self._drop(correlation)

    async def upload(self, digest: str, size: int, read: Callable[[int], bytes]) -> None:
        """Offer an artifact and send what of it the peer lacks. Raises RequestError, LinkLost.

        Args:
            digest: of all the bytes.
            size: how many they are.
            read: gives some of them from an offset on, at most BULK_CHUNK_BYTES; none only at the end.
        """
        offer = OfferArtifact(digest=digest, size_bytes=size)
        backlog = _Backlog(self)
        correlation = self._ask(offer, backlog.put, end=False)
        try:
            received = await backlog.get()
            if received is not None and isinstance(received.message, ArtifactWanted):
                await self._send_pieces(correlation, received.message.offset, size, read, backlog)
                received = await backlog.get()
            if received is None:
                raise self._lost()
            stored: ArtifactStored = read_answer(offer, received.message)
            if stored.digest != digest:
                raise RemoteProtocolError(f"the peer stored {stored.digest}, not {digest}")
        finally:
            self._drop(correlation)

    async def _send_pieces(
        self,
        correlation: int,
        offset: int,
        size: int,
        read: Callable[[int], bytes],
        backlog: _Backlog,
    ) -> None:
        end = False
        # The peer may have changed its mind (no space left): then the rest stays here.
        while not end and backlog.is_empty:
            piece = read(offset)[: size - offset]
            if not piece and offset < size:
                raise LocalProtocolError(f"the artifact ended at byte {offset} of {size}")
            await self.bulk_room(len(piece))
            end = offset + len(piece) == size
            self.send(ArtifactChunk(offset, piece), correlation, end=end)
            offset += len(piece)

    def pause_reading(self, who: object) -> None:
        """Take in nothing more until `who` (and everybody else who asked for this) resumes."""
        if not self._readers_behind and self._is_alive():
            self._alive().pause_reading()
        self._readers_behind.add(who)

    def resume_reading(self, who: object) -> None:
        """Undo this one's `pause_reading`, if there was one."""
        if who in self._readers_behind:
            self._readers_behind.remove(who)
            if not self._readers_behind and self._is_alive():
                self._alive().resume_reading()

    def close(self, code: ErrorCode, reason: str) -> None:
        """Say goodbye, write what is queued before it, hang up."""
        self.connection.close(code, reason)
        self._flush_soon()

    def abort(self) -> None:
        """Cut the link without a word; one that is only just being made, as soon as it is."""
        self._is_cut = True
        if self._transport is not None:
            self._transport.abort()

    # -- what the event loop calls ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake and its deadline."""
        self._transport = cast("asyncio.Transport", transport)
        if self._is_cut:
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._timer = self._loop.call_later(self._handshake_timeout_s, self._handshake_late)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Hand on what the peer has said."""
        for event in self.connection.receive_data(data):
            if isinstance(event, Received):
                self._received(event)
            elif isinstance(event, Opened):
                self._stop_timer()
                self.opened = event
                self._on_open(self, event)
        if self.connection.pending_bytes or self.connection.is_closed:
            self._flush_soon()

    def pause_writing(self) -> None:
        """The transport is full: keep the rest in the outbox."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._is_writing_paused = False
        # Not at once: this is called from the middle of the transport's own write. Should the write
        # that follows fail, asyncio would end the transport twice and break over the second time.
        self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody, once."""
        self._stop_timer()
        if not self.connection.is_closed:
            why = f": {exc}" if exc is not None else " by the peer"
            self.connection.close(ErrorCode.UNAVAILABLE, f"the link was cut{why}")
        self._wake_room_waiters()
        sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink(None)
        closed = self.connection.closed
        assert closed is not None
        self._on_close(self, closed)

    # -- inside ----------------------------------------------------------------------------------

    def _received(self, received: Received) -> None:
        sink = self._sinks.get(received.correlation)
        if sink is None:
            self._on_message(self, received)
        else:
            sink(received)

    def _ask(
        self, request: AnyMessage, sink: Callable[[Received | None], None], *, end: bool = True
    ) -> int:
        if self.connection.is_closed:
            raise self._lost()
        correlation = self.connection.open_exchange()
        self._sinks[correlation] = sink
        self.send(request, correlation, end=end)
        return correlation

    def _drop(self, correlation: int) -> None:
        self._sinks.pop(correlation, None)
        if self.connection.is_open and self.connection.is_exchange_open(correlation):
            self.send(Cancel(), correlation)

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._is_alive():
            return
        transport = self._alive()
        while not self._is_writing_paused and (data := self.connection.data_to_send()):
            transport.write(data)
        if self._room_waiters:
            self._wake_room_waiters()
        if self.connection.is_closed:
            self._hang_up()

    def _hang_up(self) -> None:
        transport = self._alive()
        if not self._is_hanging_up:
            self._is_hanging_up = True
            self._stop_timer()
            # A peer that reads nothing must not keep a closed link for ever.
            self._timer = self._loop.call_later(HANGUP_GRACE_S, transport.abort)
        if not self.connection.pending_bytes:
            transport.close()

    def _handshake_late(self) -> None:
        seconds = self._handshake_timeout_s
        self.close(ErrorCode.UNAVAILABLE, f"no complete handshake within {seconds:g} s")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_room_waiters(self) -> None:
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _is_alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _alive(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def _lost(self) -> LinkLost:
        closed = self.connection.closed
        return LinkLost(f"{closed.code}: {closed.reason}" if closed else "the link is closed")


class _Backlog:
    """What of a stream has arrived and not been read."""

    def __init__(self, link: AioLink) -> None:
        self._link = link
        self._waiting: deque[Received | None] = deque()
        self._arrived = asyncio.Event()

    def put(self, received: Received | None) -> None:
        self._waiting.append(received)
        self._arrived.set()
        if len(self._waiting) >= _STREAM_HIGH:
            self._link.pause_reading(self)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    async def get(self) -> Received | None:
        while not self._waiting:
            self._arrived.clear()
            # No deadline: a stream is as long as what it follows, and a lost link puts None here.
            await self._arrived.wait()
        received = self._waiting.popleft()
        if len(self._waiting) <= _STREAM_LOW:
            self._link.resume_reading(self)
        return received


async def dial(
    address: Address,
    token: str,
    *,
    role: Role,
    software: str,
    on_message: Callable[[AioLink, Received], None],
    on_close: Callable[[AioLink, Closed], None],
    timeout_s: float,
    last_term: int = 0,
) -> AioLink:
    """Dial a master and go through the handshake; `on_close` is told of open links only.

    Raises:
        ConnectFailed: nobody answers there, or not in time, or not as a master does.
        Refused: the master does not let this peer in, or is not the token's.
    """
    loop = asyncio.get_running_loop()
    credentials = parse_token(token)
    hello = make_hello(credentials, role=role, software=software, last_term=last_term)
    opening: asyncio.Future[Closed | None] = loop.create_future()

    def opened(_link: AioLink, _opened: Opened) -> None:
        opening.set_result(None)

    def closed(link: AioLink, closed: Closed) -> None:
        if link.opened is not None:
            on_close(link, closed)
        elif not opening.done():
            opening.set_result(closed)

    def make_link() -> AioLink:
        return AioLink(
            Connection.dialler(hello=hello, key=credentials.key),
            on_open=opened,
            on_message=on_message,
            on_close=closed,
            handshake_timeout_s=timeout_s,
        )

    connecting: Any = loop.create_connection(make_link, address.host, address.port)
    try:
        _transport, link = await asyncio.wait_for(connecting, timeout_s)
    except (OSError, UnicodeError, asyncio.TimeoutError) as error:
        raise ConnectFailed(f"no master answers at {address}: {str(error) or 'timeout'}") from error
    try:
        # Its deadline is the link's own: it closes itself, and `closed` is called.
        verdict = await opening
    except BaseException:  # raised again
        link.abort()
        raise
    if verdict is None:
        return cast("AioLink", link)
    if verdict.code is ErrorCode.UNAVAILABLE:
        raise ConnectFailed(f"{address} did not complete the handshake: {verdict.reason}")
    raise Refused(verdict.code, verdict.reason)
