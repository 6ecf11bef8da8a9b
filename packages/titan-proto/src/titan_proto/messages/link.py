"""Messages of the link itself: the handshake, liveness, refusals, the end."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from titan_proto.errors import ErrorCode, Problem
from titan_proto.messages.base import HotMessage, Message
from titan_proto.opcodes import OpCode
from titan_proto.states import OpenEnum


class Role(OpenEnum):
    """What a peer asks to be. A token names the roles that it may take."""

    VIEWER = "viewer"
    CLIENT = "client"
    ADMIN = "admin"
    WORKER = "worker"
    UNKNOWN = "unknown"


class Hello(Message, frozen=True, kw_only=True):
    """First frame of the dialler."""

    OPCODE: ClassVar[OpCode] = OpCode.HELLO
    versions: tuple[int, ...]
    role: Role
    software: str
    token_id: str
    client_nonce: bytes
    features: tuple[str, ...] = ()
    last_term: int = 0


class Challenge(Message, frozen=True, kw_only=True):
    """The master's nonce, and its proof that it knows the token."""

    OPCODE: ClassVar[OpCode] = OpCode.CHALLENGE
    server_nonce: bytes
    proof: bytes


class Proof(Message, frozen=True, kw_only=True):
    """The dialler's proof."""

    OPCODE: ClassVar[OpCode] = OpCode.PROOF
    proof: bytes


class Welcome(Message, frozen=True, kw_only=True):
    """The link is open; what was agreed, and where the dialler has arrived."""

    OPCODE: ClassVar[OpCode] = OpCode.WELCOME
    version: int
    cluster_id: str
    software: str
    term: int
    link_id: int
    features: tuple[str, ...] = ()
    cluster_name: str = ""
    limits: dict[str, int] = field(default_factory=dict)


class Refused(Message, frozen=True, kw_only=True):
    """The handshake ends here."""

    OPCODE: ClassVar[OpCode] = OpCode.REFUSED
    code: ErrorCode
    reason: str
    supported: tuple[int, ...] = ()


class Ping(HotMessage, frozen=True):
    """Answered at once with a Pong of the same stamp."""

    OPCODE: ClassVar[OpCode] = OpCode.PING
    stamp: int


class Pong(HotMessage, frozen=True):
    """Echo of a Ping."""

    OPCODE: ClassVar[OpCode] = OpCode.PONG
    stamp: int


class Goodbye(Message, frozen=True, kw_only=True):
    """The sender closes the link, and why."""

    OPCODE: ClassVar[OpCode] = OpCode.GOODBYE
    code: ErrorCode
    reason: str


class Error(Message, frozen=True, kw_only=True):
    """The answer to a request that is refused."""

    OPCODE: ClassVar[OpCode] = OpCode.ERROR
    code: ErrorCode
    message: str
    details: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class Cancel(Message, frozen=True, kw_only=True):
    """The requester no longer wants the exchange of this frame's correlation id."""

    OPCODE: ClassVar[OpCode] = OpCode.CANCEL


class Done(Message, frozen=True, kw_only=True):
    """The end of a stream that has nothing more to say."""

    OPCODE: ClassVar[OpCode] = OpCode.DONE
