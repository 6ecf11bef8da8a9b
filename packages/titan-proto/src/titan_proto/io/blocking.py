"""A link for programs that wait: one socket, one Connection, no thread of its own.

Calls of many threads take turns on it; a stream owns it for as long as it is iterated. Who wants
to ask while a stream runs takes a second link: `LinkPool` has them. Used by the SDK and the
dashboard. It never retries a request on its own but where the pool finds that a link had gone
stale while nobody used it; requests are made so that asking twice is asking once.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeVar, final

from titan_proto.connection import Closed, Connection, Event, Opened, Received
from titan_proto.errors import (
    ConnectFailed,
    ErrorCode,
    LinkError,
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
from titan_proto.limits import BULK_CHUNK_BYTES
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
    Welcome,
)

ReplyT = TypeVar("ReplyT")

_READ_BYTES: Final = 128 * 1024
_FAREWELL_S: Final = 1.0
"""How long a cancel or a goodbye may take to be written; nobody waits for an answer to it."""


@final
class BlockingLink:
    """An open link to a master."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self._socket = sock
        self._connection = connection
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._space = memoryview(bytearray(_READ_BYTES))
        self._arrived: deque[Received] = deque()
        self._opened: Opened | None = None
        self._is_broken = False
        self._lock = threading.Lock()
        self._owner: int | None = None

    @classmethod
    def connect(
        cls, address: Address, token: str, *, role: Role, software: str, timeout_s: float
    ) -> BlockingLink:
        """Dial a master and go through the handshake.

        Raises:
            ConnectFailed: nobody answers there, or not in time, or not as a master does.
            Refused: the master does not let this peer in, or is not the token's.
        """
        credentials = parse_token(token)
        deadline = time.monotonic() + timeout_s
        try:
            sock = socket.create_connection((address.host, address.port), timeout=timeout_s)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"no master answers at {address}: {error}") from error
        hello = make_hello(credentials, role=role, software=software)
        try:
            tune(sock)
            link = cls(sock, Connection.dialler(hello=hello, key=credentials.key))
            link._shake_hands(address, deadline)
        except BaseException:  # raised again
            sock.close()
            raise
        return link

    @property
    def welcome(self) -> Welcome:
        """What the master said when the link opened."""
        if self._opened is None:
            raise LocalProtocolError("the link has not been opened")
        return self._opened.welcome

    @property
    def is_usable(self) -> bool:
        """Whether another request may be tried on it."""
        return not self._is_broken and self._connection.is_open

    def call(self, request: Request[ReplyT], timeout_s: float | None = None) -> ReplyT:
        """Ask, and wait for the answer; without a timeout, for as long as it takes.

        Raises:
            RequestError: the kind that says what the master refused.
            Timeout: no answer came in time; the master is told not to bother.
            LinkLost: the link broke first.
        """
        deadline = _deadline(timeout_s)
        with self._turn(deadline), self._exchange(request, deadline, end=True) as correlation:
            return read_answer(request, self._next(correlation, deadline).message)

    def stream(self, request: Request[ReplyT], timeout_s: float | None = None) -> Iterator[ReplyT]:
        """Ask, and yield what comes until it ends; stopping earlier cancels it.

        Raises what `call` raises; the timeout is for the whole stream.
        """
        deadline = _deadline(timeout_s)
        with self._turn(deadline), self._exchange(request, deadline, end=True) as correlation:
            end = False
            while not end:
                received = self._next(correlation, deadline)
                if isinstance(received.message, Done):
                    return
                end = received.end
                yield read_answer(request, received.message)

    def upload(
        self,
        digest: str,
        size: int,
        chunks: Callable[[int], Iterator[bytes]],
        timeout_s: float | None = None,
    ) -> None:
        """Offer an artifact and send what of it the master lacks.

        Args:
            digest: of all the bytes.
            size: how many they are.
            chunks: gives the bytes from an offset on, in pieces of any length.
            timeout_s: for the whole of it.
        """
        offer = OfferArtifact(digest=digest, size_bytes=size)
        deadline = _deadline(timeout_s)
        with self._turn(deadline), self._exchange(offer, deadline, end=False) as correlation:
            received = self._next(correlation, deadline)
            if isinstance(received.message, ArtifactWanted):
                offset = received.message.offset
                self._send_chunks(correlation, offset, size, chunks(offset), deadline)
                received = self._next(correlation, deadline)
            stored: ArtifactStored = read_answer(offer, received.message)
            if stored.digest != digest:
                raise RemoteProtocolError(f"the master stored {stored.digest}, not {digest}")

    def close(self) -> None:
        """Say goodbye and hang up. A call that another thread waits in ends with LinkLost."""
        if not self._is_broken and self._connection.is_open and self._lock.acquire(blocking=False):
            try:
                self._connection.close(ErrorCode.SHUTTING_DOWN, "the client has finished")
                with contextlib.suppress(LinkError):
                    self._flush(time.monotonic() + _FAREWELL_S)
            finally:
                self._lock.release()
        self._break()

    def __enter__(self) -> BlockingLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- taking turns --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self, deadline: float | None) -> Iterator[None]:
        me = threading.get_ident()
        if self._owner == me:
            raise LocalProtocolError(
                "a stream is being read on this link by this same thread; ask on another link"
            )
        # Without a deadline: as long as the others' answers take.
        if not self._lock.acquire(timeout=-1 if deadline is None else _left(deadline)):
            raise Timeout("the link was busy with other requests for the whole time")
        self._owner = me
        try:
            yield
        finally:
            self._owner = None
            self._lock.release()

    @contextlib.contextmanager
    def _exchange(self, request: AnyMessage, deadline: float | None, *, end: bool) -> Iterator[int]:
        """Open an exchange with `request`; cancel it if it is left before its end."""
        if not self.is_usable:
            raise self._lost()
        correlation = self._connection.open_exchange()
        self._connection.send(request, correlation, end=end)
        try:
            self._flush(deadline)
            yield correlation
        finally:
            self._cancel(correlation)

    def _cancel(self, correlation: int) -> None:
        self._arrived.clear()
        if self.is_usable and self._connection.is_exchange_open(correlation):
            self._connection.send(Cancel(), correlation)
            with contextlib.suppress(LinkError):
                self._flush(time.monotonic() + _FAREWELL_S)

    # -- bytes ---------------------------------------------------------------------------------

    def _shake_hands(self, address: Address, deadline: float) -> None:
        try:
            while self._opened is None:
                self._flush(deadline)
                for event in self._read(deadline):
                    if isinstance(event, Opened):
                        self._opened = event
                    elif isinstance(event, Closed):
                        raise Refused(event.code, event.reason)
        except (LinkLost, Timeout) as error:
            raise ConnectFailed(
                f"{address} took the connection but did not complete the handshake: {error}"
            ) from error

    def _send_chunks(
        self,
        correlation: int,
        offset: int,
        size: int,
        chunks: Iterator[bytes],
        deadline: float | None,
    ) -> None:
        for piece in _sized(chunks, offset, size):
            end = offset + len(piece) == size
            self._connection.send(ArtifactChunk(offset, piece), correlation, end=end)
            offset += len(piece)
            self._flush(deadline)
            # The master may have changed its mind (no space left): then the rest stays here.
            if not end and self._readable.poll(0):
                self._take_in(deadline)
                if self._arrived:
                    return
        if offset != size:
            raise LocalProtocolError(f"the artifact ended at byte {offset} of {size}")

    def _next(self, correlation: int, deadline: float | None) -> Received:
        """The next message of this exchange."""
        while True:
            while self._arrived:
                received = self._arrived.popleft()
                if received.correlation == correlation:
                    return received
            if self._connection.is_closed:
                raise self._lost()
            self._take_in(deadline)

    def _take_in(self, deadline: float | None) -> None:
        for event in self._read(deadline):
            # What belongs to no exchange was not asked for, and no client waits for it.
            if isinstance(event, Received) and event.correlation:
                self._arrived.append(event)
        if self._connection.pending_bytes:
            self._flush(deadline)  # a Pong, or our last word to a peer that broke the rules

    def _read(self, deadline: float | None) -> list[Event]:
        try:
            self._set_timeout(deadline)
            size = self._socket.recv_into(self._space)
        except TimeoutError as error:
            raise Timeout("no answer came in time") from error
        except OSError as error:
            self._break()
            raise LinkLost(f"the link was cut: {error}") from error
        if not size:
            self._break()
            raise LinkLost("the master has hung up")
        return self._connection.receive_data(self._space[:size])

    def _flush(self, deadline: float | None) -> None:
        try:
            self._set_timeout(deadline)
            while data := self._connection.data_to_send():
                self._socket.sendall(data)
        except TimeoutError as error:
            self._break()
            raise Timeout("the master did not take the request in time") from error
        except OSError as error:
            self._break()
            raise LinkLost(f"the link was cut: {error}") from error
        except BaseException:  # raised again
            # Interrupted in the middle of a frame: what follows would make no sense to the peer.
            self._break()
            raise

    def _set_timeout(self, deadline: float | None) -> None:
        if deadline is None:
            if self._socket.gettimeout() is not None:
                self._socket.settimeout(None)
            return
        left = _left(deadline)
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _lost(self) -> LinkLost:
        closed = self._connection.closed
        if closed is None:
            return LinkLost("the link is closed")
        return LinkLost(f"{closed.code}: {closed.reason}", closed.code)

    def _break(self) -> None:
        self._is_broken = True
        # shutdown wakes a thread that waits in recv; close alone would not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@final
class LinkPool:
    """Links to one master, made when needed and kept for the next request."""

    def __init__(self, connect: Callable[[], BlockingLink]) -> None:
        self._connect = connect
        self._idle: list[BlockingLink] = []
        self._lock = threading.Lock()
        self._is_closed = False

    @contextlib.contextmanager
    def link(self) -> Iterator[BlockingLink]:
        """A link for the caller alone, for as long as the block lasts."""
        lent = self._take() or self._connect()
        try:
            yield lent
        finally:
            self._give_back(lent)

    def call(self, request: Request[ReplyT], timeout_s: float | None = None) -> ReplyT:
        """As `BlockingLink.call`, on whichever link is free."""
        kept = self._take()
        if kept is not None:
            try:
                return kept.call(request, timeout_s)
            except LinkLost:
                pass  # the master was started again while the link lay here: dial once more
            finally:
                self._give_back(kept)
        fresh = self._connect()
        try:
            return fresh.call(request, timeout_s)
        finally:
            self._give_back(fresh)

    def stream(self, request: Request[ReplyT], timeout_s: float | None = None) -> Iterator[ReplyT]:
        """As `BlockingLink.stream`, on a link of its own."""
        with self.link() as lent:
            yield from lent.stream(request, timeout_s)

    def close(self) -> None:
        """Close the links that nobody uses; the others when they come back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def __enter__(self) -> LinkPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> BlockingLink | None:
        with self._lock:
            if self._is_closed:
                raise LocalProtocolError("the pool is closed")
            return self._idle.pop() if self._idle else None

    def _give_back(self, link: BlockingLink) -> None:
        with self._lock:
            if link.is_usable and not self._is_closed:
                self._idle.append(link)
                return
        link.close()


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _sized(chunks: Iterator[bytes], offset: int, size: int) -> Iterator[bytes]:
    """Pieces that fit a frame; one empty piece when there is nothing to send but the end."""
    if offset == size:
        yield b""
        return
    for chunk in chunks:
        for start in range(0, len(chunk), BULK_CHUNK_BYTES):
            yield chunk[start : start + BULK_CHUNK_BYTES]
