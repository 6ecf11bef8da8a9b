"""Event ⇄ bytes, and the seal that makes damage to the journal visible.

A record is one event. Its CRC catches a flipped bit, its chain (SHA-256 over the chain before it,
its place, its term and its body) catches a record that is missing, moved or replaced. Nothing here
touches a disk. Called by every store; nobody else encodes an event.

`JOURNAL_FORMAT` grows when what is written changes in a way that defaults cannot bridge. Records are
never rewritten: an older one is raised on its way in, step by step, by the upcasters. Each takes the
plain value that a body holds and gives the value that the next format has in its place. The seal is
that of the bytes as they lie there.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from titan_master.core.events import AnyEvent
from titan_master.store.base import JournalDamaged, JournalTooNew

JOURNAL_FORMAT: Final = 2
"""1: whole, from its first record. 2: it may begin behind a checkpoint; its events are those of 1."""
GENESIS: Final = hashlib.sha256(b"titan journal").digest()
"""The chain before the first record."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


def _as_before(event: dict[str, Any]) -> dict[str, Any]:
    return event


UPCASTERS: Final[dict[int, Upcaster]] = {1: _as_before}
"""By the format that they lead away from, each to the next one."""

_TYPES: Final = (int, int, bytes, int, bytes)
_PLACE: Final = struct.Struct(">QQI")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnyEvent]] = msgspec.msgpack.Decoder(AnyEvent)
_PLAIN: Final = msgspec.msgpack.Decoder()
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError)


class Record(NamedTuple):
    """One event as it lies in a journal."""

    seq: int
    term: int
    body: bytes
    crc: int
    chain: bytes


class Formats:
    """Which record has which format: one entry at the journal's beginning, one per upgrade."""

    def __init__(self, since: Mapping[int, int]) -> None:
        self._firsts = sorted(since)
        self._formats = [since[first] for first in self._firsts]

    def of(self, seq: int) -> int:
        """The format of the record at `seq`."""
        return self._formats[max(0, bisect_right(self._firsts, seq) - 1)]

    def items(self) -> Iterator[tuple[int, int]]:
        """The entries: from which record on, which format."""
        yield from zip(self._firsts, self._formats, strict=True)


ALL_PRESENT: Final = Formats({1: JOURNAL_FORMAT})
"""Of a journal that this version began."""


def check_format(found: int) -> None:
    """Refuse a journal that a newer master wrote. Raises JournalTooNew."""
    if found > JOURNAL_FORMAT:
        raise JournalTooNew(found, JOURNAL_FORMAT)


def encode(event: AnyEvent) -> bytes:
    """The body of an event's record."""
    return _ENCODER.encode(event)


def decode(body: bytes, written: int = JOURNAL_FORMAT) -> AnyEvent:
    """The event in a body of the format `written`. Raises msgspec.DecodeError."""
    if written != JOURNAL_FORMAT:
        body = raised(body, written, UPCASTERS)
    return _DECODER.decode(body)


def raised(body: bytes, written: int, upcasters: Mapping[int, Upcaster]) -> bytes:
    """A body of an older format as the present one has it. Raises msgspec.DecodeError."""
    steps = [upcasters[number] for number in range(written, JOURNAL_FORMAT)]
    if all(step is _as_before for step in steps):
        return body
    value = _PLAIN.decode(body)
    for step in steps:
        value = step(value)
    return _ENCODER.encode(value)


def seal(previous: bytes, seq: int, term: int, event: AnyEvent) -> Record:
    """The record of `event` at `seq`, behind the record whose chain is `previous`."""
    body = _ENCODER.encode(event)
    crc = zlib.crc32(body)
    return Record(seq, term, body, crc, _link(previous, seq, term, crc, body))


def verify(previous: bytes, expected_seq: int, record: Record) -> None:
    """Compare a record, which must be the one at `expected_seq`, with its seal.

    Raises JournalDamaged.
    """
    good = expected_seq - 1
    if record.seq != expected_seq:
        raise JournalDamaged(f"record {expected_seq} is missing, {record.seq} follows", good)
    if tuple(map(type, record)) != _TYPES or record.term < 0:
        # A flipped bit may make a column's number a text, or nothing at all.
        raise JournalDamaged(f"record {record.seq} has columns of other types", good)
    if zlib.crc32(record.body) != record.crc:
        raise JournalDamaged(f"record {record.seq} fails its checksum", good)
    if not _follows(previous, record):
        raise JournalDamaged(f"record {record.seq} does not follow the one before it", good)


def unseal(
    previous: bytes, expected_seq: int, record: Record, formats: Formats = ALL_PRESENT
) -> AnyEvent:
    """The event of a record that must be the one at `expected_seq`. Raises JournalDamaged."""
    verify(previous, expected_seq, record)
    try:
        return decode(record.body, formats.of(record.seq))
    except (*_UNREADABLE, KeyError, TypeError) as error:
        reason = f"record {record.seq} is no event: {error}"
        raise JournalDamaged(reason, expected_seq - 1) from error


def format_crc(seq: int, written: int) -> int:
    """What makes damage to an entry of `Formats` visible."""
    return zlib.crc32(b"%d from %d" % (written, seq))


def row_crc(values: Sequence[object]) -> int:
    """What makes damage to a row of history visible."""
    return zlib.crc32(_ENCODER.encode(values))


def _follows(previous: bytes, record: Record) -> bool:
    try:
        return _link(previous, record.seq, record.term, record.crc, record.body) == record.chain
    except struct.error:
        return False  # a number that no record has: below zero, or too large


def _link(previous: bytes, seq: int, term: int, crc: int, body: bytes) -> bytes:
    chain = hashlib.sha256(previous)
    chain.update(_PLACE.pack(seq, term, crc))
    chain.update(body)
    return chain.digest()
