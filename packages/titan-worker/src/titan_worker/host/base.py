"""What a process host promises; the engine knows this face alone.

A host starts processes in groups of their own, signals all that came of them, and says when one
has ended.
It never decides: when to start and when to stop is the core's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from titan_proto.ids import AttemptRef
from titan_worker.host.identity import ProcessIdentity

LOG_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
LOG_MODE: Final = 0o644
"""How a process's outputs are opened, whoever makes the files."""


class Limits(NamedTuple):
    """What a process may use at most, with all that it starts; 0 is no limit."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    pids: int = 0


class LaunchPlan(NamedTuple):
    """One process, down to its bytes: nothing is left to look up when it is started."""

    program: str
    """Absolute path of what is executed."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    """Working folder, absolute."""
    stdout: str
    stderr: str
    """Files that the process itself appends to."""
    limits: Limits = Limits()
    is_service: bool = False


class GuardTimes(NamedTuple):
    """When a guarded process is ended if nothing else is said, on the machine's steady clock."""

    term_at_s: float
    kill_at_s: float


class SpawnError(Exception):
    """The process could not be started; the text is for people."""


class Exit(NamedTuple):
    """How a first process ended: `exit_code`, or `signal` when that is not 0."""

    exit_code: int
    signal: int
    lease_ended: bool = False
    """Its guard stopped it, because nobody had said that it may go on."""
    problem: str = ""
    """For people: it never became the program it was to be, and its start was not told."""
    oom_killed: bool = False
    """The kernel has ended something of it, because all of it used more memory than it may."""


OnStarted = Callable[[AttemptRef, ProcessIdentity], None]
OnExit = Callable[[AttemptRef, Exit], None]


class ProcessHost(Protocol):
    """Where attempts run. Of each it tells the start, then the end.

    Nothing that an attempt has started outlives it, wherever it went. The end of one that was told
    to stop, or is guarded, is told when all of it is gone; of one that ended by itself what has left
    its group may go a moment after.
    """

    def spawn(self, ref: AttemptRef, plan: LaunchPlan, guard: GuardTimes | None) -> None:
        """Start the attempt's first process in a group of its own. Raises SpawnError.

        With `guard` under a guard, which ends it at these times whether or not this process is able
        to do anything, and at once when this process is gone.
        """

    def renew(self, ref: AttemptRef, guard: GuardTimes) -> None:
        """The attempt's guard may wait longer; nothing if there is none."""

    def terminate(self, ref: AttemptRef, *, force: bool) -> None:
        """SIGTERM to all of the attempt, with `force` SIGKILL; nothing if it is not running."""

    def kill_all(self) -> None:
        """SIGKILL to all of every attempt, now. Their ends are still told."""
