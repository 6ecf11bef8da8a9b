"""Who descends from whom, by one look at every process; and signals that hit exactly who was seen.

Knows nothing of attempts. Called by the process host and by the sweep of orphans.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable
from typing import Final

from titan_worker.host.identity import ProcessIdentity, ProcessStat, list_pids, read_stat

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37


class Census:
    """Every process, dead ones that nobody waited for included, as they were a moment ago."""

    def __init__(self, stats: Iterable[ProcessStat]) -> None:
        self._children: dict[int, list[ProcessStat]] = {}
        self._groups: set[int] = set()
        self._sessions: dict[int, list[ProcessStat]] = {}
        self._by_pid: dict[int, ProcessStat] = {}
        for stat in stats:
            self._by_pid[stat.pid] = stat
            self._sessions.setdefault(stat.session, []).append(stat)
            self._children.setdefault(stat.parent, []).append(stat)
            if stat.is_alive:
                self._groups.add(stat.group)

    def children(self, pid: int) -> list[ProcessStat]:
        """Those whose parent is `pid`."""
        return self._children.get(pid, [])

    def below(self, pid: int) -> list[ProcessStat]:
        """The living descendants of `pid`, parents before their children."""
        found = []
        # Numbers are used again while we look: what seems to be a circle is walked once.
        waiting, seen = [pid], {pid}
        while waiting:
            for stat in self.children(waiting.pop()):
                if stat.pid not in seen:
                    seen.add(stat.pid)
                    waiting.append(stat.pid)
                    if stat.is_alive:
                        found.append(stat)
        return found

    def tree(self, identity: ProcessIdentity) -> list[ProcessStat]:
        """Exactly this process, its living descendants, and who else is in its session."""
        first = self._by_pid.get(identity.pid)
        if first is None or first.start_ticks != identity.start_ticks or not first.is_alive:
            return []
        session = (one for one in self._sessions[first.session] if one.is_alive)
        found = {one.pid: one for one in (first, *self.below(first.pid))}
        if first.session == first.pid:
            found.update((one.pid, one) for one in session)
        return list(found.values())

    def executes(self, group: int) -> bool:
        """Whether a member of the group is alive."""
        return group in self._groups


def take_census() -> Census:
    """Look at every process: some 20 µs for each. May run in a thread."""
    return Census(stat for pid in list_pids() if (stat := read_stat(pid)) is not None)


def open_exactly(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly this process, or None if it is gone."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Looked at after opening: from here on the descriptor cannot come to mean another process.
    stat = read_stat(identity.pid)
    if stat is None or stat.start_ticks != identity.start_ticks:
        os.close(pidfd)
        return None
    return pidfd


def signal_exactly(stat: ProcessStat, *numbers: int) -> None:
    """Send these to the process that was seen, and to no later one of its number."""
    try:
        pidfd = open_exactly(ProcessIdentity(stat.pid, stat.start_ticks))
    except OSError:  # no descriptor is left: the next look comes to it
        return
    if pidfd is None:
        return
    try:
        for number in numbers:
            signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone meanwhile, or it has changed its user: nothing that we may do about it
    finally:
        os.close(pidfd)


def is_subreaper() -> bool:
    """Whether what our descendants let go of becomes a child of this process."""
    answer = ctypes.c_int(0)
    return _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer)) and answer.value == 1


def be_subreaper(*, wanted: bool) -> bool:
    """Have it become one, or not any more; False where the system does not know that."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def _prctl(option: int, value: object) -> bool:
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(call(option, value, 0, 0, 0) == 0)
