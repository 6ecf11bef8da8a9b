"""A store that forgets at the end of the process, and on demand earlier. For tests and simulation.

It keeps what a disk would keep: sealed records, not events, so that opening it proves that every
event survives its encoding. `write` and `sync` are the two halves of `commit`; between them
`lose_unsynced` does to a transaction what a power cut may do. It opens from its checkpoint; the records
before that are kept for tests to compare with, and not looked at. History is folded anew from the
records, so it cannot know what the journal does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import msgspec

from titan_master.core.apply import twin
from titan_master.core.events import (
    AnyEvent,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    GateDecided,
    GatesOpened,
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
from titan_master.store import codec
from titan_master.store.base import AttemptRow, Recovered, TermLost, position
from titan_master.store.checkpoint import HEAD, Address, Row, Total, is_part_of, load
from titan_master.store.recovery import blank, fold
from titan_proto.ids import INSTANCE_MARK
from titan_proto.messages import GateView, JobList, JobView, RunList, RunView, ServiceView
from titan_proto.messages.worker import Left
from titan_proto.specs import GateSection, JobKind, JobSpec, RunSpec, Shape
from titan_proto.states import DECISIONS, AttemptState, ExitReason, JobState, RunState, ServiceState

_SPEC = msgspec.msgpack.Decoder(RunSpec)
_MATCHES_MAX = 10


class MemoryStore:
    """A `Store` in memory, with the faults of a disk."""

    def __init__(self) -> None:
        self._records: list[codec.Record] = []
        self._synced = 0
        self._term = 0
        self._checkpoint: dict[Address, Row] = {}
        self._total = Total()
        self._shadow = blank()
        self._history = _History()
        self._read = 0

    def open(self) -> Recovered:
        """Load the checkpoint, fold the records behind it, and take the next term."""
        loaded = load(self._checkpoint.values(), self._accepted)
        shadow = blank() if loaded is None else loaded.shadow
        fold(shadow, self._records[shadow.seq :], codec.ALL_PRESENT, shadow.seq)
        if loaded is None:
            shadow.touch_all()
        self._shadow = shadow
        self._synced = len(self._records)
        self._term += 1
        return Recovered(
            state=twin(shadow.state),
            term=self._term,
            last_seq=shadow.seq,
            last_at_ms=shadow.at_ms,
        )

    def commit(self, events: Sequence[AnyEvent], term: int) -> int:
        """Append and sync."""
        seq = self.write(events, term)
        self.sync()
        return seq

    def write(self, events: Sequence[AnyEvent], term: int) -> int:
        """Append one transaction, not yet durable."""
        if term != self._term:
            raise TermLost(term, self._term)
        chain = self._records[-1].chain if self._records else codec.GENESIS
        for event in events:
            record = codec.seal(chain, len(self._records) + 1, term, event)
            self._records.append(record)
            chain = record.chain
        return len(self._records)

    def sync(self) -> None:
        """From here on no power cut undoes what was written."""
        self._synced = len(self._records)

    def lose_unsynced(self) -> int:
        """The power went: what was not synced is gone. How many records that was."""
        lost = len(self._records) - self._synced
        del self._records[self._synced :]
        return lost

    def keep_up(self) -> None:
        """Nothing here takes long enough to lag behind."""

    def checkpoint(self) -> None:
        """Of what is synced, the fold, row by row."""
        shadow = self._shadow
        for record in self._records[shadow.seq : self._synced]:
            event = codec.decode(record.body)
            shadow.fold(record.seq, record.term, record.chain, record.crc, event)
        puts, drops = shadow.changes()
        for kind, row_id in drops:
            self._drop((kind, row_id))
            for address in [a for a in self._checkpoint if is_part_of(a, (kind, row_id))]:
                self._drop(address)
        for one in puts:
            self._drop((one.kind, one.id))
            self._checkpoint[one.kind, one.id] = one
            self._total.add(one.seal)
        head = shadow.head(self._total, codec.JOURNAL_FORMAT)
        self._checkpoint[head.kind, head.id] = head
        shadow.settled()

    def tidy(self) -> None:
        """Take a checkpoint."""
        self.checkpoint()

    def close(self) -> None:
        """Nothing is held."""

    @property
    def is_past_checkpoint(self) -> bool:
        """Whether durable records lie behind the checkpoint, which opening must read."""
        head = self._checkpoint.get((HEAD, ""))
        return self._synced > (0 if head is None else head.seq)

    def records(self) -> Sequence[codec.Record]:
        """The journal as it lies there; for tests."""
        return self._records

    def _drop(self, address: Address) -> None:
        old = self._checkpoint.pop(address, None)
        if old is not None:
            self._total.remove(old.seal)

    def _accepted(self, place: int, crc: int) -> RunAccepted:
        record = self._records[place - 1]
        event = codec.decode(record.body)
        assert record.crc == crc
        assert isinstance(event, RunAccepted)
        return event

    # -- history ----------------------------------------------------------------------------------

    def resolve(self, selector: str) -> tuple[str, ...]:
        """See `History.resolve`."""
        return self._projected().resolve(selector)

    def run(self, run_id: str) -> RunView | None:
        """See `History.run`."""
        found = self._projected().ended.get(run_id)
        return found.view() if found else None

    def runs(self, cursor: str, limit: int) -> RunList:
        """See `History.runs`."""
        newest = self._projected().newest_first()
        start = position(cursor) or 0
        page = tuple(run.view() for run in newest[start : start + limit])
        more = start + limit < len(newest)
        return RunList(runs=page, cursor=str(start + limit) if more else "")

    def jobs(self, run_id: str, cursor: str, limit: int) -> JobList | None:
        """See `History.jobs`."""
        found = self._projected().ended.get(run_id)
        if found is None:
            return None
        start = position(cursor) or 0
        ids = [job.id for job in found.spec.jobs[start : start + limit]]
        more = start + limit < len(found.spec.jobs)
        return JobList(
            jobs=tuple(found.jobs[job_id].view() for job_id in ids),
            cursor=str(start + limit) if more else "",
        )

    def job(self, run_id: str, job_id: str) -> JobView | None:
        """See `History.job`."""
        found = self._projected().ended.get(run_id)
        job = found.jobs.get(job_id) if found else None
        return job.view() if job else None

    def newest_with_job(self, job_id: str) -> str | None:
        """See `History.newest_with_job`."""
        for run in self._projected().newest_first():
            if job_id in run.jobs:
                return run.run_id
        return None

    def newest_with_gate(self, job_id: str) -> str | None:
        """See `History.newest_with_gate`."""
        for run in self._projected().newest_first():
            if job_id in run.jobs and run.jobs[job_id].gate is not None:
                return run.run_id
        return None

    def attempts(self, run_id: str, job_id: str) -> tuple[AttemptRow, ...]:
        """See `History.attempts`."""
        history = self._projected()
        found = history.ended.get(run_id) or history.live.get(run_id)
        job = found.jobs.get(job_id) or found.instances.get(job_id) if found else None
        return tuple(job.attempts.values()) if job else ()

    def spec(self, run_id: str) -> bytes | None:
        """See `History.spec`."""
        found = self._projected().ended.get(run_id)
        return found.spec_bytes if found else None

    def ends(self, run_id: str) -> dict[str, JobState]:
        """See `History.ends`."""
        found = self._projected().ended.get(run_id)
        return {job_id: job.state for job_id, job in found.jobs.items()} if found else {}

    def outputs(self, run_id: str) -> dict[str, dict[str, str]]:
        """See `History.outputs`."""
        found = self._projected().ended.get(run_id)
        jobs = found.jobs.items() if found else ()
        return {job_id: job.outputs for job_id, job in jobs if job.outputs}

    def left(self, run_id: str) -> tuple[tuple[str, Left], ...]:
        """See `History.left`."""
        found = self._projected().ended.get(run_id)
        return tuple(found.left.items()) if found else ()

    def homes(self, run_id: str) -> tuple[tuple[str, str], ...]:
        """See `History.homes`."""
        found = self._projected().ended.get(run_id)
        return tuple(sorted(found.homes.items())) if found else ()

    def repeats(self, run_id: str) -> tuple[str, ...]:
        """See `History.repeats`."""
        found = self._projected().ended.get(run_id)
        return found.repeats if found else ()

    def dead(self, cursor: str, limit: int) -> JobList:
        """See `History.dead`."""
        dead = [
            job.view()
            for run in self._projected().newest_first()
            for _, job in sorted(run.jobs.items())
            if job.state is JobState.FAILED and job.reason not in DECISIONS
        ]
        start = position(cursor) or 0
        more = start + limit < len(dead)
        return JobList(
            jobs=tuple(dead[start : start + limit]), cursor=str(start + limit) if more else ""
        )

    def services(self, run_id: str, limit: int) -> tuple[ServiceView, ...]:
        """See `History.services`."""
        newest = reversed(self._projected().services)
        return tuple(one for one in newest if run_id in {"", one.run_id})[:limit]

    def _projected(self) -> _History:
        """History up to the last record that no power cut undoes."""
        while self._read < self._synced:
            self._history.project(codec.decode(self._records[self._read].body))
            self._read += 1
        return self._history


class _Job:
    """One job of history on its way."""

    def __init__(
        self, run_id: str, alias: str, spec: JobSpec, at_ms: int, shape: Shape | None
    ) -> None:
        self.run_id = run_id
        self.alias = alias
        self.spec = spec
        self.state = JobState.UNKNOWN
        self.reason = ExitReason.UNKNOWN
        self.end: JobEnded | JobsDropped | RunAccepted | None = None
        self.ready_at_ms = 0 if spec.dependencies else at_ms
        self.message = ""
        self.port = 0
        self.attempts: dict[int, AttemptRow] = {}
        self.gate: GateDecided | None = None
        self.outputs: dict[str, str] = {}
        self.shape = shape

    def view(self) -> JobView:
        row = next(reversed(self.attempts.values()), None)
        end = self.end
        ended = end if isinstance(end, JobEnded) else None
        state = AttemptState.UNKNOWN
        if row is not None:
            state = AttemptState.ENDED if row.ended else AttemptState.RUNNING
        return JobView(
            run_id=self.run_id,
            run_alias=self.alias,
            job_id=self.spec.id,
            kind=self.spec.kind,
            state=self.state,
            attempt=row.number if row else 0,
            attempt_state=state,
            worker=row.worker if row else "",
            reason=self.reason,
            exit_code=ended.exit_code if ended else 0,
            signal=ended.signal if ended else 0,
            message=ended.message if ended else self.message,
            ready_at_ms=self.ready_at_ms,
            placed_at_ms=row.placed_at_ms if row else 0,
            started_at_ms=row.started_at_ms if row else 0,
            ended_at_ms=end.at_ms if end else 0,
            lost=ended.lost if ended else 0,
            failures=ended.failures if ended else 0,
            retries=self.spec.retries.limit,
            port=self.port,
            dependencies=self.spec.dependencies,
            stdout_bytes=row.stdout_bytes if row else 0,
            stderr_bytes=row.stderr_bytes if row else 0,
            gate=self._gate_view() if self.spec.kind is JobKind.GATE else None,
            outputs=self.outputs,
            shape=self.shape,
        )

    def _gate_view(self) -> GateView:
        gate = self.gate
        return GateView(
            run_id=self.run_id,
            run_alias=self.alias,
            job_id=self.spec.id,
            state=self.state,
            message=(self.spec.gate or GateSection()).message,
            opened_at_ms=gate.opened_at_ms if gate else 0,
            expires_at_ms=gate.expires_at_ms if gate else 0,
            decided_at_ms=gate.at_ms if gate else 0,
            decided_by=gate.by if gate else "",
            reason=gate.reason if gate else ExitReason.UNKNOWN,
            comment=gate.comment if gate else "",
        )


class _Run:
    """One run of history on its way."""

    def __init__(self, event: RunAccepted, place: int) -> None:
        self.run_id = event.run_id
        self.alias = f"{event.slug}-{event.number}"
        self.name = event.name
        self.place = place
        self.accepted_at_ms = event.at_ms
        self.ended_at_ms = 0
        self.state = RunState.ACTIVE
        self.spec_bytes = event.spec
        self.spec = _SPEC.decode(event.spec)
        self.rerun_alias = event.rerun_alias
        self.jobs = {
            job.id: _Job(self.run_id, self.alias, job, event.at_ms, self.spec.shapes.get(job.id))
            for job in self.spec.jobs
        }
        self.instances: dict[str, _Job] = {}
        """Of services, those beside the first."""
        for job_id in event.taken_over:
            job = self.jobs[job_id]
            job.state, job.reason, job.end = JobState.SUCCEEDED, ExitReason.TAKEN_OVER, event
            job.message = f"from {event.rerun_alias}"
            job.outputs = event.outputs.get(job_id, {})
        self.left: dict[str, Left] = dict(event.left)
        self.homes: dict[str, str] = dict(event.homes)
        self.fired = event.fired
        self.repeats = (event.rerun_of, *event.ancestors) if event.rerun_of else ()

    def view(self) -> RunView:
        counts: dict[str, int] = {}
        for job in self.jobs.values():
            counts[job.state.value] = counts.get(job.state.value, 0) + 1
        return RunView(
            run_id=self.run_id,
            alias=self.alias,
            name=self.name,
            state=self.state,
            submitted_at_ms=self.accepted_at_ms,
            ended_at_ms=self.ended_at_ms,
            jobs=len(self.jobs),
            counts=counts,
            rerun_of=self.rerun_alias,
            fired=self.fired,
        )


@dataclass
class _Up:
    """A service that is wanted."""

    name: str
    healthy_at_ms: int


class _History:
    """The fold of events into what may be asked later."""

    def __init__(self) -> None:
        self.live: dict[str, _Run] = {}
        self.ended: dict[str, _Run] = {}
        self._workers: dict[str, str] = {}
        self._up: dict[tuple[str, str], _Up] = {}
        self.services: list[ServiceView] = []
        """Those that have ended."""
        self._accepted = 0

    def newest_first(self) -> list[_Run]:
        return sorted(self.ended.values(), key=lambda run: -run.place)

    def resolve(self, selector: str) -> tuple[str, ...]:
        newest = self.newest_first()
        if selector == "@last":
            return tuple(run.run_id for run in newest[:1])
        for run in newest:
            if selector in {run.run_id, run.alias}:
                return (run.run_id,)
        fits = [r.run_id for r in newest if r.run_id.startswith(selector)]
        fits += [r.run_id for r in newest if r.alias.startswith(selector) and r.run_id not in fits]
        return tuple(fits[:_MATCHES_MAX]) if selector else ()

    def project(self, event: AnyEvent) -> None:
        if isinstance(event, RunAccepted):
            self._accepted += 1
            self.live[event.run_id] = _Run(event, self._accepted)
        elif isinstance(event, RunEnded):
            run = self.live.pop(event.run_id)
            run.state = event.state
            run.ended_at_ms = event.at_ms
            self.ended[event.run_id] = run
        elif isinstance(event, WorkerJoined):
            self._workers[event.worker_id] = f"{event.host}:{event.port}"
        elif isinstance(event, (JobsQueued, JobsScheduled, GatesOpened)):
            for job_id in event.job_ids:
                job = self._job(event.run_id, job_id)
                job.ready_at_ms = job.ready_at_ms or event.at_ms
        elif isinstance(event, JobsDropped):
            for job_id, message in zip_longest(event.job_ids, event.messages, fillvalue=""):
                job = self._job(event.run_id, job_id)
                job.state, job.reason, job.end = event.state, event.reason, event
                job.message = message
        elif isinstance(event, GateDecided):
            self._job(event.run_id, event.job_id).gate = event
        elif isinstance(event, JobEnded):
            job = self._job(event.run_id, event.job_id)
            job.state, job.reason, job.end = event.state, event.reason, event
            job.outputs = event.outputs
            if event.left is not None:
                self.live[event.run_id].left[event.job_id] = event.left
            if event.home:
                self.live[event.run_id].homes[event.job_id] = event.home
        elif isinstance(event, (AttemptPlaced, AttemptStarted, AttemptEnded)):
            self._project_attempt(event)
        elif isinstance(event, ServiceUp):
            self._up[event.run_id, event.job_id] = _Up(event.name, event.at_ms)
            self._job(event.run_id, event.job_id).port = event.port
        elif isinstance(event, ServiceAdded):
            self._add_instance(event)
        elif isinstance(event, ServiceChanged):
            if event.healthy:
                self._up[event.run_id, event.job_id].healthy_at_ms = event.at_ms
        elif isinstance(event, ServiceEnded):
            self._project_end_of_service(event)

    def _add_instance(self, event: ServiceAdded) -> None:
        self._up[event.run_id, event.job_id] = _Up(self._up[event.run_id, event.of].name, 0)
        run = self.live.get(event.run_id) or self.ended[event.run_id]
        like = run.jobs[event.job_id.partition(INSTANCE_MARK)[0]]
        made = _Job(run.run_id, run.alias, like.spec, event.at_ms, like.shape)
        run.instances[event.job_id] = made

    def _project_end_of_service(self, event: ServiceEnded) -> None:
        up = self._up.pop((event.run_id, event.job_id))
        run = self.live.get(event.run_id) or self.ended[event.run_id]
        attempt = self._job(event.run_id, event.job_id).attempts.get(event.number)
        if attempt is None:
            attempt = AttemptRow(
                run_id=event.run_id,
                job_id=event.job_id,
                number=0,
                worker="",
                worker_id="",
                placed_at_ms=0,
                reason=ExitReason.STOPPED,
            )
        self.services.append(
            ServiceView(
                name=up.name,
                run_id=run.run_id,
                run_alias=run.alias,
                job_id=event.job_id,
                attempt=event.number,
                state=ServiceState.STOPPED if event.stopped else ServiceState.FAILED,
                worker=attempt.worker,
                port=self._job(event.run_id, event.job_id).port,
                healthy_at_ms=up.healthy_at_ms,
                ended_at_ms=event.at_ms,
                reason=attempt.reason,
                exit_code=attempt.exit_code,
                signal=attempt.signal,
                message=attempt.message,
            )
        )

    def _project_attempt(self, event: AttemptPlaced | AttemptStarted | AttemptEnded) -> None:
        job = self._job(event.run_id, event.job_id)
        if isinstance(event, AttemptPlaced):
            job.attempts[event.number] = AttemptRow(
                run_id=event.run_id,
                job_id=event.job_id,
                number=event.number,
                worker=self._workers[event.worker_id],
                worker_id=event.worker_id,
                placed_at_ms=event.at_ms,
            )
            return
        row = job.attempts[event.number]
        if isinstance(event, AttemptStarted):
            job.port = event.port
            job.attempts[event.number] = msgspec.structs.replace(row, started_at_ms=event.at_ms)
            return
        job.attempts[event.number] = msgspec.structs.replace(
            row,
            ended=True,
            reason=event.reason,
            exit_code=event.exit_code,
            signal=event.signal,
            message=event.message,
            started_at_ms=event.started_at_ms or row.started_at_ms,
            ended_at_ms=event.at_ms,
            stdout_bytes=event.stdout_bytes,
            stderr_bytes=event.stderr_bytes,
        )

    def _job(self, run_id: str, job_id: str) -> _Job:
        run = self.live.get(run_id) or self.ended[run_id]
        return run.jobs.get(job_id) or run.instances[job_id]
