"""What jobs let go of: descendants that left their group and whose parents are gone.

This process is their subreaper, so they become its children. Says whose they are and which of them
nobody may need any more; waits for dead ones. Never touches a child that this process started itself.
Called by the process host.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from titan_proto.ids import AttemptRef
from titan_worker.host.census import Census
from titan_worker.host.identity import ProcessIdentity, ProcessStat
from titan_worker.host.orphans import attempt_of, variables


class Stray(NamedTuple):
    """One of them, alive."""

    stat: ProcessStat
    ref: AttemptRef | None
    """Whose it says to be; None if it says nothing."""
    is_doomed: bool
    """Its attempt is over."""


class Strays:
    """The strays of one worker."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._session = os.getsid(0)
        self._since_ticks = 0
        """Since when there are attempts, and so may be strays; 0: there was none yet."""
        self.spared: set[bytes] = set()
        """Variables, with their values, of processes that are no job's: of siblings, and secret."""
        self._owners: dict[ProcessIdentity, AttemptRef] = {}
        """What living ones have said: a dying process loses its environment before it is dead."""

    def attempt_started(self, start_ticks: int) -> None:
        """An attempt's first process began then."""
        self._since_ticks = self._since_ticks or start_ticks

    def find(
        self,
        census: Census,
        *,
        known: Collection[int],
        running: Mapping[AttemptRef, int],
        until_ticks: float = math.inf,
    ) -> tuple[list[Stray], int]:
        """The living ones, and how many more there were: dead ones that were waited for, and too young ones.

        `known`: the children that this process started for its attempts. `running`: attempts that
        have not ended, and when they began. Who began at `until_ticks` or later may be the first
        process of an attempt that is being started, and is left alone.
        """
        living: list[Stray] = []
        owners: dict[ProcessIdentity, AttemptRef] = {}
        unsettled = 0
        for stat in census.children(os.getpid()):
            if stat.pid in known or not self._is_stray(stat):
                continue
            if stat.start_ticks >= until_ticks:
                unsettled += 1
                continue
            if not stat.is_alive:
                unsettled += _wait_for(stat.pid)
                continue
            if self.spared and not self.spared.isdisjoint(variables(stat.pid)):
                continue
            identity = ProcessIdentity(stat.pid, stat.start_ticks)
            ref = self._owners.get(identity) or attempt_of(stat.pid, self._home)
            if ref is not None:
                owners[identity] = ref
            living.append(Stray(stat, ref, _is_doomed(stat, ref, running)))
        self._owners = owners
        return living, unsettled

    def _is_stray(self, stat: ProcessStat) -> bool:
        # A job has a session of its own and none of its descendants can come into ours: what is in
        # it was started by this process itself, for itself.
        return (
            stat.session != self._session
            and self._since_ticks > 0
            and stat.start_ticks >= self._since_ticks
        )


def _is_doomed(
    stat: ProcessStat, ref: AttemptRef | None, running: Mapping[AttemptRef, int]
) -> bool:
    if ref is not None:
        return ref not in running
    # It has thrown its marks away. It can only be of an attempt that began before it did.
    return all(start_ticks > stat.start_ticks for start_ticks in running.values())


def _wait_for(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
