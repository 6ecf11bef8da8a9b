"""The store in one SQLite file: journal and history, one transaction a turn.

What history shows changes in the transaction of the event that makes it visible; rows that nobody
can ask for yet gather until then, and are made again from the journal after a crash.

Exactly one connection writes and checkpoints; SQLite before 3.51.3 can corrupt a WAL that two
connections checkpoint and write at once. Another one, read-only, answers questions about history;
it never checkpoints. ``synchronous=FULL``: with less, a power cut takes back commits that were
acknowledged. The journal is sealed by ``codec.py`` because SQLite's own checks do not notice a WAL
whose tail is gone; how far the journal went is also written to a file beside it, now and then.

`open`, `commit`, `tidy` and `close` belong to the engine's writer thread.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from titan_master.core.events import AnyEvent, RunAccepted
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
from titan_proto.messages import JobList, JobView, RunList, RunView
from titan_proto.specs import JobKind
from titan_proto.states import AttemptState, ExitReason, JobState, RunState

_SCHEMA: Final = Path(__file__).parent / "schema"
_MIGRATIONS: Final = ("0001_initial.sql",)
_WAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond this the log is moved into the database between two commits, without waiting for quiet."""
_MARK_EVERY_MS: Final = 1_000
_ROWS_MAX: Final = 512
"""So many rows of live runs wait at most for the end of a run."""
_LOG_LOOKED_AT_EVERY: Final = 64
_MATCHES_MAX: Final = 10

_INSERT_RECORD: Final = "INSERT INTO journal (seq, term, body, crc, chain) VALUES (?, ?, ?, ?, ?)"
_INSERT_RUN: Final = (
    "INSERT INTO history_run (seq, run_id, alias, name, state, jobs, accepted_at_ms) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_READY: Final = "INSERT INTO history_ready VALUES (?, ?, ?, ?)"
_PUT_ATTEMPT: Final = (
    "INSERT OR REPLACE INTO history_attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_JOB: Final = "INSERT OR REPLACE INTO history_job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_END_RUN: Final = (
    "UPDATE history_run SET state = ?, ended_at_ms = ?, counts = ("
    "SELECT json_group_object(state, jobs) FROM ("
    "SELECT state, count(*) AS jobs FROM history_job WHERE run_seq = ? GROUP BY state"
    ")) WHERE seq = ?"
)
_RUN_COLUMNS: Final = (
    "SELECT seq, run_id, alias, name, state, jobs, accepted_at_ms, ended_at_ms, counts "
    "FROM history_run"
)
_ATTEMPTS_OF_JOB: Final = (
    "SELECT job_id, number, worker, worker_id, ended, reason, exit_code, signal, message, "
    "placed_at_ms, started_at_ms, ended_at_ms, stdout_bytes, stderr_bytes, port "
    "FROM history_attempt WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?) "
    "AND job_id = ? ORDER BY number"
)
_ATTEMPTS_OF_JOBS: Final = (
    "SELECT job_id, number, worker, worker_id, ended, reason, exit_code, signal, message, "
    "placed_at_ms, started_at_ms, ended_at_ms, stdout_bytes, stderr_bytes, port "
    "FROM history_attempt WHERE run_seq = ? AND job_id IN (SELECT value FROM json_each(?)) "
    "ORDER BY number"
)
_ENDS_OF_JOBS: Final = (
    "SELECT job_id, state, reason, exit_code, signal, message, lost, ended_at_ms "
    "FROM history_job WHERE run_seq = ? AND job_id IN (SELECT value FROM json_each(?))"
)


class SqliteStore:
    """A `Store` in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = _Mark(path.with_name(path.name + ".mark"))
        self._wal = path.with_name(path.name + "-wal")
        self._connection: sqlite3.Connection | None = None
        self._projection = Projection()
        self._rows = Rows()
        self._chain = codec.GENESIS
        self._seq = 0
        self._marked_at_ms = 0
        self._commits = 0
        self._is_broken = False
        self._history = _History(path)

    # -- the writer's side ------------------------------------------------------------------------

    def open(self) -> Recovered:
        """See `Store.open`."""
        try:
            connection = self._connect()
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self._path} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JournalDamaged(f"not a database that can be read: {error}", 0) from error
        self._connection = connection
        is_sound = False
        try:
            codec.check_format(_read_meta(connection, "format"))
            folded = fold(_records(connection), _read_meta(connection, "history"))
            check_mark(folded.last_seq, folded.chain, self._mark.read())
            is_sound = True
        finally:
            if not is_sound:
                self._let_go()
        self._projection, self._rows = folded.projection, folded.rows
        self._seq, self._chain = folded.last_seq, folded.chain
        term = _read_meta(connection, "term") + 1
        connection.execute("UPDATE meta SET value = ? WHERE key = 'term'", (term,))
        return Recovered(
            state=folded.state,
            term=term,
            last_seq=folded.last_seq,
            last_at_ms=folded.last_at_ms,
        )

    def commit(self, events: Sequence[AnyEvent], term: int) -> int:
        """See `Store.commit`."""
        connection = self._open_connection()
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
            self._after_commit(events[-1].at_ms)
        return seq

    def tidy(self) -> None:
        """Move the log into the database, and write down how far the journal goes."""
        try:
            self._open_connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            self._is_broken = True
            raise StoreError(f"a checkpoint failed: {error}") from error
        self._mark.write(self._seq, self._chain)

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
            self._connection.close()
            self._connection = None

    def _after_commit(self, at_ms: int) -> None:
        if at_ms - self._marked_at_ms >= _MARK_EVERY_MS:
            self._marked_at_ms = at_ms
            self._mark.write(self._seq, self._chain)
        self._commits += 1
        is_time = self._commits % _LOG_LOOKED_AT_EVERY == 0
        if is_time and self._wal.stat().st_size > _WAL_BYTES_MAX:
            self.tidy()

    def _let_go(self) -> None:
        """Close, and leave the files as they are for whoever looks into the damage.

        The last connection to close would move the log into the database; a reader that stays
        a moment longer, and may not write, keeps it from doing so.
        """
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
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute("PRAGMA temp_store = MEMORY")
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

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        """See `History.attempts`."""
        return self._history.attempts(run_id, job_id)


def _read_meta(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise JournalDamaged(f"the table meta has no {key!r}", 0)
    return int(row[0])


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
        (_END_RUN, rows.ended),
    ):
        if lines:
            connection.executemany(statement, lines)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'history'", (seq,))


class _Mark:
    """How far the journal went, in a file beside it: a lower bound, replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(path.name + ".new")
        self._written = 0

    def read(self) -> tuple[int, bytes] | None:
        try:
            words = self._path.read_text(encoding="ascii", errors="replace").split()
        except FileNotFoundError:
            return None
        try:
            return int(words[0]), bytes.fromhex(words[1])
        except (IndexError, ValueError):
            return None  # torn by a power cut: it is only a help

    def write(self, seq: int, chain: bytes) -> None:
        if seq == self._written:
            return
        self._draft.write_text(f"{seq} {chain.hex()}\n", encoding="ascii")
        self._draft.replace(self._path)
        self._written = seq


class _Line(Struct, frozen=True):
    """What a job's view needs of its spec."""

    id: str
    kind: JobKind = JobKind.TASK
    dependencies: tuple[str, ...] = ()


class _Plan(Struct, frozen=True):
    """What the views of a run's jobs need of its spec."""

    jobs: tuple[_Line, ...]


_PLAN: Final = msgspec.msgpack.Decoder(_Plan)


class _History:
    """Questions about ended runs, over a read-only connection that any thread may use in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._plan: tuple[int, _Plan] | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._plan = None

    def attach(self) -> None:
        """Be connected, if that can be."""
        with contextlib.suppress(StoreError):
            self._rows("SELECT count(*) FROM sqlite_master")

    def resolve(self, selector: str) -> tuple[str, ...]:
        if not selector:
            return ()
        ended = "SELECT run_id FROM history_run WHERE ended_at_ms IS NOT NULL AND "
        if selector == "@last":
            newest = self._rows(ended + "1 ORDER BY seq DESC LIMIT 1")
            return tuple(row[0] for row in newest)
        exact = self._rows(
            ended + "(run_id = ?1 OR alias = ?1) ORDER BY seq DESC LIMIT 1", selector
        )
        if exact:
            return (exact[0][0],)
        found: list[str] = []
        beyond = selector[:-1] + chr(ord(selector[-1]) + 1)
        for column in ("run_id", "alias"):
            fits = self._rows(
                f"{ended}{column} >= ? AND {column} < ? ORDER BY seq DESC LIMIT ?",
                selector,
                beyond,
                _MATCHES_MAX,
            )
            found += [row[0] for row in fits if row[0] not in found]
        return tuple(found[:_MATCHES_MAX])

    def run(self, run_id: str) -> RunView | None:
        rows = self._rows(f"{_RUN_COLUMNS} WHERE run_id = ? AND ended_at_ms IS NOT NULL", run_id)
        return _run_view(rows[0]) if rows else None

    def runs(self, cursor: str, limit: int) -> RunList:
        below = int(cursor) if cursor.isdecimal() else 2**62
        rows = self._rows(
            f"{_RUN_COLUMNS} WHERE ended_at_ms IS NOT NULL AND seq < ? ORDER BY seq DESC LIMIT ?",
            below,
            limit + 1,
        )
        page = rows[:limit]
        more = str(page[-1][0]) if len(rows) > limit else ""
        return RunList(runs=tuple(map(_run_view, page)), cursor=more)

    def jobs(self, run_id: str, cursor: str, limit: int) -> JobList | None:
        run = self._ended(run_id)
        if run is None:
            return None
        start = int(cursor) if cursor.isdecimal() else 0
        lines = self._plan_of(run[0]).jobs
        page = lines[start : start + limit]
        more = str(start + limit) if start + limit < len(lines) else ""
        return JobList(jobs=tuple(self._job_views(run, page)), cursor=more)

    def job(self, run_id: str, job_id: str) -> JobView | None:
        run = self._ended(run_id)
        if run is None:
            return None
        lines = [line for line in self._plan_of(run[0]).jobs if line.id == job_id]
        return self._job_views(run, lines)[0] if lines else None

    def newest_with_job(self, job_id: str) -> str | None:
        rows = self._rows(
            "SELECT run.run_id FROM history_job AS job JOIN history_run AS run "
            "ON run.seq = job.run_seq WHERE job.job_id = ? AND run.ended_at_ms IS NOT NULL "
            "ORDER BY job.run_seq DESC LIMIT 1",
            job_id,
        )
        return rows[0][0] if rows else None

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        rows = self._rows(_ATTEMPTS_OF_JOB, run_id, job_id)
        return tuple(_attempt_row(run_id, row) for row in rows)

    # -- inside -----------------------------------------------------------------------------------

    def _ended(self, run_id: str) -> tuple[int, str, str, int] | None:
        rows = self._rows(
            "SELECT seq, run_id, alias, accepted_at_ms FROM history_run "
            "WHERE run_id = ? AND ended_at_ms IS NOT NULL",
            run_id,
        )
        return rows[0] if rows else None

    def _plan_of(self, run_seq: int) -> _Plan:
        """The run's spec; the last one asked for is kept, because lists are asked in pages."""
        kept = self._plan
        if kept is not None and kept[0] == run_seq:
            return kept[1]
        ((body,),) = self._rows("SELECT body FROM journal WHERE seq = ?", run_seq)
        event = codec.decode(body)
        if not isinstance(event, RunAccepted):
            raise StoreError(f"record {run_seq} accepts no run")
        plan = _PLAN.decode(event.spec)
        self._plan = (run_seq, plan)
        return plan

    def _job_views(self, run: tuple[int, str, str, int], lines: Sequence[_Line]) -> list[JobView]:
        run_seq, run_id, alias, accepted_at_ms = run
        wanted = json.dumps([line.id for line in lines])
        ends = {row[0]: row for row in self._rows(_ENDS_OF_JOBS, run_seq, wanted)}
        attempts: dict[str, AttemptRow] = {}
        ports: dict[str, int] = {}
        # In the order of their numbers: of each job the newest stays, and the last known port.
        for row in self._rows(_ATTEMPTS_OF_JOBS, run_seq, wanted):
            attempts[row[0]] = _attempt_row(run_id, row)
            ports[row[0]] = row[-1] or ports.get(row[0], 0)
        ready = self._ready_times(run_seq)
        return [
            _job_view(
                run_id,
                alias,
                line,
                ends.get(line.id),
                attempts.get(line.id),
                ready.get(line.id, 0) if line.dependencies else accepted_at_ms,
                ports.get(line.id, 0),
            )
            for line in lines
        ]

    def _ready_times(self, run_seq: int) -> dict[str, int]:
        rows = self._rows(
            "SELECT at_ms, job_ids FROM history_ready WHERE run_seq = ? ORDER BY seq DESC", run_seq
        )
        # The last one written wins: the earliest.
        return {job_id: at_ms for at_ms, ids in rows for job_id in msgspec.msgpack.decode(ids)}

    def _rows(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._reader().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"history cannot be read: {error}") from error

    def _reader(self) -> sqlite3.Connection:
        if self._connection is None:
            # The lock above is what sqlite3 would otherwise check by thread.
            self._connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA query_only = ON")
        return self._connection


def _run_view(row: tuple[Any, ...]) -> RunView:
    _seq, run_id, alias, name, state, jobs, accepted_at_ms, ended_at_ms, counts = row
    return RunView(
        run_id=run_id,
        alias=alias,
        name=name,
        state=RunState(state),
        submitted_at_ms=accepted_at_ms,
        ended_at_ms=ended_at_ms,
        jobs=jobs,
        counts=json.loads(counts),
    )


def _attempt_row(run_id: str, row: tuple[Any, ...]) -> AttemptRow:
    job_id, number, worker, worker_id, ended, reason, exit_code, signal, message = row[:9]
    placed_at_ms, started_at_ms, ended_at_ms, stdout_bytes, stderr_bytes, _port = row[9:]
    return AttemptRow(
        run_id=run_id,
        job_id=job_id,
        number=number,
        worker=worker,
        worker_id=worker_id,
        ended=bool(ended),
        reason=ExitReason(reason),
        exit_code=exit_code,
        signal=signal,
        message=message,
        placed_at_ms=placed_at_ms,
        started_at_ms=started_at_ms,
        ended_at_ms=ended_at_ms,
        stdout_bytes=stdout_bytes,
        stderr_bytes=stderr_bytes,
    )


def _job_view(
    run_id: str,
    alias: str,
    line: _Line,
    end: tuple[Any, ...] | None,
    attempt: AttemptRow | None,
    ready_at_ms: int,
    port: int,
) -> JobView:
    _id, state, reason, exit_code, signal, message, lost, ended_at_ms = end or (
        line.id, JobState.UNKNOWN.value, ExitReason.UNKNOWN.value, 0, 0, "", 0, 0,
    )  # fmt: skip
    attempt_state = AttemptState.UNKNOWN
    if attempt is not None:
        attempt_state = AttemptState.ENDED if attempt.ended else AttemptState.RUNNING
    return JobView(
        run_id=run_id,
        run_alias=alias,
        job_id=line.id,
        kind=line.kind,
        state=JobState(state),
        attempt=attempt.number if attempt else 0,
        attempt_state=attempt_state,
        worker=attempt.worker if attempt else "",
        reason=ExitReason(reason),
        exit_code=exit_code,
        signal=signal,
        message=message,
        ready_at_ms=ready_at_ms,
        placed_at_ms=attempt.placed_at_ms if attempt else 0,
        started_at_ms=attempt.started_at_ms if attempt else 0,
        ended_at_ms=ended_at_ms,
        lost=lost,
        port=port,
        dependencies=line.dependencies,
        stdout_bytes=attempt.stdout_bytes if attempt else 0,
        stderr_bytes=attempt.stderr_bytes if attempt else 0,
    )
