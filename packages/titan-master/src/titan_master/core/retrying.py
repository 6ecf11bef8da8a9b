"""Whether a failure is worth another try, and after how long. Pure arithmetic on a policy.

Called by ``lifecycle``, which owns trying again; nobody else does.
"""

from __future__ import annotations

from typing import Final

from titan_master.core.events import AttemptEnded
from titan_proto import backoff
from titan_proto.ids import AttemptRef
from titan_proto.specs import RetryCause, RetryPolicy
from titan_proto.states import ExitReason

_CAUSES: Final[dict[ExitReason, RetryCause]] = {
    ExitReason.EXITED: RetryCause.EXIT,
    ExitReason.SIGNALLED: RetryCause.SIGNAL,
    ExitReason.OOM_KILLED: RetryCause.SIGNAL,
    ExitReason.TIMED_OUT: RetryCause.TIMEOUT,
    ExitReason.START_FAILED: RetryCause.START,
    ExitReason.PREPARE_FAILED: RetryCause.START,
    # It might as well have said by its exit code that it did not do what it should.
    ExitReason.BAD_OUTPUT: RetryCause.EXIT,
    ExitReason.BAD_FILES: RetryCause.EXIT,
}


def is_own_failure(event: AttemptEnded) -> bool:
    """Whether the job itself failed, as opposed to being stopped, lost, or done."""
    if event.reason is ExitReason.EXITED:
        return event.exit_code != 0
    return event.reason in _CAUSES


def is_worth_another(policy: RetryPolicy, event: AttemptEnded, failures: int) -> bool:
    """Whether the policy has another try after this failure, the `failures`-th of the job."""
    if failures > policy.limit or _CAUSES.get(event.reason) not in policy.causes:
        return False
    return event.reason is not ExitReason.EXITED or event.exit_code not in policy.not_exit_codes


def delay_ms(policy: RetryPolicy, ref: AttemptRef, failures: int) -> int:
    """How long to wait after the `failures`-th failure."""
    return backoff.delay_ms(
        failures,
        policy.delay_ms,
        policy.backoff_percent,
        policy.max_delay_ms,
        shift_by=str(ref) if policy.jitter else "",
    )
