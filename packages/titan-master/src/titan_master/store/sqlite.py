"""The store in one SQLite file: journal and history, one transaction a turn.

What history shows changes in the transaction of the event that makes it visible; rows that nobody
can ask for yet gather until then, and are made again from the journal after a crash.

Exactly one connection writes and checkpoints; SQLite before 3.51.3 can corrupt a WAL that two
connections checkpoint and write at once. Another one, read-only, answers questions about history;
it never checkpoints. ``synchronous=FULL``: with less, a power cut takes back commits that were
acknowledged. The journal is sealed by ``codec.py`` because SQLite's own checks do not notice a WAL
whose tail is gone; how far the journal went is also written to a file beside it, after each commit.

What the journal comes to is folded here a second time, behind the commits, and kept as a checkpoint
(``checkpoint.py``), so that opening reads that and the records since, and older ones may go.

`open`, `commit`, `keep_up`, `checkpoint`, `tidy` and `close` belong to the engine's writer thread.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from titan_master.core.apply import twin
from titan_master.core.events import AnyEvent
from titan_master.store import codec, sqlite_checkpoint
from titan_master.store.base import (
    AttemptRow,
    JournalDamaged,
    JournalKeep,
    Recovered,
    StoreError,
    TermLost,
)
from titan_master.store.checkpoint import Shadow, Total
from titan_master.store.mark import Mark, mark_path
from titan_master.store.projection import Projection, Rows
from titan_master.store.recovery import blank
from titan_master.store.sqlite_checkpoint import Pruning
from titan_master.store.sqlite_history import SqliteHistory
from titan_master.store.sqlite_reading import Base, Found, read, read_meta
from titan_master.store.sqlite_rows import write_history
from titan_master.store.sqlite_schema import begin_format, migrate
from titan_proto.messages import JobList, JobView, RunList, RunView, ServiceView
from titan_proto.messages.worker import Left
from titan_proto.states import JobState

_WAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond this the log is moved into the database between two commits, without waiting for quiet."""
_ROWS_MAX: Final = 512
"""So many rows of live runs wait at most for the end of a run."""
_LOG_LOOKED_AT_EVERY: Final = 64
CHECKPOINT_RECORDS: Final = 10_000
"""A checkpoint is due after so many records ..."""
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
"""... or so many bytes of them, however busy the master is ..."""
QUIET_RECORDS: Final = 1_000
"""... and in a quiet moment after so many ..."""
QUIET_BYTES: Final = 1024 * 1024
"""... or so many bytes; fewer are folded again faster than they are kept."""
_PORTIONS_WHEN_QUIET: Final = 8
_COPY_BYTES: Final = 1024 * 1024
_BUSY_MS: Final = 5_000

_INSERT_RECORD: Final = "INSERT INTO journal (seq, term, body, crc, chain) VALUES (?, ?, ?, ?, ?)"


Connect = Callable[[Path], sqlite3.Connection]
"""Opens the file for the writer, in autocommit mode; fails as sqlite3 does, or with OSError."""


def connect(path: Path) -> sqlite3.Connection:
    """The file as the standard library opens it, once its log is on the disk for certain."""
    write_log_anew(path)
    return sqlite3.connect(path, isolation_level=None)


def write_log_anew(path: Path) -> None:
    """Write what the log of a master that has ended holds over itself, and sync it.

    Where a sync has failed the system takes what was to be written for written: it can be read, is
    not on the disk, and no later sync brings it there. SQLite would take it for durable and build on
    it. The log is empty after an end in good order. Raises OSError.
    """
    try:
        descriptor = os.open(path.with_name(path.name + "-wal"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        offset = 0
        while piece := os.pread(descriptor, _COPY_BYTES, offset):
            offset += os.pwrite(descriptor, piece, offset)
        if offset:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SqliteStore:
    """A `Store` in a file, which `connect` opens for the one who writes."""

    def __init__(
        self,
        path: Path,
        keep: JournalKeep = JournalKeep(),  # noqa: B008 - frozen
        connect: Connect = connect,
    ) -> None:
        self._path = path
        self._keep = keep
        self._open_file = connect
        self._mark = Mark(mark_path(path))
        self._wal = path.with_name(path.name + "-wal")
        self._connection: sqlite3.Connection | None = None
        self._projection = Projection()
        self._rows = Rows()
        self._chain = codec.GENESIS
        self._seq = 0
        self._commits = 0
        self._is_broken = False
        self._history = SqliteHistory(path)
        self._shadow = blank()
        self._lag: deque[tuple[codec.Record, AnyEvent]] = deque()
        """What was committed and is not in the shadow yet."""
        self._total = Total()
        self._pruning = Pruning(keep, Base(0, codec.GENESIS), codec.ALL_PRESENT)
        self._kept_seq = 0
        """The record that the checkpoint on the disk stands on."""
        self._new_bytes = 0
        """Of the records since."""
        self._put_off_seq = -QUIET_RECORDS
        """Where a checkpoint found the disk full; the next is tried a while later."""
        self._term = 0
        self._was_behind = False

    # -- the writer's side ------------------------------------------------------------------------

    def open(self) -> Recovered:
        """See `Store.open`."""
        try:
            connection = self._connect()
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreError(f"{self._path} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JournalDamaged(f"not a database that can be read: {error}", 0) from error
        self._connection = connection
        is_sound = False
        try:
            found = read(connection, self._mark.read())
            is_sound = True
        finally:
            if not is_sound:
                self._let_go()
        # Nothing has been written up to here: what is damaged is left as it was found.
        term = found.term + 1
        is_written = False
        try:
            self._take_over(connection, found)
            connection.execute("UPDATE meta SET value = ? WHERE key = 'term'", (term,))
            is_written = True
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error
        finally:
            if not is_written:
                self._let_go()
        self._term = term
        shadow = self._shadow
        return Recovered(
            state=twin(shadow.state),
            term=term,
            last_seq=shadow.seq,
            last_at_ms=shadow.at_ms,
            is_behind=found.is_behind,
            note=found.note,
        )

    def _take_over(self, connection: sqlite3.Connection, found: Found) -> None:
        """Go on from what was read; raise an older database to this version's format first."""
        folded = found.folded
        self._projection, self._rows = folded.projection, folded.rows
        self._shadow = shadow = folded.shadow
        self._seq, self._chain = shadow.seq, shadow.chain
        self._lag.clear()
        self._was_behind = found.is_behind
        migrate(connection)
        self._pruning = Pruning(self._keep, found.base, found.formats)
        self._new_bytes = 0
        is_older = found.format < codec.JOURNAL_FORMAT
        if is_older or found.note:
            connection.execute("BEGIN IMMEDIATE")
            if is_older:
                begin_format(connection, shadow.seq + 1)
            write_history(connection, self._rows, self._seq)
            total = sqlite_checkpoint.write_whole(connection, shadow, found.base)
            connection.execute("COMMIT")
            self._rows = Rows()
            self._kept(shadow, total)
        elif found.loaded is not None:
            self._total, self._kept_seq = found.loaded.total, found.loaded.head.seq
        else:
            self._total, self._kept_seq = Total(), 0
            shadow.touch_all()

    def commit(self, events: Sequence[AnyEvent], term: int) -> int:
        """See `Store.commit`."""
        connection = self._open_connection()
        if self._is_broken:
            # A sync that failed once may succeed the next time, and would acknowledge a hole.
            raise StoreError("an earlier commit failed: only a new start knows what is on the disk")
        seq, chain = self._seq, self._chain
        records = []
        rows = self._rows
        for event in events:
            seq += 1
            record = codec.seal(chain, seq, term, event)
            chain = record.chain
            records.append(record)
            self._projection.project(seq, event, rows)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._check_term(connection, term)
            connection.executemany(_INSERT_RECORD, records)
            if rows.is_due or len(rows) >= _ROWS_MAX:
                write_history(connection, rows, seq)
                self._rows = Rows()
            if self._was_behind:
                # From here on the journal itself says from where its numbers go on.
                connection.execute("DELETE FROM meta WHERE key = 'behind'")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._is_broken = True
            raise StoreError(f"a commit failed: {error}") from error
        self._was_behind = False
        self._seq, self._chain = seq, chain
        self._lag.extend(zip(records, events, strict=True))
        if events:
            self._after_commit()
        return seq

    def keep_up(self) -> None:
        """See `Store.keep_up`."""
        self._catch_up()
        if self._is_due(CHECKPOINT_RECORDS, CHECKPOINT_BYTES):
            self.checkpoint()
        self._prune(1)

    def checkpoint(self) -> None:
        """See `Store.checkpoint`."""
        self._catch_up()
        connection, shadow = self._open_connection(), self._shadow
        total = self._total.copy()
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._check_term(connection, self._term)
            write_history(connection, self._rows, self._seq)
            sqlite_checkpoint.write(connection, shadow, total)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                # Nothing hangs on it: commits may still fit, and the next one has it all again.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._put_off_seq = self._seq
                return
            self._is_broken = True
            raise StoreError(f"a checkpoint failed: {error}") from error
        self._rows = Rows()
        self._kept(shadow, total)

    def tidy(self) -> None:
        """Keep what has come together, let go of old records, and move the log into the database."""
        if self._is_due(QUIET_RECORDS, QUIET_BYTES):
            self.checkpoint()
        else:
            self._catch_up()
        self._prune(_PORTIONS_WHEN_QUIET)
        self._move_log()

    def close(self) -> None:
        """See `Store.close`."""
        if self._connection is None:
            return
        if self._is_broken:
            # What could not be synced once is not tried again: the next start decides what is true.
            self._let_go()
            return
        self._history.close()
        try:
            self.tidy()
        finally:
            self._mark.close()
            self._connection.close()
            self._connection = None

    def _after_commit(self) -> None:
        self._mark_place()
        self._commits += 1
        is_time = self._commits % _LOG_LOOKED_AT_EVERY == 0
        if is_time and self._wal.stat().st_size > _WAL_BYTES_MAX:
            self._move_log()

    def _catch_up(self) -> None:
        """Fold what was committed; the shadow stands at the journal's end then."""
        records = []
        while self._lag:
            record, event = self._lag.popleft()
            self._shadow.fold(record.seq, record.term, record.chain, record.crc, event)
            self._new_bytes += len(record.body)
            records.append(record)
        self._pruning.grown(records)

    def _is_due(self, records: int, size_bytes: int) -> bool:
        if self._seq - self._put_off_seq < QUIET_RECORDS:
            return False
        lag_bytes = sum(len(record.body) for record, _ in self._lag)
        return self._seq - self._kept_seq >= records or self._new_bytes + lag_bytes >= size_bytes

    def _kept(self, shadow: Shadow, total: Total) -> None:
        """This is on the disk now."""
        shadow.settled()
        self._total = total
        self._kept_seq = shadow.seq
        self._new_bytes = 0

    def _prune(self, portions: int) -> None:
        connection = self._open_connection()
        try:
            for _ in range(portions):
                if not self._pruning.prune(connection, self._kept_seq, self._shadow.at_ms):
                    return
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                # Even letting go takes room first; what has to end needs what is left.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                return
            self._is_broken = True
            raise StoreError(f"old records could not be let go: {error}") from error

    def _check_term(self, connection: sqlite3.Connection, term: int) -> None:
        """No other master has opened this since; otherwise the transaction is given up."""
        present = read_meta(connection, "term")
        if present != term:
            connection.execute("ROLLBACK")
            raise TermLost(term, present)

    def _move_log(self) -> None:
        """Move the log into the database as far as its readers allow, and note the journal's end.

        Where the disk is too full for that the log stays as it is: nothing is lost by waiting.
        """
        connection = self._open_connection()
        try:
            # Not waited for: a backup may be reading, and commits would stand behind it.
            connection.execute("PRAGMA busy_timeout = 0").fetchall()
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}").fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                self._is_broken = True
                raise StoreError(f"the log could not be moved: {error}") from error
        self._mark_place()

    def _mark_place(self) -> None:
        try:
            self._mark.write(self._seq, self._chain)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return  # it says less than it could, and is still true
            self._is_broken = True
            raise StoreError(f"the journal's mark cannot be written: {error.strerror}") from error

    def _let_go(self) -> None:
        """Close, and leave the files as they are for whoever looks into the damage.

        The last connection to close would move the log into the database; a reader that stays
        a moment longer, and may not write, keeps it from doing so.
        """
        self._mark.close()
        self._history.attach()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._history.close()

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is not open")
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = self._open_file(self._path)
        is_ready = False
        try:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}").fetchall()
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            connection.execute("PRAGMA temp_store = MEMORY")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if not version:
                migrate(connection)  # an older one is read first: it may be damaged
            is_ready = True
        finally:
            if not is_ready:
                connection.close()
        return connection

    # -- history ----------------------------------------------------------------------------------

    def resolve(self, selector: str) -> tuple[str, ...]:
        """See `History.resolve`."""
        return self._history.resolve(selector)

    def run(self, run_id: str) -> RunView | None:
        """See `History.run`."""
        return self._history.run(run_id)

    def runs(self, cursor: str, limit: int) -> RunList:
        """See `History.runs`."""
        return self._history.runs(cursor, limit)

    def jobs(self, run_id: str, cursor: str, limit: int) -> JobList | None:
        """See `History.jobs`."""
        return self._history.jobs(run_id, cursor, limit)

    def job(self, run_id: str, job_id: str) -> JobView | None:
        """See `History.job`."""
        return self._history.job(run_id, job_id)

    def spec(self, run_id: str) -> bytes | None:
        """See `History.spec`."""
        return self._history.spec(run_id)

    def newest_with_job(self, job_id: str) -> str | None:
        """See `History.newest_with_job`."""
        return self._history.newest_with_job(job_id)

    def newest_with_gate(self, job_id: str) -> str | None:
        """See `History.newest_with_gate`."""
        return self._history.newest_with_gate(job_id)

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        """See `History.attempts`."""
        return self._history.attempts(run_id, job_id)

    def ends(self, run_id: str) -> dict[str, JobState]:
        """See `History.ends`."""
        return self._history.ends(run_id)

    def outputs(self, run_id: str) -> dict[str, dict[str, str]]:
        """See `History.outputs`."""
        return self._history.outputs(run_id)

    def left(self, run_id: str) -> tuple[tuple[str, Left], ...]:
        """See `History.left`."""
        return self._history.left(run_id)

    def homes(self, run_id: str) -> tuple[tuple[str, str], ...]:
        """See `History.homes`."""
        return self._history.homes(run_id)

    def repeats(self, run_id: str) -> tuple[str, ...]:
        """See `History.repeats`."""
        return self._history.repeats(run_id)

    def services(self, run_id: str, limit: int) -> tuple[ServiceView, ...]:
        """See `History.services`."""
        return self._history.services(run_id, limit)

    def dead(self, cursor: str, limit: int) -> JobList:
        """See `History.dead`."""
        return self._history.dead(cursor, limit)
