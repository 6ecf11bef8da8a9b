"""The worker's only clock.

Anchored to the wall when it starts, carried on by the monotonic clock: it never goes back and
never stands still when somebody sets the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Milliseconds since the epoch."""

    def __init__(self, *, wall_s: Callable[[], float], monotonic_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._now_s = wall_s()
        self._read_at_s = monotonic_s()

    def now_ms(self) -> int:
        """The time; never earlier than the time told before."""
        read_at_s = self._monotonic_s()
        carried_s = self._now_s + (read_at_s - self._read_at_s)
        # Follow a wall that runs ahead (a suspended machine), never one that was set back.
        self._now_s = max(carried_s, self._wall_s())
        self._read_at_s = read_at_s
        return int(self._now_s * 1000)


def system_clock() -> Clock:
    """The clock of this machine."""
    return Clock(wall_s=time.time, monotonic_s=time.monotonic)
