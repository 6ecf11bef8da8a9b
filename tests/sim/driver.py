"""What the engines of both daemons do, on virtual time.

Batch the inbox, step the core, commit what became true, only then release what must be done, in
order; one turn at a time, and while a commit is under way the inbox gathers. A `Crash` that is
armed takes effect in the first turn that has what it needs: that is how a process dies at exactly
one point between two of its effects.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from tests.sim.world import Clock, Life, Timer, Violation, World

INPUTS_MAX = 256
"""As the engines have it; some hosts take fewer, so that a burst is many turns."""
IDLE_TURNS_MAX = 200
"""So many turns at one instant without an input: the core spins."""


class CrashPoint(Enum):
    """Where in a turn the process dies."""

    BEFORE_COMMIT = "before the commit"
    LOST_TAIL = "in the commit, which the disk loses"
    KEPT_TAIL = "in the commit, which the disk keeps"
    COMMIT_FAILED = "after the disk has refused the commit, which it may have kept"
    RELEASING = "between the commit and the release of an effect"


class Core(Protocol):
    """What both cores have in common."""

    def handle(self, item: Any, now_ms: int) -> None: ...

    def settle(self, now_ms: int) -> None: ...

    def next_deadline_ms(self) -> int | None: ...


class Shell(Protocol):
    """What a driver needs of the host it runs in."""

    life: Life
    clock: Clock

    def clock_ms(self) -> int: ...

    def drain(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What became true, and what must be done; checked by whoever watches."""
        ...

    def write(self, facts: tuple[Any, ...]) -> None:
        """Begin a commit."""
        ...

    def sync(self, facts: tuple[Any, ...]) -> None:
        """End it."""
        ...

    def lose_unsynced(self) -> None:
        """The disk forgets the commit that was begun."""
        ...

    def is_refused(self, item: Any) -> bool:
        """Whether the core must not see this input; it has been answered."""
        ...

    def broke(self, item: Any) -> bool:
        """The core broke over it (None: what was due): whether that was planned, and the process ended."""
        ...

    def release(self, effect: Any) -> None: ...

    def released(self) -> None:
        """All effects of a turn are out."""
        ...

    def die(self) -> None:
        """The process ends here."""
        ...


class Driver:
    """One engine."""

    def __init__(
        self, world: World, shell: Shell, core: Core, *, commit_ms: Callable[[], int]
    ) -> None:
        self._world = world
        self._shell = shell
        self._core = core
        self._commit_ms = commit_ms
        self._inputs_max = world.random.choice((1, 3, INPUTS_MAX, INPUTS_MAX))
        self._inbox: list[Any] = []
        self._busy = False
        self._kicked = False
        self._deadline: Timer | None = None
        self._idle_turns = 0
        self._idle_at_ms = 0
        self.armed: CrashPoint | None = None
        self.on_crash: Callable[[CrashPoint], None]
        self.turns = 0

    @property
    def is_busy(self) -> bool:
        """Whether a commit is under way: the core is ahead of the disk."""
        return self._busy

    @property
    def has_input(self) -> bool:
        """Whether something came in that the core has not been told."""
        return bool(self._inbox)

    def put(self, item: Any) -> None:
        """Something came in."""
        self._inbox.append(item)
        self.kick()

    def kick(self) -> None:
        """There is something to do."""
        if not self._busy and not self._kicked:
            self._kicked = True
            self._shell.life.after(0, self._turn)

    def _turn(self) -> None:
        self._kicked = False
        size = self._inputs_max
        batch, self._inbox = self._inbox[:size], self._inbox[size:]
        self._watch_for_spinning(batch)
        self.turns += 1
        now_ms = self._shell.clock_ms()
        for item in batch:
            if self._world.tracing:
                self._world.trace(self._shell.life.name, f"< {item}")
            if self._shell.is_refused(item):
                continue
            try:
                self._core.handle(item, now_ms)
            # As in the engine: whatever it is, the process ends, unless a seed must fail for it.
            except Exception:
                if self._shell.broke(item):
                    return
                raise
        try:
            self._core.settle(now_ms)
        except Exception:  # likewise
            if self._shell.broke(None):
                return
            raise
        self.finish()

    def finish(self) -> None:
        """Commit and release what the core has come to."""
        facts, effects = self._shell.drain()
        if self._world.tracing:
            for fact in facts:
                self._world.trace(self._shell.life.name, f"= {fact}")
        if not facts:
            self._release(effects)
            return
        if self.armed is CrashPoint.BEFORE_COMMIT:
            self._crash()
            return
        self._busy = True
        self._shell.write(facts)
        if self.armed in {CrashPoint.LOST_TAIL, CrashPoint.KEPT_TAIL}:
            if self.armed is CrashPoint.LOST_TAIL:
                self._shell.lose_unsynced()
            else:
                self._shell.sync(facts)
            self._crash()
            return
        if self.armed is CrashPoint.COMMIT_FAILED:
            self.armed = None
            self._shell.life.after(self._commit_ms(), lambda: self._commit_failed(facts))
            return
        self._shell.life.after(self._commit_ms(), lambda: self._committed(facts, effects))

    def _commit_failed(self, facts: tuple[Any, ...]) -> None:
        """An fsync came back with an error: nobody knows what the disk has, and nobody may ask."""
        if self._world.chance(50):
            self._shell.lose_unsynced()
        else:
            self._shell.sync(facts)
        self.armed = CrashPoint.COMMIT_FAILED
        self._crash()

    def _committed(self, facts: tuple[Any, ...], effects: tuple[Any, ...]) -> None:
        self._busy = False
        self._shell.sync(facts)
        self._release(effects, had_facts=True)

    def _release(self, effects: tuple[Any, ...], *, had_facts: bool = False) -> None:
        stop_at = None
        if self.armed is CrashPoint.RELEASING and had_facts and effects:
            stop_at = self._world.between(0, len(effects) - 1)
        for place, effect in enumerate(effects):
            if place == stop_at:
                self._shell.released()
                self._crash()
                return
            if self._world.tracing:
                self._world.trace(self._shell.life.name, f"> {effect}")
            self._shell.release(effect)
        self._shell.released()
        if not self._shell.life.alive:
            return
        if self._inbox:
            self.kick()
        else:
            self._sleep()

    def _sleep(self) -> None:
        """Until the core's next deadline, or an input."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        at_ms = self._core.next_deadline_ms()
        if at_ms is not None:
            delay_ms = self._shell.clock.lasts_ms(max(0, at_ms - self._shell.clock_ms()))
            self._deadline = self._shell.life.after(delay_ms, self.kick)

    def _crash(self) -> None:
        point = self.armed
        assert point is not None
        self.armed = None
        self._world.trace(self._shell.life.name, f"CRASH {point.value}")
        self._shell.die()
        self.on_crash(point)

    def _watch_for_spinning(self, batch: list[Any]) -> None:
        if batch or self._idle_at_ms != self._world.now_ms:
            self._idle_turns = 0
            self._idle_at_ms = self._world.now_ms
            return
        self._idle_turns += 1
        if self._idle_turns > IDLE_TURNS_MAX:
            raise Violation(f"{self._shell.life.name} spins: its next deadline is never later")
