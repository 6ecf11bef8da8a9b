"""Why a job does not run, in words, from what the master says about it and the cluster.

Decides only the words. Never asks anything; callers bring the views.
"""

from __future__ import annotations

from typing import Final

from titan_proto.messages import JobView, Stats, WorkerView
from titan_proto.states import ExitReason, JobState, WorkerState

_DECISIONS: Final = frozenset({ExitReason.APPROVED, ExitReason.REJECTED, ExitReason.EXPIRED})


def why_not_started(view: JobView, stats: Stats, skills: tuple[str, ...] = ()) -> str:
    """What a job that has not started waits for."""
    if view.state is JobState.BLOCKED:
        return _blocked(view)
    if view.state is JobState.SCHEDULED:
        return "SCHEDULED, its delay has not passed yet"
    if view.state is JobState.BACKOFF:
        return f"BACKOFF, attempt {view.attempt} failed and the next one has not begun"
    if view.state is JobState.PLACED:
        return f"PLACED on {view.worker}, which is getting its workspace ready"
    if view.state is JobState.WAITING:
        return f"WAITING for an approval:  titan approve {view.run_alias}/{view.job_id}"
    if view.state is not JobState.QUEUED:
        return str(view.state)
    return f"QUEUED, {_queued(stats, skills)}"


def _blocked(view: JobView) -> str:
    shown = ", ".join(view.waits_for[:5]) or "its dependencies"
    more = len(view.waits_for) - 5
    return f"BLOCKED, it waits for {shown}" + (f" and {more} more" if more > 0 else "")


def _queued(stats: Stats, skills: tuple[str, ...]) -> str:
    up = [worker for worker in stats.workers if worker.state is WorkerState.ONLINE]
    if not up:
        return "no worker is connected. Start one:  titan-worker"
    able = [worker for worker in up if set(skills) <= set(worker.skills)]
    if not able:
        listed = ", ".join(f"{_name(worker)} [{', '.join(worker.skills)}]" for worker in up[:5])
        return f"no worker with skill {' and '.join(skills)}; up are {listed}"
    slots = sum(worker.slots for worker in able)
    if all(worker.used >= worker.slots for worker in able):
        return f"all {slots} slots are taken, {stats.queued} jobs wait"
    return f"{stats.queued} jobs wait"


def _name(worker: WorkerView) -> str:
    return f"{worker.host}:{worker.port}"


def how_ended(reason: ExitReason, exit_code: int, signal: int, message: str = "") -> str:
    """How a process, or a job without one, came to its end."""
    words = {
        ExitReason.EXITED: f"exit {exit_code}",
        ExitReason.SIGNALLED: f"killed by signal {signal}{_signal_name(signal)}",
        ExitReason.CANCELLED: "cancelled",
        ExitReason.STOPPED: "stopped",
        ExitReason.PREPARE_FAILED: "its workspace could not be made",
        ExitReason.START_FAILED: "it could not be started",
        ExitReason.LOST: "its worker was lost",
        ExitReason.TIMED_OUT: "timed out",
        ExitReason.CRASH_LIMIT: "its workers were lost too often",
        ExitReason.QUARANTINED: "quarantined",
        ExitReason.TAKEN_OVER: "taken over",
        ExitReason.APPROVED: "approved",
        ExitReason.REJECTED: "rejected",
        ExitReason.EXPIRED: "nobody decided in time",
        ExitReason.PARENT_FAILED: "a job before it did not succeed",
    }
    said = words.get(reason, "")
    if message and reason in _DECISIONS:
        return message  # a sentence of its own: by whom, and what was said
    if not message or message == said:
        return said
    return f"{said}: {message}" if said else message


def _signal_name(number: int) -> str:
    import signal

    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
