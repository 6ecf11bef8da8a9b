"""The store in one SQLite file: journal and history, one transaction a turn.

What history shows changes in the transaction of the event that makes it visible; rows that nobody
can ask for yet gather until then, and are made again from the journal after a crash.

Exactly one connection writes and checkpoints; SQLite before 3.51.3 can corrupt a WAL that two
connections checkpoint and write at once. Another one, read-only, answers questions about history;
it never checkpoints. ``synchronous=FULL``: with less, a power cut takes back commits that were
acknowledged. The journal is sealed by ``codec.py`` because SQLite's own checks do not notice a WAL
whose tail is gone; how far the journal went is also written to a file beside it, after each commit.

`open`, `commit`, `tidy` and `close` belong to the engine's writer thread.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from titan_master.core.events import AnyEvent
from titan_master.store import codec
from titan_master.store.base import (
    AttemptRow,
    JournalDamaged,
    Recovered,
    StoreError,
    TermLost,
)
from titan_master.store.projection import Projection, Rows
from titan_master.store.recovery import check_mark, fold
from titan_master.store.sqlite_history import SqliteHistory
from titan_proto.messages import JobList, JobView, RunList, RunView
from titan_proto.states import JobState

_SCHEMA: Final = Path(__file__).parent / "schema"
_MIGRATIONS: Final = ("0001_initial.sql", "0002_reruns.sql", "0003_gates.sql")
_WAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond this the log is moved into the database between two commits, without waiting for quiet."""
_ROWS_MAX: Final = 512
"""So many rows of live runs wait at most for the end of a run."""
_LOG_LOOKED_AT_EVERY: Final = 64
_COPY_BYTES: Final = 1024 * 1024

_INSERT_RECORD: Final = "INSERT INTO journal (seq, term, body, crc, chain) VALUES (?, ?, ?, ?, ?)"
_INSERT_RUN: Final = (
    "INSERT INTO history_run (seq, run_id, alias, name, state, jobs, accepted_at_ms, rerun_of) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_READY: Final = "INSERT INTO history_ready VALUES (?, ?, ?, ?)"
_PUT_ATTEMPT: Final = (
    "INSERT OR REPLACE INTO history_attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_JOB: Final = "INSERT OR REPLACE INTO history_job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_GATE: Final = "INSERT OR REPLACE INTO history_gate VALUES (?, ?, ?, ?, ?, ?, ?)"
_END_RUN: Final = (
    "UPDATE history_run SET state = ?, ended_at_ms = ?, counts = ("
    "SELECT json_group_object(state, jobs) FROM ("
    "SELECT state, count(*) AS jobs FROM history_job WHERE run_seq = ? GROUP BY state"
    ")) WHERE seq = ?"
)


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

    def __init__(self, path: Path, connect: Connect) -> None:
        self._path = path
        self._open_file = connect
        self._mark = _Mark(path.with_name(path.name + ".mark"))
        self._wal = path.with_name(path.name + "-wal")
        self._connection: sqlite3.Connection | None = None
        self._projection = Projection()
        self._rows = Rows()
        self._chain = codec.GENESIS
        self._seq = 0
        self._commits = 0
        self._is_broken = False
        self._history = SqliteHistory(path)

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
            codec.check_format(_read_meta(connection, "format"))
            folded = fold(_records(connection), _read_meta(connection, "history"))
            check_mark(folded.last_seq, folded.chain, self._mark.read())
            term = _read_meta(connection, "term") + 1
            if term <= folded.last_term:
                reason = f"the table meta has term {term - 1}, its records {folded.last_term}"
                raise JournalDamaged(reason, folded.last_seq)
            is_sound = True
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JournalDamaged(str(error), 0) from error
        finally:
            if not is_sound:
                self._let_go()
        self._projection, self._rows = folded.projection, folded.rows
        self._seq, self._chain = folded.last_seq, folded.chain
        try:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'term'", (term,))
        except sqlite3.Error as error:
            self._let_go()
            raise StoreError(f"{self._path} cannot be written: {error}") from error
        return Recovered(
            state=folded.state,
            term=term,
            last_seq=folded.last_seq,
            last_at_ms=folded.last_at_ms,
        )

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
            present = _read_meta(connection, "term")
            if present != term:
                connection.execute("ROLLBACK")
                raise TermLost(term, present)
            connection.executemany(_INSERT_RECORD, records)
            if rows.is_due or len(rows) >= _ROWS_MAX:
                _write_history(connection, rows, seq)
                self._rows = Rows()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._is_broken = True
            raise StoreError(f"a commit failed: {error}") from error
        self._seq, self._chain = seq, chain
        if events:
            self._after_commit()
        return seq

    def tidy(self) -> None:
        """Move the log into the database, and write down how far the journal goes.

        Where the disk is too full for that the log stays as it is: nothing is lost by waiting.
        """
        try:
            self._open_connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                self._is_broken = True
                raise StoreError(f"a checkpoint failed: {error}") from error
        self._mark_place()

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
            self.tidy()

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
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            connection.execute("PRAGMA temp_store = MEMORY")
            _migrate(connection)
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

    def newest_with_job(self, job_id: str) -> str | None:
        """See `History.newest_with_job`."""
        return self._history.newest_with_job(job_id)

    def newest_with_gate(self, job_id: str) -> str | None:
        """See `History.newest_with_gate`."""
        return self._history.newest_with_gate(job_id)

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        """See `History.attempts`."""
        return self._history.attempts(run_id, job_id)

    def spec(self, run_id: str) -> bytes | None:
        """See `History.spec`."""
        return self._history.spec(run_id)

    def ends(self, run_id: str) -> dict[str, JobState]:
        """See `History.ends`."""
        return self._history.ends(run_id)

    def dead(self, cursor: str, limit: int) -> JobList:
        """See `History.dead`."""
        return self._history.dead(cursor, limit)


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to this version's, step by step, each step whole or not at all."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, name in enumerate(_MIGRATIONS, 1):
        if number > version:
            script = (_SCHEMA / name).read_text(encoding="utf-8")
            connection.executescript(f"BEGIN;\n{script}")
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('format', ?)", (codec.JOURNAL_FORMAT,)
            )
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('term', 0), ('history', 0)")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")


def _read_meta(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise JournalDamaged(f"the table meta has no {key!r}", 0)
    if type(row[0]) is not int:
        raise JournalDamaged(f"the table meta has {row[0]!r} for {key!r}", 0)
    return row[0]


def _records(connection: sqlite3.Connection) -> Iterator[codec.Record]:
    """The journal, record by record. What SQLite itself finds broken is damage, too."""
    good = 0
    try:
        cursor = connection.execute("SELECT seq, term, body, crc, chain FROM journal ORDER BY seq")
        for row in cursor:
            record = codec.Record(*row)
            good = record.seq
            yield record
    except sqlite3.OperationalError as error:
        raise StoreError(f"the journal cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(str(error), good) from error


def _write_history(connection: sqlite3.Connection, rows: Rows, seq: int) -> None:
    """Write all rows up to record `seq`, in the transaction that is under way."""
    for statement, lines in (
        (_INSERT_RUN, rows.accepted),
        (_INSERT_READY, rows.ready),
        (_PUT_ATTEMPT, rows.attempts),
        (_PUT_JOB, rows.jobs),
        (_PUT_GATE, rows.gates),
        (_END_RUN, rows.ended),
    ):
        if lines:
            connection.executemany(statement, lines)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'history'", (seq,))


class _Mark:
    """How far the journal went, in a file beside it: one record, written over itself.

    Not synced: it survives the process, and is a lower bound after a power cut.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._written = 0

    def read(self) -> tuple[int, bytes] | None:
        try:
            seq, chain, crc = self._path.read_bytes().split()
            if int(crc, 16) != zlib.crc32(seq + chain):
                return None
            return int(seq), bytes.fromhex(chain.decode("ascii"))
        except (FileNotFoundError, ValueError):
            return None  # not there, or torn by a power cut: it is only a help

    def write(self, seq: int, chain: bytes) -> None:
        if seq == self._written:
            return
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        place, link = b"%020d" % seq, chain.hex().encode("ascii")
        os.pwrite(self._descriptor, b"%s %s %08x\n" % (place, link, zlib.crc32(place + link)), 0)
        self._written = seq

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
