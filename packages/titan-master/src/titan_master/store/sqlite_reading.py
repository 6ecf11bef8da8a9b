"""What a master's SQLite file holds, verified; nothing here writes.

It decides whether a checkpoint and the records behind it can be believed, and where reading begins: at
the checkpoint, or at the first record where that is asked for, or where the checkpoint is damaged
and the journal is still whole, which then proves the same. Called by ``sqlite.py`` before it writes
a byte, and by the commands that look at a journal, a running master's or a copy's.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from titan_master.core.events import RunAccepted
from titan_master.store import codec
from titan_master.store.base import JournalDamaged, StoreError
from titan_master.store.checkpoint import BASE, CheckpointDamaged, Loaded, Row, check_seal, load
from titan_master.store.recovery import Folded, blank, check_mark, fold

CHECKPOINTS_SINCE: Final = 4
"""The version of the tables that first had them."""

_RECORDS: Final = "SELECT seq, term, body, crc, chain FROM journal WHERE seq > ? ORDER BY seq"
_ROWS: Final = "SELECT kind, id, seq, body, seal FROM checkpoint"
ACCEPTANCE: Final = (
    "WITH wanted (place) AS (VALUES (?)) "
    "SELECT crc, body FROM wanted JOIN history_spec ON run_seq = place "
    "UNION ALL SELECT crc, body FROM wanted JOIN journal ON seq = place LIMIT 1"
)
"""The record that accepted a run, wherever it lies by now."""


class Base(Struct, frozen=True, array_like=True):
    """The last record that the journal has let go; the first one that it has follows."""

    seq: int
    chain: bytes


class Found(Struct, kw_only=True):
    """A database that was read and verified."""

    version: int
    """Of its tables."""
    format: int
    """Of its journal, at the end."""
    formats: codec.Formats
    base: Base
    term: int
    """Of the last master."""
    history_seq: int
    is_behind: bool
    loaded: Loaded | None
    """The checkpoint that was begun at; its shadow has gone on to the end since."""
    folded: Folded
    note: str
    """What should be told, though nothing is lost."""


@contextlib.contextmanager
def one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Whatever a master commits meanwhile is not seen."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, to a file that another process may be writing."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def read(
    connection: sqlite3.Connection,
    mark: tuple[int, bytes] | None,
    *,
    from_start: bool = False,
    until: int | None = None,
) -> Found:
    """Verify a journal and fold it.

    Args:
        connection: to the database.
        mark: how far it went, as somebody wrote down; None where nobody did.
        from_start: begin at the first record rather than at the checkpoint.
        until: read no further than to this record, and ask only whether it can be read so far.

    Raises JournalDamaged, JournalTooNew, StoreError.
    """
    try:
        return _read(connection, mark, from_start=from_start, until=until)
    except sqlite3.OperationalError as error:
        raise StoreError(f"the database cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(str(error), 0) from error


def _read(
    connection: sqlite3.Connection,
    mark: tuple[int, bytes] | None,
    *,
    from_start: bool,
    until: int | None,
) -> Found:
    written = read_meta(connection, "format")
    codec.check_format(written)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    base, formats = read_beginning(connection)
    loaded, note = None, ""
    if version >= CHECKPOINTS_SINCE:
        loaded, note = _checkpoint(connection, formats, base, from_start=from_start)
    if loaded is None and base.seq:
        raise JournalDamaged(
            f"its first {base.seq} records are gone, and no checkpoint is there", 0
        )
    shadow = blank() if loaded is None else loaded.shadow
    if loaded is not None and until is None:
        _check_anchor(connection, loaded, base)
        (first,) = connection.execute("SELECT min(seq) FROM journal").fetchone()
        if first is not None and first != base.seq + 1:
            note = f"the records before {first} are missing; no start needs them"
            base = Base(first - 1, b"")
    history_seq = read_meta(connection, "history")
    records = read_records(connection, shadow.seq, until)
    folded = fold(shadow, records, formats, history_seq)
    term = read_meta(connection, "term")
    if until is None:
        check_mark(shadow.seq, shadow.chain, mark)
        if history_seq > shadow.seq:
            reason = f"history knows of record {history_seq}, it ends at {shadow.seq}"
            raise JournalDamaged(reason, shadow.seq)
        if term < shadow.term:
            reason = f"the table meta has term {term}, its records {shadow.term}"
            raise JournalDamaged(reason, shadow.seq)
    return Found(
        version=version,
        format=written,
        formats=formats,
        base=base,
        term=term,
        history_seq=history_seq,
        is_behind=read_flag(connection, "behind"),
        loaded=loaded,
        folded=folded,
        note=note,
    )


def _checkpoint(
    connection: sqlite3.Connection, formats: codec.Formats, base: Base, *, from_start: bool
) -> tuple[Loaded | None, str]:
    if from_start and not base.seq:
        return None, ""
    rows = (Row(*found) for found in connection.execute(f"{_ROWS} WHERE kind <> ?", (BASE,)))

    def accepted(place: int, crc: int) -> RunAccepted:
        return read_acceptance(connection, place, crc, formats)

    try:
        return load(rows, accepted), ""
    except CheckpointDamaged as error:
        if base.seq:
            raise
        return None, f"{error.reason}; the journal is whole, and was read from its first record"


def _check_anchor(connection: sqlite3.Connection, loaded: Loaded, base: Base) -> None:
    """The record that a checkpoint stands on is there, and is the same one."""
    head = loaded.head
    if base.seq == head.seq:
        chain: bytes | None = base.chain
    else:
        row = connection.execute("SELECT chain FROM journal WHERE seq = ?", (head.seq,)).fetchone()
        chain = row[0] if row else None
    if chain != head.chain:
        raise JournalDamaged(f"the checkpoint does not stand on record {head.seq}", head.seq)


def read_meta(connection: sqlite3.Connection, key: str) -> int:
    """A number that must be there. Raises JournalDamaged."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise JournalDamaged(f"the table meta has no {key!r}", 0)
    if type(row[0]) is not int:
        raise JournalDamaged(f"the table meta has {row[0]!r} for {key!r}", 0)
    return row[0]


def read_flag(connection: sqlite3.Connection, key: str) -> bool:
    """Whether a mark was set that is usually absent."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row is not None and bool(row[0])


def read_beginning(connection: sqlite3.Connection) -> tuple[Base, codec.Formats]:
    """Where the journal begins, and what its records are written in. Raises JournalDamaged."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < CHECKPOINTS_SINCE:
        return Base(0, codec.GENESIS), codec.Formats({1: 1})
    return read_base(connection), read_formats(connection)


def read_formats(connection: sqlite3.Connection) -> codec.Formats:
    """Which records have which format. Raises JournalDamaged."""
    since = {}
    for seq, written, crc in connection.execute("SELECT seq, format, crc FROM journal_format"):
        # A flipped bit in the head of a row may leave no number at all.
        if type(written) is not int or codec.format_crc(seq, written) != crc:
            raise JournalDamaged("the table of its formats fails its checksum", 0)
        since[seq] = written
    if 1 not in since:
        raise JournalDamaged("the table of its formats has no beginning", 0)
    return codec.Formats(since)


def read_base(connection: sqlite3.Connection) -> Base:
    """Where the journal begins now. Raises JournalDamaged."""
    row = connection.execute(f"{_ROWS} WHERE kind = ?", (BASE,)).fetchone()
    if row is None:
        return Base(0, codec.GENESIS)
    found = Row(*row)
    check_seal(found)
    return msgspec.msgpack.decode(found.body, type=Base)


def read_records(
    connection: sqlite3.Connection, after: int, until: int | None = None
) -> Iterator[codec.Record]:
    """The journal behind a record, one by one. What SQLite itself finds broken is damage, too."""
    good = after
    try:
        for row in connection.execute(_RECORDS, (after,)):
            record = codec.Record(*row)
            if until is not None and record.seq > until:
                return
            good = record.seq
            yield record
    except sqlite3.OperationalError as error:
        raise StoreError(f"the journal cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(str(error), good) from error


def read_acceptance(
    connection: sqlite3.Connection, place: int, crc: int, formats: codec.Formats
) -> RunAccepted:
    """The event of the record that accepted a run, from the journal or from where it went.

    Raises CheckpointDamaged where it is not what was written.
    """
    row = connection.execute(ACCEPTANCE, (place,)).fetchone()
    if row is not None and row[0] == crc:
        event = accepted_in(row, formats.of(place))
        if event is not None:
            return event
    raise CheckpointDamaged(f"record {place}, which accepted a run, is missing or is another")


def accepted_in(row: tuple[int, bytes], written: int) -> RunAccepted | None:
    """The event in a row of `ACCEPTANCE`; None where it is not what was written."""
    crc, body = row
    if zlib.crc32(body) != crc:
        return None
    event = codec.decode(body, written)
    return event if isinstance(event, RunAccepted) else None
