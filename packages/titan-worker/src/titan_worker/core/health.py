"""Whether a service is well: what single checks of it add up to.

Pure counting over a policy. How a check is made, and when, is the shell's (``probes``); what follows
from the verdict is decided in ``attempts``, which is the only caller.
"""

from __future__ import annotations

from titan_proto.specs import HealthCheck


class Health:
    """What checks have said of one process of a service."""

    __slots__ = ("_check", "_failures", "_started_ms", "_was_well")

    def __init__(self, check: HealthCheck, started_ms: int) -> None:
        self._check = check
        self._started_ms = started_ms
        self._failures = 0
        self._was_well = False

    def passed(self) -> None:
        """A check passed: what failed before is forgotten."""
        self._failures = 0
        self._was_well = True

    def failed(self, now_ms: int) -> bool:
        """A check failed: whether that is one too many. A process that starts up has time to."""
        if not self._was_well and now_ms - self._started_ms < self._check.start_period_ms:
            return False
        self._failures += 1
        return self._failures >= self._check.retries
