"""OpCode ⇄ struct: the one place that encodes and decodes bodies.

Every way in which a body can be bad (not msgpack, wrong types, nested too deep, trailing bytes)
ends as MalformedBody.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from titan_proto.errors import MalformedBody
from titan_proto.messages import REGISTRY, AnyMessage

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[int, Any]] = {
    int(opcode): msgspec.msgpack.Decoder(kind) for opcode, kind in REGISTRY.items()
}


def encode(message: AnyMessage) -> bytes:
    """The body of `message`."""
    return _ENCODER.encode(message)


def is_known(opcode: int) -> bool:
    """Whether this version has a struct for `opcode`."""
    return opcode in _DECODERS


def decode(opcode: int, body: bytes) -> AnyMessage:
    """The message in `body`. Raises MalformedBody; the opcode must be known."""
    try:
        message: AnyMessage = _DECODERS[opcode].decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise MalformedBody(f"{REGISTRY_NAMES[opcode]}: {error}") from error
    return message


REGISTRY_NAMES: Final[dict[int, str]] = {
    int(opcode): kind.__name__ for opcode, kind in REGISTRY.items()
}
