"""What time it is, for the master: the only module that reads a clock.

Anchored to the wall and carried on by the monotonic clock. Where the wall is set back, time does not
notice: it goes on from where it was. Where the wall is ahead (somebody set it forward, or the machine
slept), time jumps to it, for schedules and people go by the wall; the jump is counted, because it is
time in which nobody was heard. The journal's last time stamp is a floor, so that time does not go back
over a restart either: where the wall has gone back, time goes on from the floor. It must not stand
still meanwhile, for then no lease would end and no delay be over.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

JUMP_MS: Final = 1_000
"""So far ahead the wall must be for time to jump to it."""


class Clock(Protocol):
    """Milliseconds since the epoch that never go back."""

    jumps: int
    """How often time has jumped: so much of it passed for the wall, and not for this process."""

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
        self.jumps = 0

    def now_ms(self) -> int:
        """The time: it stands still rather than go back, and jumps to a wall that is ahead."""
        ticks_ns = time.monotonic_ns()
        wall_offset_ns = time.time_ns() - ticks_ns
        if wall_offset_ns - self._offset_ns > JUMP_MS * 1_000_000:
            self._offset_ns = wall_offset_ns
            self.jumps += 1
        now = (ticks_ns + self._offset_ns) // 1_000_000
        self._last_ms = max(self._last_ms, now)
        return self._last_ms

    def not_before(self, floor_ms: int) -> None:
        """Go on from `floor_ms`, if the machine's clock has not passed it."""
        behind_ms = floor_ms - self.now_ms()
        if behind_ms > 0:
            self._offset_ns += behind_ms * 1_000_000
