"""The worker's only clock.

Anchored to the wall when it starts, carried on by the machine's steady clock: whoever sets the wall
clock afterwards, forward or back, changes no lease, no timeout and no heartbeat. The steady clock
counts on while the machine sleeps, as the master's does meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Milliseconds since the epoch."""

    def __init__(self, *, wall_s: Callable[[], float], steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._ahead_s = wall_s() - steady_s()

    def now_ms(self) -> int:
        """The time; never earlier than the time told before."""
        return int((self._steady_s() + self._ahead_s) * 1000)

    def steady_at_s(self, at_ms: int) -> float:
        """What the machine's steady clock shows at this time: other processes read it too."""
        return at_ms / 1000 - self._ahead_s


def system_clock() -> Clock:
    """The clock of this machine."""
    return Clock(wall_s=time.time, steady_s=read_steady_s)


def read_steady_s() -> float:
    """The machine's steady clock, one for all its processes; ``host/stub.py`` reads the same."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
