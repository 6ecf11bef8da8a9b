"""Questions about ended runs, put to the SQLite file over a connection that may not write.

It decides how rows become views; what the rows say was decided by ``projection.py``. It never
checkpoints and never holds a read open between two questions. Called by ``sqlite.py``, from whichever
thread asks.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from titan_master.core.events import RunAccepted
from titan_master.store import codec
from titan_master.store.base import AttemptRow, HistoryDamaged, StoreError, position
from titan_master.store.sqlite_reading import ACCEPTANCE, accepted_in
from titan_master.store.sqlite_rows import select_sealed
from titan_proto.messages import Fired, GateView, JobList, JobView, RunList, RunView, ServiceView
from titan_proto.messages.worker import Left
from titan_proto.outputs import size_of
from titan_proto.specs import GateSection, JobKind, Resources, RetryPolicy, Shape
from titan_proto.states import DECISIONS, AttemptState, ExitReason, JobState, RunState, ServiceState

_MATCHES_MAX: Final = 10
_NAMES_LISTED: Final = 10_000
"""A view names no more dependencies, and a page ends once it has named so many: as the core's."""
_CHARS_OF_A_NAME: Final = 64
"""So many characters of a message count as one name: they take as much of a frame."""
_RUN_COLUMNS: Final = select_sealed("history_run")
_ATTEMPTS_OF_JOB: Final = select_sealed(
    "history_attempt",
    "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?) AND job_id = ? ORDER BY number",
)
_ATTEMPTS_OF_JOBS: Final = select_sealed(
    "history_attempt",
    "WHERE run_seq = ? AND job_id IN (SELECT value FROM json_each(?)) ORDER BY number",
)
_ENDS_OF_JOBS: Final = select_sealed(
    "history_job", "WHERE run_seq = ? AND job_id IN (SELECT value FROM json_each(?))"
)
_ENDS_OF_RUN: Final = select_sealed(
    "history_job", "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?)"
)
_GATES_OF_JOBS: Final = select_sealed(
    "history_gate", "WHERE run_seq = ? AND job_id IN (SELECT value FROM json_each(?))"
)
_OUTPUTS_OF_JOBS: Final = select_sealed(
    "history_output", "WHERE run_seq = ? AND job_id IN (SELECT value FROM json_each(?))"
)
_OUTPUTS_OF_RUN: Final = select_sealed(
    "history_output", "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?)"
)
_LEFT_OF_RUN: Final = select_sealed(
    "history_left",
    "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?) ORDER BY place",
)
_HOMES_OF_RUN: Final = select_sealed(
    "history_home", "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?)"
)
_ATTEMPT: Final = select_sealed(
    "history_attempt", "WHERE run_seq = ? AND job_id = ? AND number = ?"
)
_SERVICES: Final = select_sealed("history_service", "ORDER BY seq DESC LIMIT ?")
_SERVICES_OF_RUN: Final = select_sealed(
    "history_service",
    "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = ?) ORDER BY seq DESC LIMIT ?",
)
_NEVER_DECIDED: Final = ("", 0, 0, 0, "", "")
_READY_TIMES: Final = select_sealed("history_ready", "WHERE run_seq = ? ORDER BY seq DESC")
_FORMATS: Final = "SELECT seq, format, crc FROM journal_format"
_RUN_OF_JOB: Final = "SELECT seq, run_id, alias, accepted_at_ms FROM history_run WHERE seq = ?"
# The newest run first, its jobs by name: in the order of the index of failed jobs.
_DEAD_JOBS: Final = (
    "SELECT job.run_seq, job.job_id FROM history_job AS job JOIN history_run AS run "
    "ON run.seq = job.run_seq WHERE job.state = 'FAILED' AND run.ended_at_ms IS NOT NULL "
    "AND job.reason NOT IN (SELECT value FROM json_each(?)) "
    "AND (job.run_seq < ? OR (job.run_seq = ? AND job.job_id > ?)) "
    "ORDER BY job.run_seq DESC, job.job_id LIMIT ?"
)


class _Start(Struct, frozen=True):
    """And of its launch."""

    resources: Resources | None = None


class _Line(Struct, frozen=True):
    """What a job's view needs of its spec."""

    id: str
    kind: JobKind = JobKind.TASK
    dependencies: tuple[str, ...] = ()
    retries: RetryPolicy = RetryPolicy()
    gate: GateSection | None = None
    launch: _Start = _Start()


class _Plan(Struct, frozen=True):
    """What the views of a run's jobs need of its spec."""

    jobs: tuple[_Line, ...]
    shapes: dict[str, Shape] = field(default_factory=dict)


_PLAN: Final = msgspec.msgpack.Decoder(_Plan)
_FIRED: Final = msgspec.msgpack.Decoder(Fired)
_LEFT: Final = msgspec.msgpack.Decoder(Left)
_OUTPUTS: Final = msgspec.msgpack.Decoder(dict[str, str])


class SqliteHistory:
    """Questions about ended runs, over a read-only connection that any thread may use in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._plan: tuple[int, _Plan] | None = None

    def close(self) -> None:
        """Let go of the file; the next question opens it again."""
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
        """The ended runs that a selector fits: the exact one alone, else by prefix, out of an index."""
        if not selector.isascii() or not selector:
            return ()  # ids and aliases are of letters, digits and hyphens
        ended = "SELECT run_id FROM history_run WHERE ended_at_ms IS NOT NULL AND "
        if selector == "@last":
            newest = self._rows(ended + "1 ORDER BY seq DESC LIMIT 1")
            return tuple(row[0] for row in newest)
        exact = self._rows(
            ended + "(run_id = ? OR alias = ?) ORDER BY seq DESC LIMIT 1", selector, selector
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
        """One ended run, by its exact id."""
        rows = self._sealed(f"{_RUN_COLUMNS} WHERE run_id = ? AND ended_at_ms IS NOT NULL", run_id)
        return _run_view(rows[0]) if rows else None

    def runs(self, cursor: str, limit: int) -> RunList:
        """A page of ended runs, newest first; the cursor is the last one's place in the order."""
        start = position(cursor)
        below = 2**62 if start is None else start
        rows = self._sealed(
            f"{_RUN_COLUMNS} WHERE ended_at_ms IS NOT NULL AND seq < ? ORDER BY seq DESC LIMIT ?",
            below,
            limit + 1,
        )
        page = rows[:limit]
        more = str(page[-1][0]) if len(rows) > limit else ""
        return RunList(runs=tuple(map(_run_view, page)), cursor=more)

    def jobs(self, run_id: str, cursor: str, limit: int) -> JobList | None:
        """A page of a run's jobs, in their order; shorter than `limit` where a frame would not hold it."""
        run = self._ended(run_id)
        if run is None:
            return None
        start = position(cursor) or 0
        lines = self._plan_of(run[0]).jobs
        views = _fitting(self._job_views(run, lines[start : start + limit]))
        after = start + len(views)
        return JobList(jobs=tuple(views), cursor=str(after) if after < len(lines) else "")

    def job(self, run_id: str, job_id: str) -> JobView | None:
        """One job of one ended run; None if there is no such run or job."""
        run = self._ended(run_id)
        if run is None:
            return None
        lines = [line for line in self._plan_of(run[0]).jobs if line.id == job_id]
        return self._job_views(run, lines)[0] if lines else None

    def newest_with_job(self, job_id: str) -> str | None:
        """The newest ended run that has a job of that id."""
        rows = self._rows(
            "SELECT run.run_id FROM history_job AS job JOIN history_run AS run "
            "ON run.seq = job.run_seq WHERE job.job_id = ? AND run.ended_at_ms IS NOT NULL "
            "ORDER BY job.run_seq DESC LIMIT 1",
            job_id,
        )
        return rows[0][0] if rows else None

    def newest_with_gate(self, job_id: str) -> str | None:
        rows = self._rows(
            "SELECT run.run_id FROM history_gate AS gate JOIN history_run AS run "
            "ON run.seq = gate.run_seq WHERE gate.job_id = ? AND run.ended_at_ms IS NOT NULL "
            "ORDER BY gate.run_seq DESC LIMIT 1",
            job_id,
        )
        return rows[0][0] if rows else None

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        """Every placed attempt of one job, by number; of a run that goes on, too."""
        rows = self._sealed(_ATTEMPTS_OF_JOB, run_id, job_id)
        return tuple(_attempt_row(run_id, row) for row in rows)

    def spec(self, run_id: str) -> bytes | None:
        """The run's spec as it was submitted, encoded."""
        run = self._ended(run_id)
        return None if run is None else self._acceptance(run[0]).spec

    def ends(self, run_id: str) -> dict[str, JobState]:
        """How each of the run's jobs ended, by its id."""
        return {row[1]: JobState(row[2]) for row in self._sealed(_ENDS_OF_RUN, run_id)}

    def outputs(self, run_id: str) -> dict[str, dict[str, str]]:
        """What the run's jobs left for others, by their ids; of those that left anything."""
        return {row[1]: _OUTPUTS.decode(row[2]) for row in self._sealed(_OUTPUTS_OF_RUN, run_id)}

    def left(self, run_id: str) -> tuple[tuple[str, Left], ...]:
        """The files that the run's jobs left for others, in the order of acceptance."""
        return tuple((row[1], _LEFT.decode(row[3])) for row in self._sealed(_LEFT_OF_RUN, run_id))

    def homes(self, run_id: str) -> tuple[tuple[str, str], ...]:
        """By job: the workspace where the files lie that it left and nobody stored."""
        return tuple((row[1], row[2]) for row in self._sealed(_HOMES_OF_RUN, run_id))

    def repeats(self, run_id: str) -> tuple[str, ...]:
        """The run that it repeats, the one that that one repeated, and so on as far as it was told."""
        run = self._ended(run_id)
        if run is None:
            return ()
        accepted = self._acceptance(run[0])
        return (accepted.rerun_of, *accepted.ancestors) if accepted.rerun_of else ()

    def dead(self, cursor: str, limit: int) -> JobList:
        """A page of jobs that failed for good, those of the newest run first."""
        before, _, after = cursor.partition("/")
        newest = position(before)
        first = 2**62 if newest is None else newest
        decisions = json.dumps(sorted(DECISIONS))
        rows = self._rows(_DEAD_JOBS, decisions, first, first, after, limit + 1)
        views: list[JobView] = []
        for run_seq, job_id in rows[:limit]:
            run = self._rows(_RUN_OF_JOB, run_seq)[0]
            line = next(line for line in self._plan_of(run_seq).jobs if line.id == job_id)
            views += self._job_views(run, [line])
        more = ""
        views = _fitting(views)
        if len(views) < len(rows):
            run_seq, job_id = rows[len(views) - 1]
            more = f"{run_seq}/{job_id}"
        return JobList(jobs=tuple(views), cursor=more)

    def services(self, run_id: str, limit: int) -> tuple[ServiceView, ...]:
        """Services that were up and have ended, the last to end first."""
        rows = (
            self._sealed(_SERVICES_OF_RUN, run_id, limit)
            if run_id
            else self._sealed(_SERVICES, limit)
        )
        return tuple(self._service_view(row) for row in rows)

    def _service_view(self, row: tuple[Any, ...]) -> ServiceView:
        run_seq, job_id, number, name, state, healthy_at_ms, ended_at_ms, _ = row
        _, run_id, run_alias, _ = self._rows(_RUN_OF_JOB, run_seq)[0]
        lines = self._sealed(_ATTEMPT, run_seq, job_id, number)
        if not lines:  # it was stopped before any worker had it
            return ServiceView(
                name=name,
                run_id=run_id,
                run_alias=run_alias,
                job_id=job_id,
                attempt=0,
                state=ServiceState(state),
                healthy_at_ms=healthy_at_ms,
                ended_at_ms=ended_at_ms,
                reason=ExitReason.STOPPED,
            )
        attempt = _attempt_row(run_id, lines[0])
        return ServiceView(
            name=name,
            run_id=run_id,
            run_alias=run_alias,
            job_id=job_id,
            attempt=number,
            state=ServiceState(state),
            worker=attempt.worker,
            port=lines[0][-1],
            healthy_at_ms=healthy_at_ms,
            ended_at_ms=ended_at_ms,
            reason=attempt.reason,
            exit_code=attempt.exit_code,
            signal=attempt.signal,
            message=attempt.message,
        )

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
        plan = _PLAN.decode(self._acceptance(run_seq).spec)
        self._plan = (run_seq, plan)
        return plan

    def _acceptance(self, run_seq: int) -> RunAccepted:
        """The record that accepted the run, in the journal or where it went from there."""
        rows = self._rows(ACCEPTANCE, run_seq)
        event = accepted_in(rows[0], self._formats().of(run_seq)) if rows else None
        if event is None:
            raise HistoryDamaged(f"record {run_seq}, which accepted a run, is missing or damaged")
        return event

    def _formats(self) -> codec.Formats:
        rows = self._rows(_FORMATS)
        if any(codec.format_crc(seq, written) != crc for seq, written, crc in rows):
            raise HistoryDamaged("the table of the journal's formats is damaged")
        return codec.Formats({seq: written for seq, written, _ in rows})

    def _job_views(self, run: tuple[int, str, str, int], lines: Sequence[_Line]) -> list[JobView]:
        run_seq, run_id, alias, accepted_at_ms = run
        wanted = json.dumps([line.id for line in lines])
        ends = {row[1]: row[1:] for row in self._sealed(_ENDS_OF_JOBS, run_seq, wanted)}
        missing = next((line.id for line in lines if line.id not in ends), None)
        if missing is not None:
            raise HistoryDamaged(
                f"run {run_id} has ended, and how its job {missing} did is missing"
            )
        attempts: dict[str, AttemptRow] = {}
        ports: dict[str, int] = {}
        # In the order of their numbers: of each job the newest stays, and the last known port.
        for row in self._sealed(_ATTEMPTS_OF_JOBS, run_seq, wanted):
            attempts[row[1]] = _attempt_row(run_id, row)
            ports[row[1]] = row[-1] or ports.get(row[1], 0)
        ready = self._ready_times(run_seq)
        has_gates = any(line.kind is JobKind.GATE for line in lines)
        decided = self._sealed(_GATES_OF_JOBS, run_seq, wanted) if has_gates else []
        gates = {row[1]: row[1:] for row in decided}
        left = self._sealed(_OUTPUTS_OF_JOBS, run_seq, wanted)
        outputs = {row[1]: _OUTPUTS.decode(row[2]) for row in left}
        shapes = self._plan_of(run_seq).shapes
        return [
            _job_view(
                run_id,
                alias,
                line,
                ends[line.id],
                attempts.get(line.id),
                ready.get(line.id, 0) if line.dependencies else accepted_at_ms,
                ports.get(line.id, 0),
                gates.get(line.id, _NEVER_DECIDED),
                outputs.get(line.id, {}),
                shapes.get(line.id),
            )
            for line in lines
        ]

    def _ready_times(self, run_seq: int) -> dict[str, int]:
        rows = self._sealed(_READY_TIMES, run_seq)
        # The last one written wins: the earliest.
        return {
            job_id: at_ms for _, _, at_ms, ids in rows for job_id in msgspec.msgpack.decode(ids)
        }

    def _sealed(self, statement: str, *values: object) -> list[Any]:
        """Rows whose last column is their checksum, compared and taken off."""
        rows = self._rows(statement, *values)
        for row in rows:
            # Rows of a version that had none, and of live runs, have no checksum.
            if row[-1] is not None and codec.row_crc(row[:-1]) != row[-1]:
                raise HistoryDamaged(f"a row of history fails its checksum: {row[0]}, {row[1]}")
        return [row[:-1] for row in rows]

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


def _fitting(views: list[JobView]) -> list[JobView]:
    """As many of them as are sure to fit into a frame; at least one if there is any."""
    listed = 0
    for count, view in enumerate(views, 1):
        chars = len(view.message) + size_of(view.outputs)
        chars += 0 if view.shape is None else len(view.shape.when) + size_of(view.shape.cell)
        if view.gate is not None:
            chars += len(view.gate.message) + len(view.gate.comment)
        listed += len(view.dependencies) + chars // _CHARS_OF_A_NAME
        if listed >= _NAMES_LISTED:
            return views[:count]
    return views


def _run_view(row: tuple[Any, ...]) -> RunView:
    _seq, run_id, alias, name, state, jobs, accepted_at_ms, ended_at_ms, counts, *rest = row
    rerun_of, fired = rest
    return RunView(
        run_id=run_id,
        alias=alias,
        name=name,
        state=RunState(state),
        submitted_at_ms=accepted_at_ms,
        ended_at_ms=ended_at_ms,
        jobs=jobs,
        counts=json.loads(counts),
        rerun_of=rerun_of,
        fired=_FIRED.decode(fired) if fired else None,
    )


def _attempt_row(run_id: str, row: tuple[Any, ...]) -> AttemptRow:
    job_id, number, worker, worker_id, ended, reason, exit_code, signal, message = row[1:10]
    placed_at_ms, started_at_ms, ended_at_ms, stdout_bytes, stderr_bytes, _port = row[10:]
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
    end: tuple[Any, ...],
    attempt: AttemptRow | None,
    ready_at_ms: int,
    port: int,
    gate: tuple[Any, ...],
    outputs: dict[str, str],
    shape: Shape | None,
) -> JobView:
    _id, state, reason, exit_code, signal, message, lost, ended_at_ms, failures = end
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
        failures=failures,
        retries=line.retries.limit,
        port=port,
        dependencies=line.dependencies[:_NAMES_LISTED],
        stdout_bytes=attempt.stdout_bytes if attempt else 0,
        stderr_bytes=attempt.stderr_bytes if attempt else 0,
        gate=_gate_view(run_id, alias, line, JobState(state), ExitReason(reason), gate)
        if line.kind is JobKind.GATE
        else None,
        outputs=outputs,
        resources=line.launch.resources,
        shape=shape,
    )


def _gate_view(
    run_id: str,
    alias: str,
    line: _Line,
    state: JobState,
    reason: ExitReason,
    row: tuple[Any, ...],
) -> GateView:
    _id, opened_at_ms, expires_at_ms, decided_at_ms, decided_by, comment = row
    return GateView(
        run_id=run_id,
        run_alias=alias,
        job_id=line.id,
        state=state,
        message=line.gate.message if line.gate is not None else "",
        opened_at_ms=opened_at_ms,
        expires_at_ms=expires_at_ms,
        decided_at_ms=decided_at_ms,
        decided_by=decided_by,
        reason=reason if decided_at_ms else ExitReason.UNKNOWN,
        comment=comment,
    )
