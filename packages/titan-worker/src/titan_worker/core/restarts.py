"""Whether a service's process is started again, and after how long: its budget.

Pure arithmetic on a policy and on the moments of earlier restarts. The worker decides this alone, so
that a service outlives the loss of its master; whether a service whose budget is spent goes to
another worker is the master's. Called by ``attempts``; nobody else starts a process twice. The shift
of a delay comes from the attempt's own name: a core has no dice.
"""

from __future__ import annotations

import hashlib
from typing import Final

from titan_proto.ids import AttemptRef
from titan_proto.limits import RESTART_WELL_MS
from titan_proto.specs import RestartPolicy, RestartWhen

JITTER_PERMILLE: Final = 250
"""A delay is shifted by at most so much of itself, either way."""


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

    def next_ms(
        self, policy: RestartPolicy, ref: AttemptRef, *, failed: bool, now_ms: int
    ) -> int | None:
        """When to start it again; None: not any more. Counts as a restart."""
        if policy.when is RestartWhen.NEVER:
            return None
        if policy.when is RestartWhen.ON_FAILURE and not failed:
            return None
        self._times_ms = [at_ms for at_ms in self._times_ms if now_ms - at_ms < policy.within_ms]
        before = len(self._times_ms)
        if before >= policy.max:
            return None
        self._times_ms.append(now_ms)
        return now_ms + _delay_ms(policy, ref, before)


def _delay_ms(policy: RestartPolicy, ref: AttemptRef, before: int) -> int:
    if not before:
        return 0
    delay = policy.delay_ms
    for _ in range(before - 1):
        if delay >= policy.max_delay_ms:
            break
        delay = delay * policy.backoff_percent // 100
    delay = min(delay, policy.max_delay_ms)
    drawn = int.from_bytes(hashlib.sha256(f"{ref} {before}".encode()).digest()[:4], "big")
    delay += delay * (drawn % (2 * JITTER_PERMILLE + 1) - JITTER_PERMILLE) // 1000
    return min(delay, policy.max_delay_ms)
