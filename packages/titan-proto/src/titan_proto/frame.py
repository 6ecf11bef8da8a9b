"""The frame: an 8-byte header, a correlation id, a body.

    | version 1B | opcode 1B | flags 1B | spare 1B | payload length 4B |   big-endian
    | correlation id 4B (0 = no exchange) | body |

The payload is the correlation id and the body together. This layout never changes, in any
version of the protocol. Nothing here allocates for a length that a peer merely claims.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from titan_proto.errors import ErrorCode, FrameTooLarge, RemoteProtocolError
from titan_proto.limits import FRAME_PAYLOAD_BYTES

HEADER_BYTES: Final = 8
CORRELATION_BYTES: Final = 4
PREFIX_BYTES: Final = HEADER_BYTES + CORRELATION_BYTES
VERSION_1: Final = 1

END: Final = 0x01
"""Last frame that its sender sends in this exchange."""
COMPRESSED: Final = 0x02
"""Reserved."""
MUST_UNDERSTAND: Final = 0xF0
"""Flags in this mask may not be ignored: an unknown one refuses the frame."""

_PREFIX: Final = struct.Struct(">BBBBII")
CORRELATION_MAX: Final = 0xFFFF_FFFF


class Frame(NamedTuple):
    """One frame, its body still undecoded."""

    version: int
    opcode: int
    flags: int
    correlation: int
    body: bytes

    @property
    def end(self) -> bool:
        """Whether the sender closes the exchange with this frame."""
        return bool(self.flags & END)


def pack(version: int, opcode: int, flags: int, correlation: int, body: bytes) -> bytes:
    """The bytes of one frame."""
    length = CORRELATION_BYTES + len(body)
    if length > FRAME_PAYLOAD_BYTES:
        raise FrameTooLarge(
            f"frame payload of {length} bytes exceeds FRAME_PAYLOAD_BYTES ({FRAME_PAYLOAD_BYTES})"
        )
    return _PREFIX.pack(version, opcode, flags, 0, length, correlation) + body


def unpack(buffer: bytearray, start: int, payload_max: int) -> tuple[Frame, int] | None:
    """The frame that begins at `start`, and where the next one begins; None while incomplete.

    Raises RemoteProtocolError for a header that can never become a frame of at most
    `payload_max` bytes of payload.
    """
    if len(buffer) - start < HEADER_BYTES:
        return None
    length = int.from_bytes(buffer[start + 4 : start + 8], "big")
    if length < CORRELATION_BYTES:
        raise RemoteProtocolError(f"payload length {length} leaves no room for a correlation id")
    if length > payload_max:
        raise RemoteProtocolError(
            f"payload length {length} exceeds the limit of {payload_max} bytes",
            ErrorCode.LIMIT_EXCEEDED,
        )
    flags = buffer[start + 2]
    if flags & MUST_UNDERSTAND:
        raise RemoteProtocolError(f"unknown must-understand flag in 0x{flags:02x}")
    end = start + HEADER_BYTES + length
    if len(buffer) < end:
        return None
    version, opcode, flags, _spare, _length, correlation = _PREFIX.unpack_from(buffer, start)
    body = bytes(memoryview(buffer)[start + PREFIX_BYTES : end])
    return Frame(version, opcode, flags, correlation, body), end
