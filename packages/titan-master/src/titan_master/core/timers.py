"""When to look again: a heap of deadlines, derived from state and rebuilt at every start.

A deadline only says "look now"; who is called looks at the state and decides. So entries that time
has overtaken do no harm and are never searched for.
"""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

from titan_master.core.state import Job, Run, State
from titan_proto.states import JobState

DELAYED: Final = (JobState.SCHEDULED, JobState.BACKOFF)
"""The states of a job that waits for nothing but a moment."""


FORGOTTEN_KEPT: Final = 1_000
"""So many deadlines of runs that have ended may lie about: a gate's is days away, a delay's a year."""

_Entry = tuple[int, int, tuple[str, str, str]]


class JobsDue(NamedTuple):
    """Jobs of one run, delayed, backing off or open gates, whose time has come, unless they ended."""

    run_id: str
    job_ids: tuple[str, ...]


class OvertimeDue(NamedTuple):
    """A job whose time as a whole may be over, unless it has ended meanwhile."""

    run_id: str
    job_id: str


class ServiceDue(NamedTuple):
    """A service that was held back, unless that is over."""

    run_id: str
    job_id: str


class ScheduleDue(NamedTuple):
    """A schedule whose next slot may have come, or about which something has changed."""

    name: str


class WorkerDue(NamedTuple):
    """A worker whose last sign of life may be too long ago."""

    worker_id: str


class Timers:
    """The deadlines of one process."""

    def __init__(self) -> None:
        # (when, in which order set, ("run", "job", "service" or "worker", id, job)): the number keeps equal
        # deadlines in their order, and the heap from comparing further.
        self._heap: list[_Entry] = []
        self._pushed = 0
        self._workers: dict[str, int] = {}
        self._delayed: dict[str, dict[int, list[str]]] = {}
        """Delayed jobs: run → moment → job ids. Beside the heap, so that a run can be forgotten."""
        self._schedules: dict[str, int] = {}
        self._watched: dict[str, int] = {}
        """Entries for the time of whole jobs, by run."""
        self._forgotten = 0
        """Entries of the heap that belong to forgotten runs."""

    def next_ms(self) -> int | None:
        """The earliest deadline."""
        return self._heap[0][0] if self._heap else None

    def delay_jobs(self, run_id: str, job_ids: tuple[str, ...], until_ms: tuple[int, ...]) -> None:
        """Jobs that were scheduled together; those of one moment share an entry."""
        moments = self._delayed.setdefault(run_id, {})
        for job_id, moment in zip(job_ids, until_ms, strict=True):
            ids = moments.get(moment)
            if ids is None:
                moments[moment] = [job_id]
                self._push(moment, ("run", run_id, ""))
            else:
                ids.append(job_id)

    def delay_run(self, run: Run) -> None:
        """All jobs of a run that time moves on: after its acceptance, or after a restart."""
        if not any(run.counts.get(state) for state in (*DELAYED, JobState.WAITING)):
            return
        jobs = [job for job in run.order if _due_ms(job)]
        self.delay_jobs(
            run.run_id,
            tuple(job.spec.id for job in jobs),
            tuple(_due_ms(job) for job in jobs),
        )

    def forget_run(self, run_id: str) -> None:
        """It has ended: what it had delayed may be a year away, and is of no interest any more."""
        self._forgotten += len(self._delayed.pop(run_id, ())) + self._watched.pop(run_id, 0)
        self._sweep()

    def _sweep(self) -> None:
        if self._forgotten > FORGOTTEN_KEPT and self._forgotten * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if self._is_wanted(entry)]
            heapq.heapify(self._heap)
            self._forgotten = 0

    def _is_wanted(self, entry: _Entry) -> bool:
        at_ms, _, (kind, name, _) = entry
        if kind == "service":
            return True
        if kind == "run":
            return at_ms in self._delayed.get(name, ())
        if kind == "schedule":
            return self._schedules.get(name) == at_ms
        return name in self._watched if kind == "job" else self._workers.get(name) == at_ms

    def watch_job(self, run_id: str, job_id: str, at_ms: int) -> None:
        """Look at `at_ms` whether the job has ended: its time as a whole is over then."""
        self._watched[run_id] = self._watched.get(run_id, 0) + 1
        self._push(at_ms, ("job", run_id, job_id))

    def watch_service(self, run_id: str, job_id: str, at_ms: int) -> None:
        """Look at `at_ms` whether this service is still held back."""
        self._push(at_ms, ("service", run_id, job_id))

    def watch_schedule(self, name: str, at_ms: int) -> None:
        """Look at this schedule at `at_ms`, and not when it was to be looked at before."""
        if self._schedules.get(name) != at_ms:
            self.forget_schedule(name)
            self._schedules[name] = at_ms
            self._push(at_ms, ("schedule", name, ""))

    def forget_schedule(self, name: str) -> None:
        """There is nothing to look at any more."""
        if self._schedules.pop(name, None) is not None:
            self._forgotten += 1
            self._sweep()

    def watch_worker(self, worker_id: str, at_ms: int) -> None:
        """Look at this worker at `at_ms`. One entry a worker counts: the earliest."""
        pending = self._workers.get(worker_id)
        if pending is None or at_ms < pending:
            self._workers[worker_id] = at_ms
            self._push(at_ms, ("worker", worker_id, ""))

    def pop_due(
        self, now_ms: int
    ) -> JobsDue | OvertimeDue | ServiceDue | ScheduleDue | WorkerDue | None:
        """The next thing to look at, if any deadline has passed."""
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, _, (kind, name, job_id) = heapq.heappop(self._heap)
            if kind == "job":
                if self._unwatch(name):
                    return OvertimeDue(name, job_id)
                continue
            if kind == "service":
                return ServiceDue(name, job_id)
            if kind == "schedule":
                if self._schedules.get(name) == at_ms:
                    del self._schedules[name]
                    return ScheduleDue(name)
                self._forgotten = max(0, self._forgotten - 1)
                continue
            if kind == "run":
                job_ids = self._take(name, at_ms)
                if job_ids:
                    return JobsDue(name, tuple(job_ids))
            elif self._workers.get(name) == at_ms:
                del self._workers[name]
                return WorkerDue(name)
        return None

    def _unwatch(self, run_id: str) -> bool:
        """One entry of this run has come up; False if the run is forgotten."""
        left = self._watched.pop(run_id, 0)
        if left > 1:
            self._watched[run_id] = left - 1
        if not left:
            self._forgotten = max(0, self._forgotten - 1)
        return left > 0

    def _take(self, run_id: str, moment: int) -> list[str]:
        moments = self._delayed.get(run_id, {})
        job_ids = moments.pop(moment, [])
        if not job_ids:
            self._forgotten = max(0, self._forgotten - 1)
        if not moments:
            self._delayed.pop(run_id, None)
        return job_ids

    def _push(self, at_ms: int, what: tuple[str, str, str]) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at_ms, self._pushed, what))


def _due_ms(job: Job) -> int:
    """When time does something to this job; 0 if it never does."""
    if job.state in DELAYED:
        return job.ready_at_ms
    if job.state is JobState.WAITING and job.gate is not None:
        return job.gate.expires_at_ms
    return 0


def still_due(state: State, due: JobsDue, now_ms: int) -> tuple[str, ...]:
    """Which of the jobs wait for their time still, and for no later than now."""
    run = state.runs.get(due.run_id)
    if run is None:
        return ()
    jobs = (run.jobs[job_id] for job_id in due.job_ids)
    return tuple(job.spec.id for job in jobs if job.state in DELAYED and job.ready_at_ms <= now_ms)
