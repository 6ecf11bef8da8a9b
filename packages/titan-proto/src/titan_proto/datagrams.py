"""Copies of fresh pieces of logs, a datagram each: ahead of everything that waits on the link.

Decides what such a datagram looks like and whether one is genuine: sealed under a key that both ends
of one open link have made of its handshake, and good for nothing elsewhere. A copy may be lost, come
twice, or late; the same bytes come on the link too, and that is what counts. So whatever is odd about a
datagram, nobody is told. It holds no state and never sees a socket. Called by the worker's `copies` and
the master's `net/datagrams`.

    "TUL1" | link id 8B | HMAC-SHA256 32B over all the rest | a LogChunk as its body on the link
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct as Layout
from typing import Final

from titan_proto.codec import decode, encode
from titan_proto.errors import MalformedBody
from titan_proto.limits import DATAGRAM_LOG_BYTES
from titan_proto.messages.logs import LogChunk
from titan_proto.opcodes import OpCode

_HEAD: Final = Layout(">4sQ")
_MAGIC: Final = b"TUL1"
_MAC_BYTES: Final = hashlib.sha256().digest_size
_BODY: Final = _HEAD.size + _MAC_BYTES


def seal(key: bytes, link_id: int, chunk: LogChunk) -> bytes:
    """The datagram of a chunk with at most DATAGRAM_LOG_BYTES of data."""
    head, body = _HEAD.pack(_MAGIC, link_id), encode(chunk)
    return head + _mac(key, head, body) + body


def link_of(datagram: bytes) -> int:
    """The number of the link that it claims to belong to; 0: it is none of these datagrams."""
    if len(datagram) <= _BODY:
        return 0
    magic, link_id = _HEAD.unpack_from(datagram)
    return int(link_id) if magic == _MAGIC else 0


def unseal(key: bytes, datagram: bytes) -> LogChunk | None:
    """The chunk, if whoever sent it has the key and it is one that may be sent so."""
    head, mac, body = datagram[: _HEAD.size], datagram[_HEAD.size : _BODY], datagram[_BODY:]
    if not hmac.compare_digest(mac, _mac(key, head, body)):
        return None
    try:
        chunk = decode(OpCode.LOG_CHUNK, body)
    except MalformedBody:
        return None
    assert isinstance(chunk, LogChunk)
    return chunk if 0 < len(chunk.data) <= DATAGRAM_LOG_BYTES else None


def _mac(key: bytes, head: bytes, body: bytes) -> bytes:
    return hmac.new(key, head + body, hashlib.sha256).digest()
