"""A checkpoint written into the SQLite file, and the journal behind it let go.

It decides nothing about what is kept: ``checkpoint.py`` says which rows have changed, `JournalKeep`
how much of the journal stays. A checkpoint is one transaction: there is the old one or the new one,
never a part. Called by ``sqlite.py`` on the writer's thread, behind the commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

from titan_master.store import codec
from titan_master.store.base import JournalKeep
from titan_master.store.checkpoint import BASE, JOBS, RUN, Address, Shadow, Total, row
from titan_master.store.sqlite_reading import Base

PRUNED_AT_ONCE: Final = 1_000
"""Records let go in one transaction."""

_PUT: Final = "INSERT OR REPLACE INTO checkpoint (kind, id, seq, body, seal) VALUES (?, ?, ?, ?, ?)"
_SEAL: Final = "SELECT seal FROM checkpoint WHERE kind = ? AND id = ?"
_DROP: Final = "DELETE FROM checkpoint WHERE kind = ? AND id = ?"
_SEALS_OF_RUN: Final = "SELECT seal FROM checkpoint WHERE kind = ? AND id >= ? AND id < ?"
_DROP_OF_RUN: Final = "DELETE FROM checkpoint WHERE kind = ? AND id >= ? AND id < ?"
_KEEP_ACCEPTANCES: Final = (
    "INSERT OR REPLACE INTO history_spec (run_seq, crc, body) "
    "SELECT journal.seq, journal.crc, journal.body FROM history_run "
    "JOIN journal ON journal.seq = history_run.seq "
    "WHERE history_run.seq > ? AND history_run.seq <= ?"
)


def write(connection: sqlite3.Connection, shadow: Shadow, total: Total) -> None:
    """Put and drop what has changed, in the transaction that is under way."""
    puts, drops = shadow.changes()
    for address in drops:
        _drop(connection, address, total)
    for one in puts:
        for (seal,) in connection.execute(_SEAL, (one.kind, one.id)):
            total.remove(seal)
        total.add(one.seal)
    connection.executemany(_PUT, puts)
    connection.execute(_PUT, shadow.head(total, codec.JOURNAL_FORMAT))


def write_whole(connection: sqlite3.Connection, shadow: Shadow, base: Base) -> Total:
    """Write everything anew, in the transaction that is under way."""
    connection.execute("DELETE FROM checkpoint")
    if base.seq:
        put_base(connection, base)
    shadow.touch_all()
    total = Total()
    write(connection, shadow, total)
    return total


def put_base(connection: sqlite3.Connection, base: Base) -> None:
    """Note where the journal begins."""
    connection.execute(_PUT, row(BASE, "", base.seq, msgspec.msgpack.encode(base)))


def _drop(connection: sqlite3.Connection, address: Address, total: Total) -> None:
    seals = connection.execute(_SEAL, address).fetchall()
    connection.execute(_DROP, address)
    kind, row_id = address
    if kind == RUN:
        # "0" is the character after "/": all ids that begin with the run's, and no other.
        jobs = (JOBS, f"{row_id}/", f"{row_id}0")
        seals += connection.execute(_SEALS_OF_RUN, jobs).fetchall()
        connection.execute(_DROP_OF_RUN, jobs)
    for (seal,) in seals:
        total.remove(seal)


class Pruning:
    """Which records behind the checkpoint may go, and how much there is of them."""

    def __init__(self, keep: JournalKeep, base: Base, formats: codec.Formats) -> None:
        self.base = base
        self._keep = keep
        self._formats = formats
        self._bytes: int | None = None
        """Of the journal's bodies; not known before it is first asked for."""

    def grown(self, records: Iterable[codec.Record]) -> None:
        """These were committed."""
        if self._bytes is not None:
            self._bytes += sum(len(record.body) for record in records)

    def prune(self, connection: sqlite3.Connection, checkpoint_seq: int, now_ms: int) -> bool:
        """Let go of one portion, if one is due: a transaction of its own. Whether more may be.

        Args:
            connection: no transaction is under way.
            checkpoint_seq: nothing from this record on may go.
            now_ms: the last record's time: the journal's own clock.
        """
        last = min(self.base.seq + PRUNED_AT_ONCE, checkpoint_seq - 1)
        if last <= self.base.seq:
            return False
        if self._bytes is None:
            (found,) = connection.execute("SELECT sum(length(body)) FROM journal").fetchone()
            self._bytes = int(found or 0)
        row = connection.execute(
            "SELECT body, chain FROM journal WHERE seq = ?", (last,)
        ).fetchone()
        if row is None:
            return False  # a record that is not needed to recover is missing: `doctor` says so
        body, chain = row
        is_too_much = self._bytes > self._keep.bytes
        if not is_too_much and not self._is_old(last, body, now_ms):
            return False
        (gone,) = connection.execute(
            "SELECT sum(length(body)) FROM journal WHERE seq <= ?", (last,)
        ).fetchone()
        base = Base(last, chain)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_KEEP_ACCEPTANCES, (self.base.seq, last))
        connection.execute("DELETE FROM journal WHERE seq <= ?", (last,))
        put_base(connection, base)
        connection.execute("COMMIT")
        self.base = base
        self._bytes -= int(gone or 0)
        return True

    def _is_old(self, last: int, body: bytes, now_ms: int) -> bool:
        """Whether a whole portion is older than what is kept; a part of one waits for the rest."""
        if last - self.base.seq < PRUNED_AT_ONCE:
            return False
        return now_ms - codec.decode(body, self._formats.of(last)).at_ms > self._keep.ms
