"""Event ⇄ bytes, and the seal that makes damage to the journal visible.

A record is one event. Its CRC catches a flipped bit, its chain (SHA-256 over the chain before it,
its place, its term and its body) catches a record that is missing, moved or replaced. Nothing here
touches a disk. Called by every store; nobody else encodes an event.

`JOURNAL_FORMAT` grows when an event changes in a way that defaults cannot bridge; a store then
keeps a table of upcasters here, from each older format to the next.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Final, NamedTuple

import msgspec

from titan_master.core.events import AnyEvent
from titan_master.store.base import JournalDamaged, JournalTooNew

JOURNAL_FORMAT: Final = 1
GENESIS: Final = hashlib.sha256(b"titan journal").digest()
"""The chain before the first record."""

_TYPES: Final = (int, int, bytes, int, bytes)
_PLACE: Final = struct.Struct(">QQI")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnyEvent]] = msgspec.msgpack.Decoder(AnyEvent)


class Record(NamedTuple):
    """One event as it lies in a journal."""

    seq: int
    term: int
    body: bytes
    crc: int
    chain: bytes


def check_format(found: int) -> None:
    """Refuse a journal that a newer master wrote. Raises JournalTooNew."""
    if found > JOURNAL_FORMAT:
        raise JournalTooNew(found, JOURNAL_FORMAT)


def encode(event: AnyEvent) -> bytes:
    """The body of an event's record."""
    return _ENCODER.encode(event)


def decode(body: bytes) -> AnyEvent:
    """The event in a body. Raises msgspec.DecodeError."""
    return _DECODER.decode(body)


def seal(previous: bytes, seq: int, term: int, event: AnyEvent) -> Record:
    """The record of `event` at `seq`, behind the record whose chain is `previous`."""
    body = _ENCODER.encode(event)
    crc = zlib.crc32(body)
    return Record(seq, term, body, crc, _link(previous, seq, term, crc, body))


def unseal(previous: bytes, expected_seq: int, record: Record) -> AnyEvent:
    """The event of a record that must be the one at `expected_seq`. Raises JournalDamaged."""
    good = expected_seq - 1
    if record.seq != expected_seq:
        raise JournalDamaged(f"record {expected_seq} is missing, {record.seq} follows", good)
    if tuple(map(type, record)) != _TYPES or record.term < 0:
        # A flipped bit may make a column's number a text, or nothing at all.
        raise JournalDamaged(f"record {record.seq} has columns of other types", good)
    if zlib.crc32(record.body) != record.crc:
        raise JournalDamaged(f"record {record.seq} fails its checksum", good)
    if _link(previous, record.seq, record.term, record.crc, record.body) != record.chain:
        raise JournalDamaged(f"record {record.seq} does not follow the one before it", good)
    try:
        return _DECODER.decode(record.body)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise JournalDamaged(f"record {record.seq} is no event: {error}", good) from error


def _link(previous: bytes, seq: int, term: int, crc: int, body: bytes) -> bytes:
    chain = hashlib.sha256(previous)
    chain.update(_PLACE.pack(seq, term, crc))
    chain.update(body)
    return chain.digest()
