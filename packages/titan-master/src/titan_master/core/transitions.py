"""Which moves between states are legal: the tables behind ``docs/internals/lifecycle.md``.

``apply`` asks here before it moves anything; a move that is not listed is a bug and ends the
process. The first state of a thing is no move.
"""

from __future__ import annotations

from typing import Final

from titan_proto.states import AttemptState, JobState, OpenEnum, RunState, ServiceState, WorkerState

Table = frozenset[tuple[OpenEnum, OpenEnum]]

JOB: Final[Table] = frozenset(
    {
        (JobState.BLOCKED, JobState.QUEUED),  # its parents have ended as its trigger says
        (JobState.BLOCKED, JobState.SCHEDULED),  # likewise, and it is delayed
        (JobState.BLOCKED, JobState.WAITING),  # likewise, and it is a gate
        (JobState.BLOCKED, JobState.SKIPPED),  # they have ended otherwise
        (JobState.BLOCKED, JobState.FAILED),  # its condition cannot be decided
        (JobState.BLOCKED, JobState.CANCELLED),
        (JobState.SCHEDULED, JobState.QUEUED),
        (JobState.SCHEDULED, JobState.WAITING),  # its delay is over, and it is a gate
        (JobState.SCHEDULED, JobState.CANCELLED),
        (JobState.WAITING, JobState.SUCCEEDED),  # approved
        (JobState.WAITING, JobState.FAILED),  # rejected
        (JobState.WAITING, JobState.CANCELLED),
        (JobState.QUEUED, JobState.PLACED),
        (JobState.QUEUED, JobState.CANCELLED),
        (JobState.QUEUED, JobState.SUCCEEDED),  # the service that it asks for is there
        # Tried before, and out of time as a whole; or a parent did not leave what it needs.
        (JobState.QUEUED, JobState.FAILED),
        (JobState.PLACED, JobState.RUNNING),
        (JobState.PLACED, JobState.SUCCEEDED),  # start and end in one report
        (JobState.PLACED, JobState.FAILED),
        (JobState.PLACED, JobState.QUEUED),  # its attempt was lost
        (JobState.PLACED, JobState.BACKOFF),
        (JobState.PLACED, JobState.CANCELLING),
        (JobState.RUNNING, JobState.SUCCEEDED),
        (JobState.RUNNING, JobState.FAILED),
        (JobState.RUNNING, JobState.QUEUED),  # its attempt was lost
        (JobState.RUNNING, JobState.BACKOFF),  # it failed and may be tried again
        (JobState.RUNNING, JobState.CANCELLING),
        (JobState.BACKOFF, JobState.QUEUED),
        (JobState.BACKOFF, JobState.CANCELLED),
        (JobState.BACKOFF, JobState.FAILED),  # out of time as a whole
        (JobState.CANCELLING, JobState.CANCELLED),
        (JobState.CANCELLING, JobState.SUCCEEDED),  # it was done before the order came
        (JobState.CANCELLING, JobState.FAILED),  # told to stop because it took too long as a whole
    }
)

ATTEMPT: Final[Table] = frozenset(
    {
        (AttemptState.PREPARING, AttemptState.RUNNING),
        (AttemptState.PREPARING, AttemptState.STOPPING),
        (AttemptState.PREPARING, AttemptState.ENDED),
        (AttemptState.RUNNING, AttemptState.STOPPING),
        (AttemptState.RUNNING, AttemptState.ENDED),
        (AttemptState.STOPPING, AttemptState.ENDED),
    }
)

RUN: Final[Table] = frozenset(
    {
        (RunState.ACTIVE, RunState.SUCCEEDED),
        (RunState.ACTIVE, RunState.FAILED),
        (RunState.ACTIVE, RunState.CANCELLED),
    }
)

WORKER: Final[Table] = frozenset(
    {
        (WorkerState.ONLINE, WorkerState.SILENT),
        (WorkerState.ONLINE, WorkerState.DRAINING),  # it said that it is being shut down
        (WorkerState.ONLINE, WorkerState.RETIRED),  # a worker of before: it left without saying so
        (WorkerState.SILENT, WorkerState.ONLINE),
        (WorkerState.SILENT, WorkerState.LOST),
        (WorkerState.SILENT, WorkerState.RETIRED),  # likewise
        (WorkerState.DRAINING, WorkerState.ONLINE),  # its next process is here
        (WorkerState.DRAINING, WorkerState.LOST),  # it was not heard until it was gone
        (WorkerState.DRAINING, WorkerState.RETIRED),  # it left
        (WorkerState.LOST, WorkerState.ONLINE),
        (WorkerState.LOST, WorkerState.RETIRED),  # forgotten, or its name was taken over
    }
)

SERVICE: Final[Table] = frozenset(
    {
        (ServiceState.STARTING, ServiceState.HEALTHY),
        (ServiceState.STARTING, ServiceState.UNHEALTHY),  # it was started again before it was well
        (ServiceState.STARTING, ServiceState.STOPPING),
        (ServiceState.STARTING, ServiceState.STOPPED),  # it waited for a worker
        (ServiceState.STARTING, ServiceState.FAILED),
        (ServiceState.HEALTHY, ServiceState.STARTING),  # its worker is gone, or has given it up
        (ServiceState.UNHEALTHY, ServiceState.STARTING),
        (ServiceState.HEALTHY, ServiceState.UNHEALTHY),
        (ServiceState.UNHEALTHY, ServiceState.HEALTHY),
        (ServiceState.HEALTHY, ServiceState.STOPPING),
        (ServiceState.UNHEALTHY, ServiceState.STOPPING),
        (ServiceState.HEALTHY, ServiceState.STOPPED),  # with its worker, and is replaced
        (ServiceState.UNHEALTHY, ServiceState.STOPPED),
        (ServiceState.HEALTHY, ServiceState.FAILED),
        (ServiceState.UNHEALTHY, ServiceState.FAILED),
        (ServiceState.STOPPING, ServiceState.STOPPED),
    }
)

TABLES: Final[dict[str, Table]] = {
    "JOB": JOB,
    "ATTEMPT": ATTEMPT,
    "RUN": RUN,
    "WORKER": WORKER,
    "SERVICE": SERVICE,
}
