"""Virtual time: one heap of what happens next, one source of chance, one record of what happened.

Everything that takes time in a simulated cluster is an entry of `World`'s heap. Nothing here knows
what a master or a worker is. A `Life` is a process of a host: what was due in it is dropped when
it dies and kept for later while it is paused.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import Any

EPOCH_MS = 1_700_000_000_000
"""Where the world's clock starts, so that no core can take a time for a duration."""


class Violation(AssertionError):
    """A promise was broken. The text says which; seed and step say where."""


class Timer:
    """Something due; `cancel` makes it not happen."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It will not happen."""
        self.call = None


class World:
    """The clock, the dice and the log of one simulation."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ms = EPOCH_MS
        self.step = 0
        self.tracing = tracing
        self._heap: list[tuple[int, int, Timer]] = []
        self._entries = 0
        self._digest = hashlib.sha256()

    def after(self, delay_ms: int, call: Callable[[], None]) -> Timer:
        """Have `call` happen `delay_ms` from now, behind what is due then already."""
        timer = Timer(call)
        self._entries += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._entries, timer))
        return timer

    def advance(self) -> bool:
        """Make the next thing happen; False when nothing is due any more."""
        while self._heap:
            at_ms, _entry, timer = heapq.heappop(self._heap)
            if timer.call is None:
                continue
            self.now_ms = at_ms
            self.step += 1
            timer.call()
            return True
        return False

    def chance(self, percent: float) -> bool:
        """True in so many of a hundred cases."""
        return self.random.random() * 100 < percent

    def between(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both possible."""
        return self.random.randint(low, high)

    def remember(self, *what: bytes) -> None:
        """Fold what happened into the digest that two runs of one seed must share."""
        for piece in what:
            self._digest.update(len(piece).to_bytes(4, "big"))
            self._digest.update(piece)

    def digest(self) -> str:
        """Of everything remembered, and of when it ended."""
        done = self._digest.copy()
        done.update(f"{self.step} {self.now_ms} {self.random.random()}".encode())
        return done.hexdigest()

    def trace(self, who: str, what: Any) -> None:
        """Print a line of the story; callers ask `tracing` before they build a long one."""
        if self.tracing:
            print(f"{self.step:6d} {(self.now_ms - EPOCH_MS) / 1000:9.3f}  {who:<9} {what}")


class Clock:
    """A machine's own idea of the time: off by something, and perhaps faster or slower than the
    world's. Only durations may be compared between two of them, and those roughly."""

    def __init__(self, world: World, *, ahead_ms: int = 0) -> None:
        self._world = world
        self._permille = 1_000
        self._told_ms = world.now_ms + ahead_ms
        self._told_at_ms = world.now_ms

    def now_ms(self) -> int:
        """What this clock shows; never less than before."""
        passed_ms = self._world.now_ms - self._told_at_ms
        return self._told_ms + passed_ms * self._permille // 1_000

    def run_at(self, permille: int) -> None:
        """Go on at another speed: 1,000 is the world's."""
        self._told_ms, self._told_at_ms = self.now_ms(), self._world.now_ms
        self._permille = permille

    def lasts_ms(self, delay_ms: int) -> int:
        """How long the world takes for what is `delay_ms` on this clock."""
        return -(-delay_ms * 1_000 // self._permille)


class Life:
    """One process of a host, from its start to its end."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.paused = False
        self.pauses = 0
        """How often it has been stopped: what it promises of time holds between two pauses."""
        self._parked: list[Callable[[], None]] = []

    def after(self, delay_ms: int, call: Callable[[], None]) -> Timer:
        """As `World.after`, for as long as this process lives, and never while it is paused."""
        return self.world.after(delay_ms, lambda: self.do(call))

    def do(self, call: Callable[[], None]) -> None:
        """Now, or when the pause is over, or never."""
        if not self.alive:
            return
        if self.paused:
            self._parked.append(call)
        else:
            call()

    def end(self) -> None:
        """It died: nothing of it happens any more."""
        self.alive = False
        self._parked.clear()

    def pause(self) -> None:
        """It is stopped, as by SIGSTOP or by a machine that sleeps."""
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        """It goes on, with everything that came meanwhile, in order."""
        self.paused = False
        parked, self._parked = self._parked, []
        for call in parked:
            self.after(0, call)
