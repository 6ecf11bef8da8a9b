"""A peer that says what it likes: a socket, a Connection, and direct access to both."""

from __future__ import annotations

import socket

from msgspec.structs import replace
from running_master import SOFTWARE, TOKEN

from titan_proto.connection import Closed, Connection, Opened, Received
from titan_proto.frame import pack
from titan_proto.handshake import parse_token
from titan_proto.io.asking import make_hello
from titan_proto.messages import AnyMessage, Join, Role, Welcome


class RawLink:
    """One connection; everything waits at most 10 s."""

    def __init__(
        self,
        address,
        *,
        role: Role | None = None,
        token: str = TOKEN,
        features: tuple[str, ...] | None = None,
    ) -> None:
        self.socket = socket.create_connection(tuple(address), timeout=10)
        self.arrived: list[Received] = []
        self.welcome: Welcome | None = None
        self.closed: Closed | None = None
        self.said = self.heard = b""
        if role is not None:
            parsed = parse_token(token)
            hello = make_hello(parsed, role=role, software=SOFTWARE)
            if features is not None:
                hello = replace(hello, features=features)
            self.connection = Connection.dialler(hello=hello, key=parsed.key)
            self.flush()
            while not self.connection.is_open and self.closed is None:
                self.take_in()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        self.connection.send(message, correlation, end=end)
        self.flush()

    def ask(self, message: AnyMessage) -> AnyMessage:
        """The first answer to a request."""
        correlation = self.connection.open_exchange()
        self.send(message, correlation, end=True)
        return self.next(lambda received: received.correlation == correlation).message

    def send_raw(self, opcode: int, body: bytes, correlation: int = 0) -> None:
        """A frame that no Connection would send."""
        self.socket.sendall(pack(1, opcode, 0, correlation, body))

    def join(self, worker_id: str = "w1", **fields) -> None:
        """Introduce a worker; back when the master has answered."""
        said = {
            "worker_id": worker_id, "host": "h", "port": 8080, "incarnation": 1, "boot_id": "b",
            "software": "t", "slots": 2, "skills": ("GENERAL",), **fields,
        }  # fmt: skip
        self.send(Join(**said))

    def next(self, is_wanted=lambda _: True) -> Received:
        """The next message that is wanted; others stay."""
        while True:
            for at, received in enumerate(self.arrived):
                if is_wanted(received):
                    return self.arrived.pop(at)
            assert self.closed is None, f"closed: {self.closed}"
            self.take_in()

    def next_of(self, kind: type):
        return self.next(lambda received: isinstance(received.message, kind)).message

    def until_closed(self) -> Closed:
        """Why the master closed the link."""
        while self.closed is None:
            self.take_in()
        return self.closed

    def flush(self) -> None:
        while data := self.connection.data_to_send():
            self.said += data
            self.socket.sendall(data)

    def take_in(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "the master hung up without a word"
        self.heard += data
        for event in self.connection.receive_data(data):
            if isinstance(event, Received):
                self.arrived.append(event)
            elif isinstance(event, Closed):
                self.closed = event
            else:
                assert isinstance(event, Opened)
                self.welcome = event.welcome
        self.flush()
