"""Clears away what earlier lives of this worker left running, and what ended attempts did.

Two nets. Processes that the ledger remembers, proven by their identity; and every process of our
user that carries this worker's mark in its environment (jobs hand it down to what they start).
A process is opened by pidfd and looked at again before it is signalled, so a number that was given
to somebody else in between is never hit. Never signals what neither net proves to be ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from titan_proto.ids import AttemptRef
from titan_worker.host.census import open_exactly
from titan_worker.host.identity import ProcessIdentity, ProcessStat, list_pids, read_stat

MARK: Final = "TITAN_WORKER_HOME"
"""Environment variable that names the worker (its private folder) to all its descendants."""
MARKS: Final = (MARK, "TITAN_RUN_ID", "TITAN_JOB_ID", "TITAN_ATTEMPT")
"""What names an attempt of it."""

_MARKS: Final = tuple(map(os.fsencode, MARKS))
_LOG: Final = logging.getLogger(__name__)
_PASSES: Final = 10
_EXEC_S: Final = 0.002
_GONE_WITHIN_MS: Final = 5_000


def sweep(home: str, recorded: Collection[ProcessIdentity]) -> int:
    """Kill the leftovers of the worker whose private folder is `home`; how many there were.

    `recorded` are processes of this boot.
    """
    mark = os.fsencode(home)
    killed = _kill_while_any(
        lambda: {*_recorded(recorded), *_marked(lambda marks: marks[0] == mark)}
    )
    for identity in sorted(killed):
        _LOG.warning("orphan_killed pid=%d home=%s", identity.pid, home)
    return len(killed)


def kill_escaped(home: str, attempts: Iterable[AttemptRef]) -> int:
    """Kill what these ended attempts have left outside their groups; how many there were."""
    ended = {
        tuple(map(os.fsencode, (home, ref.run_id, ref.job_id, str(ref.number)))) for ref in attempts
    }
    return len(_kill_while_any(lambda: _marked(lambda marks: marks in ended)))


def _kill_while_any(find: Callable[[], set[ProcessIdentity]]) -> set[ProcessIdentity]:
    """Kill what `find` finds; one that was forking while we looked shows in the next pass."""
    killed: set[ProcessIdentity] = set()
    for _ in range(_PASSES):
        found = find()
        if not found:
            break
        killed |= found
        _kill(found)
    return killed


def _marked(is_meant: Callable[[tuple[bytes, ...]], bool]) -> set[ProcessIdentity]:
    """Living processes of our user whose marks (of ``MARKS``) are meant; never ourselves."""
    ours = _ancestry()
    found = set()
    for pid in list_pids():
        if pid in ours:
            continue
        stat = read_stat(pid)
        if stat is None or not stat.is_alive or stat.group == 0:  # the kernel's own have none
            continue
        if is_meant(_marks(pid)):
            found.add(ProcessIdentity(pid, stat.start_ticks))
    return found


def attempt_of(pid: int, home: str) -> AttemptRef | None:
    """Which attempt of the worker at `home` this process says to belong to, if to any."""
    found, run_id, job_id, number = map(os.fsdecode, _marks(pid))
    if found != home or not number.isdecimal():
        return None
    return AttemptRef(run_id, job_id, int(number))


def _marks(pid: int) -> tuple[bytes, ...]:
    """The values of ``MARKS`` in its environment; empty ones where it has none."""
    environment = _environment(pid)
    return tuple(environment.get(mark, b"") for mark in _MARKS)


def variables(pid: int) -> list[bytes]:
    """Its environment, each variable with its value; none where it is not ours to read."""
    return [name + b"=" + value for name, value in _environment(pid).items()]


def _recorded(recorded: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
    found = []
    for identity in recorded:
        stat = read_stat(identity.pid)
        # A tick is 10 ms, and in that time a number can be given out again: what we started has a
        # session of its own, and whoever comes to its number so soon has none yet.
        is_meant = stat is not None and stat.start_ticks == identity.start_ticks
        if stat is not None and is_meant and stat.is_alive and stat.session == stat.pid:
            found.append(identity)
    return found


def _environment(pid: int) -> dict[bytes, bytes]:
    """The variables a process was started with; none where it is not ours to read."""
    path = Path("/proc", str(pid))
    try:
        if path.stat().st_uid != os.geteuid():
            return {}
        text = (path / "environ").read_bytes()
        if not text:
            # Caught in the middle of its exec, perhaps: it has none for that moment.
            time.sleep(_EXEC_S)
            text = (path / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = (entry.partition(b"=") for entry in text.split(b"\0"))
    return {name: value for name, _, value in pairs}


def _ancestry() -> set[int]:
    """Ourselves and whoever started us: a worker may itself have been started from a job."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        stat = read_stat(pid)
        pid = stat.parent if stat is not None else 0
    return found


def _kill(identities: Iterable[ProcessIdentity]) -> None:
    """SIGKILL to these and their groups; returns when they are gone, or after five seconds."""
    poller = select.poll()
    with contextlib.ExitStack() as stack:
        waiting: set[int] = set()
        for identity in identities:
            pidfd = open_exactly(identity)
            if pidfd is None:
                continue
            stack.callback(os.close, pidfd)
            _kill_one(pidfd, identity)
            poller.register(pidfd, select.POLLIN)
            waiting.add(pidfd)
        deadline = time.monotonic() + _GONE_WITHIN_MS / 1000
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for pidfd, _event in poller.poll(left_s * 1000):
                poller.unregister(pidfd)
                waiting.discard(pidfd)


def _kill_one(pidfd: int, identity: ProcessIdentity) -> None:
    stat = read_stat(identity.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if stat is not None and _leads_own_group(stat, identity):
            os.killpg(stat.group, signal.SIGKILL)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _leads_own_group(stat: ProcessStat, identity: ProcessIdentity) -> bool:
    """Whether its group is its own: a leader's group is named by its pid, which is proven.

    Members of a group whose leader is gone are found one by one instead.
    """
    return stat.start_ticks == identity.start_ticks and stat.group == identity.pid != os.getpgrp()
