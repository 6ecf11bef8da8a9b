"""What every message is: a frozen struct with an opcode, and, for a request, its reply's type.

Maps by default, so that fields can be added; arrays for the few hot messages, append only.
"""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from msgspec import Struct

from titan_proto.opcodes import OpCode


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A body encoded as a map. Unknown fields are ignored, absent ones take their default."""

    OPCODE: ClassVar[OpCode]
    RESERVED: ClassVar[frozenset[str]] = frozenset()
    """Names of retired fields, never to be used again."""


class HotMessage(Struct, frozen=True, array_like=True):
    """A body encoded as an array: positional for ever, append only, nothing optional inside."""

    OPCODE: ClassVar[OpCode]


ReplyT = TypeVar("ReplyT")


class Request(Message, Generic[ReplyT], frozen=True, kw_only=True, omit_defaults=True):
    """A message that opens an exchange; the type argument is what comes back."""
