"""Whether a failure is worth another try, and after how long. Pure arithmetic on a policy.

Called by ``lifecycle``, which owns trying again; nobody else does. The shift of a delay comes from
the attempt's own name, because a core has no dice: jobs that failed together do not come back
together, and a replayed journal says the same.
"""

from __future__ import annotations

import hashlib
from typing import Final

from titan_master.core.events import AttemptEnded
from titan_proto.ids import AttemptRef
from titan_proto.specs import RetryCause, RetryPolicy
from titan_proto.states import ExitReason

JITTER_PERMILLE: Final = 250
"""A delay is shifted by at most so much of itself, either way."""

_CAUSES: Final[dict[ExitReason, RetryCause]] = {
    ExitReason.EXITED: RetryCause.EXIT,
    ExitReason.SIGNALLED: RetryCause.SIGNAL,
    ExitReason.TIMED_OUT: RetryCause.TIMEOUT,
    ExitReason.START_FAILED: RetryCause.START,
    ExitReason.PREPARE_FAILED: RetryCause.START,
    # It might as well have said by its exit code that it did not do what it should.
    ExitReason.BAD_OUTPUT: RetryCause.EXIT,
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
    """How long to wait after the `failures`-th failure: exponential, shifted, never above the cap."""
    delay = policy.delay_ms
    for _ in range(failures - 1):
        if delay >= policy.max_delay_ms:
            break
        delay = delay * policy.backoff_percent // 100
    delay = min(delay, policy.max_delay_ms)
    if policy.jitter:
        drawn = int.from_bytes(hashlib.sha256(str(ref).encode()).digest()[:4], "big")
        delay += delay * (drawn % (2 * JITTER_PERMILLE + 1) - JITTER_PERMILLE) // 1000
    return min(delay, policy.max_delay_ms)
