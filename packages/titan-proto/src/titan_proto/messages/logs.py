"""Messages that carry log bytes. They never pass through a core.

A worker ships what an attempt wrote by offset; the master stores it and serves it from there.
"""

from __future__ import annotations

from typing import ClassVar

from titan_proto.ids import AttemptRef
from titan_proto.messages.base import HotMessage, Request
from titan_proto.opcodes import OpCode
from titan_proto.states import OpenEnum

STDOUT = 1
STDERR = 2


class LogStream(OpenEnum):
    """Which of an attempt's outputs; BOTH is them merged by the time they were seen."""

    STDOUT = "stdout"
    STDERR = "stderr"
    BOTH = "both"
    UNKNOWN = "unknown"


class LogChunk(HotMessage, frozen=True):
    """Worker → master: bytes of one stream of one attempt, from `offset` on."""

    OPCODE: ClassVar[OpCode] = OpCode.LOG_CHUNK
    ref: AttemptRef
    stream: int
    offset: int
    seen_at_ms: int
    data: bytes


class LogGap(HotMessage, frozen=True):
    """Worker → master: what of one stream is not sent up to `offset` was dropped, and never comes.

    Sent only where the feature ``log-gaps`` was agreed on.
    """

    OPCODE: ClassVar[OpCode] = OpCode.LOG_GAP
    ref: AttemptRef
    stream: int
    offset: int
    seen_at_ms: int


class LogAck(HotMessage, frozen=True):
    """Master → worker: everything before `offset` is stored; ship from there."""

    OPCODE: ClassVar[OpCode] = OpCode.LOG_ACK
    ref: AttemptRef
    stream: int
    offset: int


class LogData(HotMessage, frozen=True):
    """Master → client: a piece of a log. `position` resumes a broken read."""

    OPCODE: ClassVar[OpCode] = OpCode.LOG_DATA
    number: int
    """The attempt that wrote it."""
    stream: int
    position: int
    """Where the reader stands after this piece; opaque but for `ReadLog.position`."""
    data: bytes


class LogPiece(LogData, frozen=True):
    """The same, in answer to a ReadLog with `places`: with where it stands, and when it came."""

    OPCODE: ClassVar[OpCode] = OpCode.LOG_PIECE
    offset: int
    """Where in its output the piece begins."""
    seen_at_ms: int
    """When the worker saw it; 0: not known."""
    dropped: int
    """Instead of data: so many bytes of this output were dropped here."""


class ReadLog(Request[LogData], frozen=True, kw_only=True):
    """A stream of LogData, ended by Done. With `follow`, Done comes once the attempt has ended."""

    OPCODE: ClassVar[OpCode] = OpCode.READ_LOG
    run: str
    job: str
    attempt: int = 0
    """0: the newest."""
    stream: LogStream = LogStream.BOTH
    follow: bool = False
    position: int = 0
    tail_lines: int = 0
    """Start so that about the last so many lines come; 0: from `position`."""
    since_ms: int = 0
    """Start with what the worker saw then or later, as far as that is known; 0: from `position`."""
    places: bool = False
    """Answer with LogPiece. Else what was dropped is told by a line among the data."""
