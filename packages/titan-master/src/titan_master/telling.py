"""Events → the lines of the operator's log: what happened, to whom, in words that people type.

It knows the names of workers and the aliases of runs, which events do not repeat; what it remembers
is bounded by what is known and live. It decides what is worth a line, never what is true. The engine
calls it with every turn's events once they are durable, and writes the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from titan_master.core.events import (
    AnyEvent,
    AttemptEnded,
    AttemptPlaced,
    JobBackoff,
    JobEnded,
    JobsQueued,
    MasterStarted,
    PoisonRemembered,
    RunAccepted,
    RunCancelRequested,
    RunEnded,
    SchedulePaused,
    SchedulePut,
    ScheduleRemoved,
    ScheduleResumed,
    ServiceAdded,
    ServiceChanged,
    ServiceEnded,
    ServiceQueued,
    ServiceStopping,
    ServiceUp,
    SiblingDismissed,
    SlotsPassed,
    SpawnAsked,
    SpawnSettled,
    WorkerCordoned,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
    WorkerRetired,
    WorkerReturned,
    WorkerSilent,
)
from titan_master.core.state import State
from titan_proto.states import ExitReason

_TOLD: Final[dict[type, tuple[str, ...]]] = {
    MasterStarted: ("term",),
    RunAccepted: ("run_id", "jobs", "owner", "rerun_alias"),
    RunCancelRequested: ("run_id",),
    RunEnded: ("run_id", "state"),
    JobEnded: ("job_id", "state", "reason", "lost", "message"),
    AttemptPlaced: ("job_id", "number", "worker_id"),
    AttemptEnded: ("job_id", "number", "reason", "message"),
    JobBackoff: ("job_id", "until_ms"),
    ServiceUp: ("name", "run_id", "worker_id", "port"),
    ServiceChanged: ("job_id", "healthy", "restarts"),
    ServiceAdded: ("job_id", "of", "replaces", "why"),
    ServiceStopping: ("job_id", "why"),
    ServiceQueued: ("job_id", "reason", "moves", "why"),
    ServiceEnded: ("job_id", "stopped", "reason"),
    SchedulePut: ("schedule", "version", "owner"),
    SchedulePaused: ("schedule", "by", "why"),
    ScheduleResumed: ("schedule",),
    ScheduleRemoved: ("schedule",),
    SlotsPassed: ("schedule", "count", "missed"),
    WorkerJoined: ("worker_id", "incarnation", "slots", "skills"),
    WorkerSilent: ("worker_id",),
    WorkerDraining: ("worker_id",),
    WorkerCordoned: ("worker_id", "cordoned", "by"),
    WorkerReturned: ("worker_id",),
    WorkerLost: ("worker_id",),
    WorkerRetired: ("worker_id",),
    SpawnAsked: ("number", "worker_id", "port", "cause"),
    SpawnSettled: ("number", "worker_id", "kind", "message"),
    SiblingDismissed: ("worker_id", "why"),
    PoisonRemembered: ("digest", "what"),
}
"""What an operator wants to read of, one line a fact; the rest is in the journal."""

_WITH_ITS_WORKER: Final = (ExitReason.LOST, ExitReason.WORKER_LEFT)


class Teller:
    """The story of one master's time."""

    def __init__(self, state: State) -> None:
        self._workers = {worker.worker_id: worker.name for worker in state.workers.values()}
        self._runs = {run.run_id: run.alias for run in state.runs.values()}
        # A service may outlive its run.
        self._services = {key: one.run_alias for key, one in state.services.items()}

    def lines(self, events: Sequence[AnyEvent]) -> Iterator[str]:
        """One line for each fact of a turn that is worth one.

        Jobs come and go by the thousand, and their every step is in the journal. Told are those
        whose attempt ended with its worker, and what becomes of them then.
        """
        lost: set[tuple[str, str]] = set()
        for event in events:
            if isinstance(event, JobsQueued):
                for job_id in event.job_ids:
                    if (event.run_id, job_id) in lost:
                        run = self._alias(event.run_id, job_id)
                        yield f"JobQueuedAgain run={run} job_id={_word(job_id)}"
                continue
            if type(event) not in _TOLD:
                continue
            self._learn(event)
            if _is_news(event, lost):
                yield self._line(event)
            if isinstance(event, AttemptEnded) and event.reason in _WITH_ITS_WORKER:
                lost.add((event.run_id, event.job_id))
            self._forget(event)

    def _learn(self, event: AnyEvent) -> None:
        if isinstance(event, WorkerJoined):
            self._workers[event.worker_id] = f"{event.host}:{event.port}"
        elif isinstance(event, RunAccepted):
            self._runs[event.run_id] = f"{event.slug}-{event.number}"
        elif isinstance(event, ServiceUp):
            self._services[event.run_id, event.job_id] = self._alias(event.run_id, event.job_id)

    def _forget(self, event: AnyEvent) -> None:
        if isinstance(event, WorkerRetired):
            self._workers.pop(event.worker_id, None)
        elif isinstance(event, ServiceEnded):
            self._services.pop((event.run_id, event.job_id), None)
        elif isinstance(event, RunEnded):
            self._runs.pop(event.run_id, None)

    def _line(self, event: AnyEvent) -> str:
        words = [type(event).__name__]
        run_id = getattr(event, "run_id", "")
        worker_id = getattr(event, "worker_id", "")
        if run_id:
            words.append(f"run={self._alias(run_id, getattr(event, 'job_id', ''))}")
        if worker_id:
            words.append(f"worker={_word(self._workers.get(worker_id, worker_id))}")
        words += (f"{name}={_word(getattr(event, name))}" for name in _TOLD[type(event)])
        return " ".join(words)

    def _alias(self, run_id: str, job_id: str) -> str:
        return self._runs.get(run_id) or self._services.get((run_id, job_id), run_id)


def _is_news(event: AnyEvent, lost: set[tuple[str, str]]) -> bool:
    """Whether this event of a kind that can be told of is to be told."""
    if isinstance(event, AttemptPlaced):
        return event.number > 1
    if isinstance(event, AttemptEnded):
        return event.reason in _WITH_ITS_WORKER
    if isinstance(event, JobEnded):
        return event.reason is ExitReason.QUARANTINED
    if isinstance(event, JobBackoff):
        return (event.run_id, event.job_id) in lost
    return True


def _word(value: object) -> str:
    """A value that stays one word of one line, whatever somebody has put into it."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    plain = text.isprintable() and not any(character in text for character in " \"'")
    return text if plain else repr(text)
