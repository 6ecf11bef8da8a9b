"""One end of a link, as a machine: bytes in, protocol events out; messages in, bytes out.

It decides what a peer may say when, and answers by itself what needs no one else: pings, bodies
that cannot be read, opcodes nobody knows, a peer that does not read. It never touches a socket or a
clock and never raises for what a peer did. Called by `io`, by the daemons' shells and by the
simulator; the deadlines (handshake, silence) are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from titan_proto import handshake
from titan_proto.codec import decode, encode, is_known
from titan_proto.errors import ErrorCode, LocalProtocolError, MalformedBody, RemoteProtocolError
from titan_proto.exchanges import Arrival, Exchanges
from titan_proto.frame import END, VERSION_1, Frame, pack, unpack
from titan_proto.limits import EXCHANGES_PER_LINK, FRAME_PAYLOAD_BYTES, PREAUTH_PAYLOAD_BYTES
from titan_proto.messages import (
    AnyMessage,
    Cancel,
    Challenge,
    Error,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Proof,
    Refused,
    Request,
    Welcome,
)
from titan_proto.opcodes import BULK, HANDSHAKE, OpCode, is_ancillary
from titan_proto.outbox import ControlFull, Outbox

FLUSH_BYTES: Final = 256 * 1024
"""How much `data_to_send` joins into one write."""

_WORDS_CHARS: Final = 1_000
"""Of last words and complaints more is cut: they may quote what a peer said."""

_ENDING: Final = frozenset({OpCode.ERROR, OpCode.DONE})
"""What ends the exchange it answers, whether or not the sender says so."""


class Received(NamedTuple):
    """A message of the open link."""

    message: AnyMessage
    correlation: int
    """0: of no exchange."""
    end: bool
    """Its sender says nothing more in this exchange."""


class Opened(NamedTuple):
    """The handshake is complete: both sides have both."""

    hello: Hello
    welcome: Welcome


class Closed(NamedTuple):
    """Nothing more will come: what the peer said last, or this side's verdict on it."""

    code: ErrorCode
    reason: str


Event = Received | Opened | Closed
Authenticate = Callable[[Hello], bytes | Refused]
"""K of the token that a Hello names, if it may take the role it asks for."""
MakeWelcome = Callable[[Hello], Welcome]


class Connection:
    """One side of one link. Made by `dialler` or `listener`."""

    def __init__(self, *, is_dialler: bool, opening: Opening) -> None:
        self._opening: Opening | None = opening
        self._exchanges = Exchanges(is_dialler=is_dialler)
        self._outbox = Outbox()
        self._buffer = bytearray()
        self._version = VERSION_1
        self._features: tuple[str, ...] = ()
        self._datagram_key = b""
        self._payload_max = PREAUTH_PAYLOAD_BYTES
        self._closed: Closed | None = None

    @classmethod
    def dialler(cls, *, hello: Hello, key: bytes) -> Connection:
        """The side that dials. `key` is K of the token that `hello` names."""
        opening = DiallerOpening(hello, key)
        connection = cls(is_dialler=True, opening=opening)
        connection._put_handshake(OpCode.HELLO, opening.hello_body)
        return connection

    @classmethod
    def listener(
        cls, *, server_nonce: bytes, authenticate: Authenticate, welcome: MakeWelcome
    ) -> Connection:
        """The side that was dialled.

        Of the Welcome that `welcome` makes, the version is replaced by the one agreed on, and the
        features are cut down to those that the dialler offers too.
        """
        opening = ListenerOpening(server_nonce, authenticate, welcome)
        return cls(is_dialler=False, opening=opening)

    # -- where it stands -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent: the handshake is over and nobody has closed."""
        return self._opening is None and self._closed is None

    @property
    def is_closed(self) -> bool:
        """Whether nothing more may be said; write what `data_to_send` has left, then hang up."""
        return self._closed is not None

    @property
    def closed(self) -> Closed | None:
        """Why it is closed. Ask after `send`, too: a full control lane closes the connection."""
        return self._closed

    @property
    def version(self) -> int:
        """The version agreed on."""
        return self._version

    @property
    def features(self) -> tuple[str, ...]:
        """The features agreed on."""
        return self._features

    @property
    def datagram_key(self) -> bytes:
        """What datagrams that belong to this link are sealed under; empty until it is open."""
        return self._datagram_key

    @property
    def pending_bytes(self) -> int:
        """What `data_to_send` has left to give."""
        return self._outbox.pending_bytes

    @property
    def bulk_room(self) -> int:
        """Bytes left in the bulk lane; above zero, one more bulk message may be sent."""
        return self._outbox.bulk_room

    # -- bytes in ------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> list[Event]:
        """What the peer has said with these bytes; they may be cut anywhere."""
        events: list[Event] = []
        if self._closed is None:
            self._read(data, events)
        return events

    def _read(self, data: bytes | memoryview, events: list[Event]) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while self._closed is None and len(buffer) > start:
                if buffer[start] != self._version:
                    self._refuse_version(buffer[start])
                found = unpack(buffer, start, self._payload_max)
                if found is None:
                    break
                frame, start = found
                self._receive_frame(frame, events)
        except RemoteProtocolError as error:
            self._close_for(error.code, str(error))
        # Cheap: a bytearray gives up its front without moving the rest.
        del buffer[:start]
        if self._closed is not None:
            buffer.clear()
            events.append(self._closed)

    def _refuse_version(self, version: int) -> None:
        hint = " (is this a Titan peer?)" if self._opening is not None else ""
        raise RemoteProtocolError(
            f"a frame of version {version} where version {self._version} was expected{hint}"
        )

    def _receive_frame(self, frame: Frame, events: list[Event]) -> None:
        if self._opening is None:
            self._receive_message(frame, events)
        else:
            self._receive_handshake(self._opening, frame, events)

    def _receive_handshake(self, opening: Opening, frame: Frame, events: list[Event]) -> None:
        if frame.opcode not in opening.expected or frame.correlation:
            raise RemoteProtocolError(f"opcode 0x{frame.opcode:02x} in the handshake, out of turn")
        try:
            answer = opening.step(frame)
        except MalformedBody as error:
            raise RemoteProtocolError(f"the handshake is not readable: {error}") from error
        if isinstance(answer, Closed):
            self._closed = answer
        elif isinstance(answer, Refused):
            self._put_handshake(OpCode.REFUSED, encode(answer))
            self._closed = Closed(answer.code, answer.reason)
        elif isinstance(answer, Opened):
            if opening.announces:
                self._put_handshake(OpCode.WELCOME, encode(answer.welcome))
            self._datagram_key = opening.datagram_key
            self._open(answer.welcome)
            events.append(answer)
        else:
            self._put_handshake(*answer)

    def _open(self, welcome: Welcome) -> None:
        self._opening = None
        self._version = welcome.version
        self._features = welcome.features
        self._payload_max = FRAME_PAYLOAD_BYTES

    def _receive_message(self, frame: Frame, events: list[Event]) -> None:
        opcode, correlation = frame.opcode, frame.correlation
        known = is_known(opcode)
        if opcode in HANDSHAKE:
            raise RemoteProtocolError(f"opcode 0x{opcode:02x} belongs to the handshake")
        if not known and is_ancillary(opcode):
            return
        arrival = None
        if correlation:
            arrival = self._exchanges.arrive(correlation, may_open=opcode != OpCode.CANCEL)
            if arrival is Arrival.LATE:
                return
            if arrival is Arrival.TOO_MANY:
                text = f"EXCHANGES_PER_LINK ({EXCHANGES_PER_LINK}) are open on this link"
                self._put_error(ErrorCode.LIMIT_EXCEEDED, text, correlation)
                return
        if not known:
            text = f"opcode 0x{opcode:02x} is not known here"
            self._unreadable(ErrorCode.UNSUPPORTED, text, frame, arrival, events)
            return
        try:
            message = decode(opcode, frame.body)
        except MalformedBody as error:
            self._unreadable(ErrorCode.MALFORMED, str(error), frame, arrival, events)
            return
        if opcode <= OpCode.CANCEL and self._receive_link(message, correlation):
            return
        if arrival is Arrival.CONTINUED and isinstance(message, Request):
            # Two that are answered in one exchange could neither be told apart nor cancelled.
            text = f"{type(message).__name__} in exchange {correlation}, which a request has begun"
            raise RemoteProtocolError(text)
        if frame.end and arrival is Arrival.REPLY:
            self._exchanges.end(correlation)
        events.append(Received(message, correlation, frame.end))

    def _receive_link(self, message: AnyMessage, correlation: int) -> bool:
        """Messages about the link itself; whether there is nothing left to tell."""
        if isinstance(message, Ping):
            pong = pack(self._version, OpCode.PONG, END, correlation, encode(Pong(message.stamp)))
            self._put_control(pong, correlation)
            self._exchanges.end(correlation)
            return True
        if isinstance(message, Goodbye):
            self._outbox.drop_all()
            self._closed = Closed(message.code, message.reason)
            return True
        if isinstance(message, Cancel):
            self._exchanges.end(correlation)
            return correlation == 0
        return False

    def _unreadable(
        self,
        code: ErrorCode,
        text: str,
        frame: Frame,
        arrival: Arrival | None,
        events: list[Event],
    ) -> None:
        """Answer a body that cannot be read; the link goes on."""
        correlation = frame.correlation
        if arrival is Arrival.REPLY:
            # Our own caller waits for it: it gets the error, and the peer need say no more.
            if not frame.end:
                cancel = pack(self._version, OpCode.CANCEL, END, correlation, encode(Cancel()))
                self._put_control(cancel)
            self._exchanges.end(correlation)
            events.append(Received(Error(code=code, message=text), correlation, end=True))
            return
        if frame.opcode == OpCode.GOODBYE:
            raise RemoteProtocolError(f"the peer's last words cannot be read: {text}")
        if frame.opcode == OpCode.ERROR:
            return  # or two peers could go on telling each other
        self._put_error(code, text, correlation)
        self._exchanges.end(correlation)
        if arrival is Arrival.CONTINUED:
            events.append(Received(Cancel(), correlation, end=True))

    # -- messages out --------------------------------------------------------------------------

    def open_exchange(self) -> int:
        """The correlation id of a new exchange; send a request with it."""
        if not self.is_open:
            raise LocalProtocolError("the link is not open: no exchange can begin")
        return self._exchanges.open()

    def is_exchange_open(self, correlation: int) -> bool:
        """Whether something may still be said in it."""
        return self._exchanges.is_open(correlation)

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        """Queue a message.

        On a closed connection, and in an exchange that has ended meanwhile, nothing happens: the
        answer was on its way when the question was taken back. `Error` and `Done` always end the
        exchange that they answer.

        Raises:
            LocalProtocolError: before the handshake is over, in an exchange that never was, for a
                message of the handshake, or for a bulk message while `bulk_room` is 0.
            FrameTooLarge: for a message above FRAME_PAYLOAD_BYTES; nothing was queued.
        """
        if self._closed is not None:
            return
        opcode = message.OPCODE
        if self._opening is not None or opcode in HANDSHAKE:
            raise LocalProtocolError(f"{type(message).__name__} cannot be sent at this time")
        if not correlation:
            frame = pack(self._version, opcode, END if end else 0, 0, encode(message))
            self._put(opcode, frame, 0)
            return
        if not self._exchanges.may_send(correlation):
            return
        end = end or opcode in _ENDING
        frame = pack(self._version, opcode, END if end else 0, correlation, encode(message))
        self._put(opcode, frame, correlation)
        is_mine = self._exchanges.is_mine(correlation)
        if (end and not is_mine) or (is_mine and opcode == OpCode.CANCEL):
            self._exchanges.end(correlation)

    def close(self, code: ErrorCode, reason: str) -> None:
        """Say goodbye. Replies that are queued still go before it, bulk does not."""
        if self._closed is None:
            self._outbox.drop_bulk()
            self._close_for(code, reason)

    def data_to_send(self, max_bytes: int = FLUSH_BYTES) -> bytes:
        """Whole frames for one write, control before bulk; empty if nothing waits."""
        return self._outbox.take(max_bytes)

    def _put(self, opcode: OpCode, frame: bytes, correlation: int) -> None:
        if opcode in BULK:
            self._outbox.put_bulk(frame, correlation)
        elif opcode == OpCode.CANCEL:
            self._put_control(frame)
        else:
            self._put_control(frame, correlation)

    def _put_control(self, frame: bytes, correlation: int = 0) -> None:
        """Queue it; with a correlation, behind what waits of the same exchange."""
        try:
            self._outbox.put_control(frame, correlation)
        except ControlFull:
            self._outbox.drop_all()
            self._close_for(ErrorCode.SLOW_READER, "the peer does not read what it is sent")

    def _put_error(self, code: ErrorCode, text: str, correlation: int) -> None:
        body = encode(Error(code=code, message=text[:_WORDS_CHARS]))
        self._put_control(pack(self._version, OpCode.ERROR, END, correlation, body), correlation)

    def _put_handshake(self, opcode: OpCode, body: bytes) -> None:
        self._outbox.put_control(pack(VERSION_1, opcode, 0, 0, body))

    def _close_for(self, code: ErrorCode, reason: str) -> None:
        """Close with the last word that this moment allows."""
        reason = reason[:_WORDS_CHARS]
        self._closed = Closed(code, reason)
        if self._opening is None:
            goodbye = encode(Goodbye(code=code, reason=reason))
            frame = pack(self._version, OpCode.GOODBYE, 0, 0, goodbye)
            self._outbox.put_last(frame)
        elif self._opening.announces:
            self._put_handshake(OpCode.REFUSED, encode(Refused(code=code, reason=reason)))


# -- the two ways through the handshake -----------------------------------------------------------

Answer = tuple[OpCode, bytes] | Opened | Refused | Closed


class DiallerOpening:
    """Hello → Challenge → Proof → Welcome, from the dialler's side."""

    announces: Final = False

    def __init__(self, hello: Hello, key: bytes) -> None:
        self._hello = hello
        self._key = key
        self.hello_body: Final = encode(hello)
        self.datagram_key = b""
        self.expected = frozenset({OpCode.CHALLENGE, OpCode.REFUSED})

    def step(self, frame: Frame) -> Answer:
        """The answer to the master's next frame, whose opcode is one of `expected`."""
        message = decode(frame.opcode, frame.body)
        if isinstance(message, Challenge):
            return self._challenged(message, frame.body)
        if isinstance(message, Welcome):
            return self._welcomed(message)
        assert isinstance(message, Refused)
        return Closed(message.code, message.reason)

    def _challenged(self, challenge: Challenge, body: bytes) -> Answer:
        if not handshake.is_challenge_sound(self._key, self.hello_body, challenge):
            return Closed(
                ErrorCode.UNAUTHENTICATED,
                "the peer could not prove that it is the master of this token",
            )
        self.expected = frozenset({OpCode.WELCOME, OpCode.REFUSED})
        self.datagram_key = handshake.datagram_key(
            self._key, self._hello.client_nonce, challenge.server_nonce
        )
        proof = handshake.dialler_proof(self._key, self.hello_body, body)
        return OpCode.PROOF, encode(Proof(proof=proof))

    def _welcomed(self, welcome: Welcome) -> Answer:
        complaint = handshake.refuse_welcome(self._hello, welcome)
        if complaint:
            return Closed(ErrorCode.PROTOCOL, complaint)
        return Opened(self._hello, welcome)


class ListenerOpening:
    """The same from the master's side."""

    announces: Final = True

    def __init__(
        self, server_nonce: bytes, authenticate: Authenticate, welcome: MakeWelcome
    ) -> None:
        self._server_nonce = server_nonce
        self._authenticate = authenticate
        self._welcome = welcome
        self._hello: Hello | None = None
        self._proof = b""
        self.datagram_key = b""
        self.expected = frozenset({OpCode.HELLO})

    def step(self, frame: Frame) -> Answer:
        """The answer to the dialler's next frame, whose opcode is the one in `expected`."""
        message = decode(frame.opcode, frame.body)
        if isinstance(message, Hello):
            return self._greeted(message, frame.body)
        assert isinstance(message, Proof)
        return self._proved(message)

    def _greeted(self, hello: Hello, body: bytes) -> Answer:
        refused = handshake.refuse_hello(hello)
        if refused is not None:
            return refused
        key = self._authenticate(hello)
        if isinstance(key, Refused):
            return key
        challenge = encode(
            Challenge(
                server_nonce=self._server_nonce,
                proof=handshake.master_proof(key, body, self._server_nonce),
            )
        )
        self._hello = hello
        self._proof = handshake.dialler_proof(key, body, challenge)
        self.datagram_key = handshake.datagram_key(key, hello.client_nonce, self._server_nonce)
        self.expected = frozenset({OpCode.PROOF})
        return OpCode.CHALLENGE, challenge

    def _proved(self, proof: Proof) -> Answer:
        hello = self._hello
        assert hello is not None
        if not handshake.is_proof(proof.proof, self._proof):
            return Refused(code=ErrorCode.UNAUTHENTICATED, reason="the token's proof is wrong")
        version = handshake.agree_version(hello.versions)
        welcome = self._welcome(hello)
        features = handshake.agree_features(welcome.features, hello.features)
        return Opened(hello, msgspec.structs.replace(welcome, version=version, features=features))


Opening = DiallerOpening | ListenerOpening
