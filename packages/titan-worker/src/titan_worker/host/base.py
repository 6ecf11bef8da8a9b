"""What a process host promises; the engine knows this face alone.

A host starts processes in groups of their own, signals whole groups, and says when one has ended.
It never decides: when to start and when to stop is the core's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from titan_proto.ids import AttemptRef
from titan_worker.host.identity import ProcessIdentity


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


class SpawnError(Exception):
    """The process could not be started; the text is for people."""


class Exit(NamedTuple):
    """How a first process ended: `exit_code`, or `signal` when that is not 0."""

    exit_code: int
    signal: int


OnStarted = Callable[[AttemptRef, ProcessIdentity], None]
OnExit = Callable[[AttemptRef, Exit], None]


class ProcessHost(Protocol):
    """Where attempts run. Of each it tells the start, then the end."""

    def spawn(self, ref: AttemptRef, plan: LaunchPlan) -> None:
        """Start the attempt's first process in a group of its own. Raises SpawnError."""

    def terminate(self, ref: AttemptRef, *, force: bool) -> None:
        """SIGTERM to the attempt's group, with `force` SIGKILL; nothing if it is not running."""

    def kill_all(self) -> None:
        """SIGKILL to every group, now. Their ends are still told."""
