"""Whether a service's process is started again, and after how long: its budget.

Pure arithmetic on a policy and on the moments of earlier restarts. The worker decides this alone, so
that a service outlives the loss of its master; whether a service whose budget is spent goes to
another worker is the master's. Called by ``attempts``; nobody else starts a process twice.
"""

from __future__ import annotations

from titan_proto import backoff
from titan_proto.ids import AttemptRef
from titan_proto.limits import RESTART_WELL_MS
from titan_proto.specs import RestartPolicy, RestartWhen


class Restarts:
    """What a service has behind it in this attempt. Lost with the worker's process, as it is."""

    __slots__ = ("_healthy_ms", "_times_ms")

    def __init__(self) -> None:
        self._times_ms: list[int] = []
        self._healthy_ms: int | None = None

    def healthy(self, now_ms: int) -> None:
        """It answers, from now on until it ends."""
        if self._healthy_ms is None:
            self._healthy_ms = now_ms

    def ended(self, now_ms: int) -> None:
        """Its process has ended: long health forgives what was before."""
        if self._healthy_ms is not None and now_ms - self._healthy_ms >= RESTART_WELL_MS:
            self._times_ms.clear()
        self._healthy_ms = None

    def next_ms(self, policy: RestartPolicy, ref: AttemptRef, now_ms: int) -> int | None:
        """When to start it again; None: its budget is spent. Counts as a restart."""
        self._times_ms = [at_ms for at_ms in self._times_ms if now_ms - at_ms < policy.within_ms]
        before = len(self._times_ms)
        if before >= policy.max:
            return None
        self._times_ms.append(now_ms)
        if not before:
            return now_ms
        return now_ms + backoff.delay_ms(
            before,
            policy.delay_ms,
            policy.backoff_percent,
            policy.max_delay_ms,
            shift_by=f"{ref} {before}",
        )


def is_wanted(policy: RestartPolicy, *, failed: bool) -> bool:
    """Whether a service that has ended so is to be started again at all."""
    if policy.when is RestartWhen.ON_FAILURE:
        return failed
    return policy.when is RestartWhen.ALWAYS
