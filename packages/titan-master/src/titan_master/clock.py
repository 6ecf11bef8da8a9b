"""What time it is, for the master: the only module that reads a clock.

Anchored to the wall once, at start, and carried on by the monotonic clock: somebody who sets the
machine's clock neither ends leases nor turns time back. The journal's last time stamp is a floor,
so that time does not go back over a restart either: where the wall has gone back, time goes on from
the floor. It must not stand still meanwhile, for then no lease would end and no delay be over.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Milliseconds since the epoch that never go back."""

    def now_ms(self) -> int:
        """The time."""
        ...

    def not_before(self, floor_ms: int) -> None:
        """No later answer is smaller than `floor_ms`."""
        ...


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._last_ms = 0

    def now_ms(self) -> int:
        """The time: it stands still rather than go back."""
        now = (time.monotonic_ns() + self._offset_ns) // 1_000_000
        self._last_ms = max(self._last_ms, now)
        return self._last_ms

    def not_before(self, floor_ms: int) -> None:
        """Go on from `floor_ms`, if the machine's clock has not passed it."""
        behind_ms = floor_ms - self.now_ms()
        if behind_ms > 0:
            self._offset_ns += behind_ms * 1_000_000
