"""A real `titan_proto.Connection` on a virtual pipe, for any of the hosts.

The bytes are really encoded, really authenticated and really split. Nothing here knows what the
messages mean.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.coverage import Coverage
from tests.sim.network import End
from tests.sim.world import World
from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.handshake import key_of
from titan_proto.messages import AnyMessage, Error, Hello, Refused, Role, Welcome

TOKEN_ID = "sim"
KEY = key_of("5" * 64)
SOFTWARE = "titan-sim"


class Wire:
    """One side of one link."""

    def __init__(self, world: World, end: End, connection: Connection, coverage: Coverage) -> None:
        self._world = world
        self._end = end
        self._coverage = coverage
        self.connection = connection
        self.on_open: Callable[[Opened], None]
        self.on_message: Callable[[Received], None]
        self.on_close: Callable[[ErrorCode | None], None]
        """Once, with what the peer or the protocol said; None if the pipe just broke."""
        self._done = False
        end.on_data = self._data
        end.on_close = self._lost

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self.connection.is_open and not self._done

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        """Queue a message; `flush` sends it."""
        self.connection.send(message, correlation, end=end)

    def call(self, request: AnyMessage) -> int:
        """Open an exchange with a request, and send it."""
        correlation = self.connection.open_exchange()
        self.connection.send(request, correlation)
        self.flush()
        return correlation

    def flush(self) -> None:
        """Write what waits; hang up after the last word."""
        while data := self.connection.data_to_send():
            self._end.write(data)
        if self.connection.is_closed:
            self._finish(self.connection.closed.code if self.connection.closed else None)

    def hang_up(self, code: ErrorCode, reason: str) -> None:
        """Say goodbye and close."""
        self.connection.close(code, reason)
        self.flush()

    def hold(self, for_ms: int) -> None:
        """Have what is sent from now on arrive no sooner than after so long."""
        self._end.hold(for_ms)

    def drop(self) -> None:
        """Close without a word; whoever does this does not want to hear of it."""
        self._done = True
        self._end.close()

    def _data(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if self._done:
                return
            if isinstance(event, Received):
                self._coverage.message(event.message)
                self.on_message(event)
            elif isinstance(event, Opened):
                self.on_open(event)
            elif isinstance(event, Closed):
                self._coverage.closed(event.code)
        if not self._done:
            self.flush()

    def _lost(self) -> None:
        self._finish(None)

    def _finish(self, code: ErrorCode | None) -> None:
        if self._done:
            return
        self._done = True
        self._end.close()
        self.on_close(code)


def dialler(world: World, role: Role, *, key: bytes = KEY, last_term: int = 0) -> Connection:
    """The dialling side of a link."""
    hello = Hello(
        versions=(1,),
        role=role,
        software=SOFTWARE,
        token_id=TOKEN_ID,
        client_nonce=world.random.randbytes(32),
        last_term=last_term,
    )
    return Connection.dialler(hello=hello, key=key)


def listener(world: World, welcome: Callable[[Hello], Welcome]) -> Connection:
    """The listening side."""

    def authenticate(hello: Hello) -> bytes | Refused:
        if hello.token_id == TOKEN_ID:
            return KEY
        return Refused(code=ErrorCode.UNAUTHENTICATED, reason="no such token")

    return Connection.listener(
        server_nonce=world.random.randbytes(32), authenticate=authenticate, welcome=welcome
    )


def refusal(code: ErrorCode, message: str) -> Error:
    """An Error without details."""
    return Error(code=code, message=message)
