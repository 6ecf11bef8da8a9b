"""The states that people and programs may see, as open enums.

Open: a reader that meets a value of a newer peer gets ``UNKNOWN`` instead of an error, and nobody
ever sends ``UNKNOWN``. Which moves between them are legal is not said here but in the master's
``core/transitions.py``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class OpenEnum(str, Enum):
    """A string enum whose unknown values decode to its ``UNKNOWN`` member."""

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum:
        del value
        return cls["UNKNOWN"]

    def __str__(self) -> str:
        return str(self.value)


class RunState(OpenEnum):
    """ACTIVE, or how the run ended."""

    ACTIVE = "ACTIVE"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"


class JobState(OpenEnum):
    """Where a job of a run is on its way."""

    BLOCKED = "BLOCKED"
    SCHEDULED = "SCHEDULED"
    QUEUED = "QUEUED"
    WAITING = "WAITING"
    """A gate that is open: somebody has to decide."""
    BACKOFF = "BACKOFF"
    """It failed or was lost and will be queued again after a while."""
    PLACED = "PLACED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"


class AttemptState(OpenEnum):
    """One try at executing a job on one worker."""

    PREPARING = "PREPARING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    ENDED = "ENDED"
    UNKNOWN = "UNKNOWN"


class WorkerState(OpenEnum):
    """A worker as the master sees it."""

    ONLINE = "ONLINE"
    SILENT = "SILENT"
    DRAINING = "DRAINING"
    """It stops: nothing new is placed on it, and it goes when what it holds has ended."""
    LOST = "LOST"
    RETIRED = "RETIRED"
    UNKNOWN = "UNKNOWN"


class ServiceState(OpenEnum):
    """A service once its job has settled: it is an object of the cluster from then on."""

    STARTING = "STARTING"
    """It waits for a worker, or is there and has not been healthy yet."""
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    """Its process has ended and is being started again by its worker."""
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class ExitReason(OpenEnum):
    """Why an attempt ended, or why a job ended without one."""

    EXITED = "EXITED"
    """The process ended by itself; see the exit code."""
    SIGNALLED = "SIGNALLED"
    """The process was ended by a signal that Titan did not send."""
    OOM_KILLED = "OOM_KILLED"
    """It used more memory than its `resources` allow, and the kernel ended it."""
    CANCELLED = "CANCELLED"
    STOPPED = "STOPPED"
    """A service was stopped by a person."""
    PREPARE_FAILED = "PREPARE_FAILED"
    """The workspace could not be made."""
    START_FAILED = "START_FAILED"
    """The process could not be started."""
    LOST = "LOST"
    """The worker died or went silent for too long."""
    WORKER_LEFT = "WORKER_LEFT"
    """Its worker was shut down in good order: no fault of the job, which is queued again."""
    TIMED_OUT = "TIMED_OUT"
    """An attempt took longer than its `timeout`, or a job longer than its `job_timeout`."""
    CRASH_LIMIT = "CRASH_LIMIT"
    """Retired: QUARANTINED says the same. Journals of before may hold it; nobody sends it."""
    QUARANTINED = "QUARANTINED"
    """The job's attempts were lost as often as the crash limit allows: it may kill its workers."""
    UNHEALTHY = "UNHEALTHY"
    """A service failed its health check and is not to be started again."""
    CRASH_LOOP = "CRASH_LOOP"
    """A service ended more often than its `restart` allows."""
    BAD_OUTPUT = "BAD_OUTPUT"
    """It exited well, and what it left in its output file cannot be read."""
    BAD_FILES = "BAD_FILES"
    """It exited well, and the files that it leaves for others cannot be taken, or are not there."""
    MISSING_OUTPUT = "MISSING_OUTPUT"
    """Its definition uses an output that was not written, or that makes it too large."""
    PARENT_FAILED = "PARENT_FAILED"
    """It needs the success of a job before it that failed, or was skipped for such a reason."""
    PARENT_SKIPPED = "PARENT_SKIPPED"
    """It needs the success of a job before it that was skipped, though nothing had failed."""
    TRIGGER_UNMET = "TRIGGER_UNMET"
    """It begins after failures only, and there was none."""
    WHEN_FALSE = "WHEN_FALSE"
    """Its `when` is false."""
    BAD_WHEN = "BAD_WHEN"
    """Its `when` reads an output that was not written, or compares what cannot be compared."""
    TAKEN_OVER = "TAKEN_OVER"
    """It succeeded in the run that this one repeats, and was not run again."""
    APPROVED = "APPROVED"
    """A gate was opened for what comes after it."""
    REJECTED = "REJECTED"
    """A gate was closed by a decision."""
    EXPIRED = "EXPIRED"
    """Nobody decided about a gate in time."""
    UNKNOWN = "UNKNOWN"


class ScalingKind(OpenEnum):
    """What has become of a worker that was spawned."""

    ASKED = "ASKED"
    """A worker was told to spawn a sibling."""
    JOINED = "JOINED"
    """It has registered, and shown that it is the one that was asked for."""
    FAILED = "FAILED"
    """It ended before it had, or could not be started."""
    TIMED_OUT = "TIMED_OUT"
    """It was given up, and is killed by the worker that spawned it."""
    DISMISSED = "DISMISSED"
    """It was idle for long, and told to leave."""
    LEFT = "LEFT"
    """It left in good order."""
    LOST = "LOST"
    """It was silent for the whole lease."""
    UNKNOWN = "UNKNOWN"


RUN_TERMINAL: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
JOB_TERMINAL: Final = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED}
)
DECISIONS: Final = frozenset({ExitReason.REJECTED, ExitReason.EXPIRED})
"""Reasons of a failure that was somebody's decision: in no list of dead jobs."""
