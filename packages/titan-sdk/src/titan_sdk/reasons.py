"""Why a job does not run, in words, from what the master says about it and the cluster.

Decides only the words. Never asks anything; callers bring the views.
"""

from __future__ import annotations

import datetime
from typing import Final

from titan_proto.messages import JobChange, JobView, ServiceView, Stats, WorkerView
from titan_proto.states import JOB_TERMINAL, ExitReason, JobState, WorkerState

_BEFORE_START: Final = frozenset({ExitReason.PREPARE_FAILED, ExitReason.START_FAILED})

_DECISIONS: Final = frozenset({ExitReason.APPROVED, ExitReason.REJECTED, ExitReason.EXPIRED})


def why_not_started(view: JobView, stats: Stats, skills: tuple[str, ...] = ()) -> str:
    """What a job that has not started waits for."""
    if view.state is JobState.BLOCKED:
        return _blocked(view)
    if view.state is JobState.SCHEDULED:
        return f"SCHEDULED, it begins at {_local(view.ready_at_ms)}"
    if view.state is JobState.BACKOFF:
        return f"BACKOFF, attempt {view.attempt} failed and the next one has not begun"
    if view.state is JobState.PLACED:
        return f"PLACED on {view.worker}, which is getting its workspace ready"
    if view.state is JobState.WAITING:
        return f"WAITING for an approval:  titan approve {view.run_alias}/{view.job_id}"
    if view.state is not JobState.QUEUED:
        return str(view.state)
    if view.message:  # the master knows more than the counts of the cluster say
        return f"QUEUED, {view.message}"
    return f"QUEUED, {_queued(stats, skills)}"


def _local(at_ms: int) -> str:
    """A moment by this machine's clock, with its offset from UTC."""
    at = datetime.datetime.fromtimestamp(at_ms / 1000).astimezone()
    return at.strftime("%Y-%m-%d %H:%M:%S %z")


def _blocked(view: JobView) -> str:
    shown = ", ".join(view.waits_for[:5]) or "its dependencies"
    more = len(view.waits_for) - 5
    return f"BLOCKED, it waits for {shown}" + (f" and {more} more" if more > 0 else "")


def _queued(stats: Stats, skills: tuple[str, ...]) -> str:
    up = [one for one in stats.workers if one.state is WorkerState.ONLINE and not one.link_down_ms]
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


def never_started(view: JobView | JobChange) -> bool:
    """Whether the newest attempt of an ended job came to no process, so that there is no log."""
    return view.state in JOB_TERMINAL and (not view.attempt or view.reason in _BEFORE_START)


def how_ended(view: JobView | JobChange | ServiceView, *, brief: bool = False) -> str:
    """How a job, or a service that was up, came to its end; `brief`: without what its worker or the master adds."""
    exited = f"exit {view.exit_code}"
    if view.state is JobState.FAILED and not view.exit_code:
        # Only a service fails by that: for a task it is success, or says another reason.
        exited = "exit 0 before its port answered"
    words = {
        ExitReason.EXITED: exited,
        ExitReason.SIGNALLED: f"killed by signal {view.signal}{_signal_name(view.signal)}",
        ExitReason.OOM_KILLED: "it used more memory than it may",
        ExitReason.CANCELLED: "cancelled",
        ExitReason.STOPPED: "stopped",
        ExitReason.PREPARE_FAILED: "its workspace could not be made",
        ExitReason.START_FAILED: "it could not be started",
        ExitReason.LOST: "its worker was lost",
        ExitReason.WORKER_LEFT: "its worker was shut down",
        ExitReason.TIMED_OUT: "timed out",
        ExitReason.CRASH_LIMIT: "its workers were lost too often",
        ExitReason.QUARANTINED: "quarantined",
        ExitReason.UNHEALTHY: "unhealthy",
        ExitReason.CRASH_LOOP: "ended again and again",
        ExitReason.BAD_OUTPUT: "what it left for other jobs cannot be read",
        ExitReason.BAD_FILES: "the files that it was to leave for other jobs are missing, or cannot be taken",
        ExitReason.MISSING_OUTPUT: "not started: what it needs of a job before it is missing",
        ExitReason.TAKEN_OVER: "taken over",
        ExitReason.APPROVED: "approved",
        ExitReason.REJECTED: "rejected",
        ExitReason.EXPIRED: "nobody decided in time",
        ExitReason.PARENT_FAILED: "a job before it did not succeed",
        ExitReason.PARENT_SKIPPED: "a job before it was skipped",
        ExitReason.TRIGGER_UNMET: "nothing before it failed",
        ExitReason.WHEN_FALSE: "its when is false",
        ExitReason.BAD_WHEN: "not begun",
    }
    said = words.get(view.reason, "")
    if view.message and view.reason in _DECISIONS:
        return view.message  # a sentence of its own: by whom, and what was said
    message = "" if brief and said else view.message
    if not message or message == said:
        return said
    return f"{said}: {message}" if said else message


def _signal_name(number: int) -> str:
    import signal

    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
