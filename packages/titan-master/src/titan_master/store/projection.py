"""Events → rows of history. Pure: it decides what is written, not where or when.

It remembers the little that rows of live things need of earlier events (the place of each live run,
the placement of each live attempt, the workers' names), which is bounded by what is live. After a
restart it is taken from the checkpoint, and what follows there is run through it again. Called by
``sqlite.py`` in every commit, and by ``recovery.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct, field

from titan_master.core.events import (
    AnyEvent,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    GateDecided,
    GatesOpened,
    JobBackoff,
    JobEnded,
    JobsDropped,
    JobsQueued,
    JobsScheduled,
    RunAccepted,
    RunEnded,
    ServiceAdded,
    ServiceChanged,
    ServiceEnded,
    ServiceUp,
    WorkerJoined,
)
from titan_master.core.state import Attempt
from titan_master.store.checkpoint import Shadow
from titan_proto.states import ExitReason, JobState, RunState, ServiceState

Row = tuple[object, ...]

_TRIED_AGAIN: Final = (ExitReason.LOST, ExitReason.WORKER_LEFT)
"""Ends of attempts after which their jobs go on, whatever they say of retries."""


class Rows(Struct):
    """What is to be added to history, in the order in which the tables must be written.

    History answers for runs that have ended, so the rows of live ones may gather: writing them
    with every commit would double its cost. `is_due` says that somebody may ask for one of these
    now; then all must go into the transaction that is under way.
    """

    accepted: list[Row] = field(default_factory=list)
    ready: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    jobs: list[Row] = field(default_factory=list)
    gates: list[Row] = field(default_factory=list)
    services: list[Row] = field(default_factory=list)
    outputs: list[Row] = field(default_factory=list)
    left: list[Row] = field(default_factory=list)
    homes: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    """Last: a run's counts are taken from the rows of its jobs."""
    is_due: bool = False

    def __len__(self) -> int:
        kinds = (
            *(self.accepted, self.ready, self.attempts),
            *(self.jobs, self.gates, self.services, self.outputs, self.left, self.homes),
        )
        return sum(map(len, kinds))


class _Live(Struct):
    """An attempt that has not ended."""

    run_seq: int
    worker_id: str
    placed_at_ms: int
    started_at_ms: int = 0
    port: int = 0


class _Up(Struct):
    """A service that is up."""

    run_seq: int
    name: str
    healthy_at_ms: int


class Projection:
    """The fold behind history."""

    def __init__(self) -> None:
        self._runs: dict[str, int] = {}
        self._attempts: dict[tuple[str, str, int], _Live] = {}
        self._workers: dict[str, str] = {}
        self._services: dict[tuple[str, str], _Up] = {}

    @classmethod
    def of(cls, shadow: Shadow) -> Projection:
        """What it remembers at the record where `shadow` stands."""
        made = cls()
        state = shadow.state
        for worker in state.workers.values():
            made._workers[worker.worker_id] = worker.name
        for run in state.runs.values():
            made._runs[run.run_id] = shadow.accepted[run.run_id].place
            for job in run.order:
                if job.attempt is not None and job.attempt.is_live:
                    made._remember(shadow, run.run_id, job.spec.id, job.attempt)
        for service in state.services.values():
            if service.attempt.is_live:
                made._remember(shadow, service.run_id, service.job_id, service.attempt)
            made._services[service.run_id, service.job_id] = _Up(
                run_seq=shadow.accepted[service.run_id].place,
                name=service.name,
                healthy_at_ms=service.healthy_at_ms,
            )
        return made

    def _remember(self, shadow: Shadow, run_id: str, job_id: str, attempt: Attempt) -> None:
        self._attempts[run_id, job_id, attempt.number] = _Live(
            run_seq=shadow.accepted[run_id].place,
            worker_id=attempt.worker_id,
            placed_at_ms=attempt.placed_at_ms,
            started_at_ms=attempt.started_at_ms,
            port=attempt.port,
        )

    def project(self, seq: int, event: AnyEvent, rows: Rows) -> None:
        """Add to `rows` what record `seq` of the journal means for history."""
        handler = self._HANDLERS.get(type(event))
        if handler is not None:
            handler(self, seq, event, rows)

    # -- runs -------------------------------------------------------------------------------------

    def _run_accepted(self, seq: int, event: RunAccepted, rows: Rows) -> None:
        self._runs[event.run_id] = seq
        alias = f"{event.slug}-{event.number}"
        rows.accepted.append(
            (
                *(seq, event.run_id, alias, event.name, RunState.ACTIVE.value, event.jobs),
                *(event.at_ms, event.rerun_alias),
                b"" if event.fired is None else msgspec.msgpack.encode(event.fired),
            )
        )
        state, reason = JobState.SUCCEEDED.value, ExitReason.TAKEN_OVER.value
        rows.jobs.extend(
            (seq, job_id, state, reason, 0, 0, f"from {event.rerun_alias}", 0, event.at_ms, 0)
            for job_id in event.taken_over
        )
        rows.outputs.extend(
            (seq, job_id, msgspec.msgpack.encode(outputs))
            for job_id, outputs in event.outputs.items()
        )
        # Before every record of the run itself: its own jobs are accepted behind these.
        rows.left.extend(
            (seq, job_id, place - len(event.left), msgspec.msgpack.encode(left))
            for place, (job_id, left) in enumerate(event.left)
        )
        rows.homes.extend((seq, job_id, home) for job_id, home in event.homes)

    def _run_ended(self, _seq: int, event: RunEnded, rows: Rows) -> None:
        run_seq = self._runs.pop(event.run_id)
        rows.ended.append((event.state.value, event.at_ms, run_seq, run_seq))
        rows.is_due = True

    # -- jobs -------------------------------------------------------------------------------------

    def _jobs_ready(
        self, seq: int, event: JobsQueued | JobsScheduled | GatesOpened, rows: Rows
    ) -> None:
        run_seq = self._runs[event.run_id]
        rows.ready.append((run_seq, seq, event.at_ms, msgspec.msgpack.encode(event.job_ids)))

    def _job_backoff(self, _seq: int, _event: JobBackoff, rows: Rows) -> None:
        # Of a live job, the core shows only the newest attempt: this one may be asked for now.
        rows.is_due = True

    def _jobs_dropped(self, _seq: int, event: JobsDropped, rows: Rows) -> None:
        run_seq = self._runs[event.run_id]
        state, reason = event.state.value, event.reason.value
        rows.jobs.extend(
            (run_seq, job_id, state, reason, 0, 0, message, 0, event.at_ms, 0)
            for job_id, message in zip_longest(event.job_ids, event.messages, fillvalue="")
        )

    def _job_ended(self, seq: int, event: JobEnded, rows: Rows) -> None:
        rows.jobs.append(
            (
                self._runs[event.run_id],
                event.job_id,
                event.state.value,
                event.reason.value,
                event.exit_code,
                event.signal,
                event.message,
                event.lost,
                event.at_ms,
                event.failures,
            )
        )
        if event.outputs:
            outputs = msgspec.msgpack.encode(event.outputs)
            rows.outputs.append((self._runs[event.run_id], event.job_id, outputs))
        if event.left is not None:
            left = msgspec.msgpack.encode(event.left)
            rows.left.append((self._runs[event.run_id], event.job_id, seq, left))
        if event.home:
            rows.homes.append((self._runs[event.run_id], event.job_id, event.home))

    def _gate_decided(self, _seq: int, event: GateDecided, rows: Rows) -> None:
        rows.gates.append(
            (
                self._runs[event.run_id],
                event.job_id,
                event.opened_at_ms,
                event.expires_at_ms,
                event.at_ms,
                event.by,
                event.comment,
            )
        )

    # -- attempts ---------------------------------------------------------------------------------

    def _attempt_placed(self, _seq: int, event: AttemptPlaced, _rows: Rows) -> None:
        up = self._services.get((event.run_id, event.job_id))
        run_seq = self._runs[event.run_id] if up is None else up.run_seq
        self._attempts[event.run_id, event.job_id, event.number] = _Live(
            run_seq, event.worker_id, event.at_ms
        )

    def _attempt_started(self, _seq: int, event: AttemptStarted, rows: Rows) -> None:
        live = self._attempts[event.run_id, event.job_id, event.number]
        live.started_at_ms = event.at_ms
        live.port = event.port
        if (event.run_id, event.job_id) in self._services:
            # It has come up again: its run may have ended long ago, so history alone shows this one.
            self._show_live(event.job_id, event.number, live, rows)

    def _attempt_ended(self, _seq: int, event: AttemptEnded, rows: Rows) -> None:
        live = self._attempts.pop((event.run_id, event.job_id, event.number))
        if event.reason in _TRIED_AGAIN or event.run_id not in self._runs:
            # Of a live job, the core shows only the newest attempt; of a service whose run has
            # ended, history has shown this one already.
            rows.is_due = True
        rows.attempts.append(
            (
                live.run_seq,
                event.job_id,
                event.number,
                event.worker,
                event.worker_id,
                1,
                event.reason.value,
                event.exit_code,
                event.signal,
                event.message,
                live.placed_at_ms,
                event.started_at_ms or live.started_at_ms,
                event.at_ms,
                event.stdout_bytes,
                event.stderr_bytes,
                live.port,
            )
        )

    def _service_up(self, _seq: int, event: ServiceUp, rows: Rows) -> None:
        live = self._attempts[event.run_id, event.job_id, event.number]
        live.port = event.port
        self._services[event.run_id, event.job_id] = _Up(live.run_seq, event.name, event.at_ms)
        self._show_live(event.job_id, event.number, live, rows)

    def _show_live(self, job_id: str, number: int, live: _Live, rows: Rows) -> None:
        rows.attempts.append(
            (
                live.run_seq,
                job_id,
                number,
                self._workers.get(live.worker_id, ""),
                live.worker_id,
                0,
                ExitReason.UNKNOWN.value,
                0,
                0,
                "",
                live.placed_at_ms,
                live.started_at_ms,
                0,
                0,
                0,
                live.port,
            )
        )

    def _service_added(self, _seq: int, event: ServiceAdded, _rows: Rows) -> None:
        like = self._services[event.run_id, event.of]
        self._services[event.run_id, event.job_id] = _Up(like.run_seq, like.name, 0)

    def _service_changed(self, _seq: int, event: ServiceChanged, _rows: Rows) -> None:
        if event.healthy:
            self._services[event.run_id, event.job_id].healthy_at_ms = event.at_ms

    def _service_ended(self, seq: int, event: ServiceEnded, rows: Rows) -> None:
        up = self._services.pop((event.run_id, event.job_id))
        state = ServiceState.STOPPED if event.stopped else ServiceState.FAILED
        rows.services.append(
            (
                *(up.run_seq, event.job_id, event.number, up.name, state.value),
                *(up.healthy_at_ms, event.at_ms, seq),
            )
        )
        # The core has let go of it.
        rows.is_due = True

    # -- workers ----------------------------------------------------------------------------------

    def _worker_joined(self, _seq: int, event: WorkerJoined, _rows: Rows) -> None:
        self._workers[event.worker_id] = f"{event.host}:{event.port}"

    _HANDLERS: ClassVar[dict[type, Callable[[Projection, int, Any, Rows], None]]] = {
        RunAccepted: _run_accepted,
        RunEnded: _run_ended,
        JobsQueued: _jobs_ready,
        JobsScheduled: _jobs_ready,
        JobBackoff: _job_backoff,
        GatesOpened: _jobs_ready,
        GateDecided: _gate_decided,
        JobsDropped: _jobs_dropped,
        JobEnded: _job_ended,
        AttemptPlaced: _attempt_placed,
        AttemptStarted: _attempt_started,
        AttemptEnded: _attempt_ended,
        ServiceUp: _service_up,
        ServiceAdded: _service_added,
        ServiceChanged: _service_changed,
        ServiceEnded: _service_ended,
        WorkerJoined: _worker_joined,
    }
    """Events without a row here leave no trace in history."""
